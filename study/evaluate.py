"""python -m study.evaluate --weights FILE --data FOLDER [--backbone NAME [key=value ...]]: evaluate saved weights.

Published weights (timm's names, safetensors or a torch file that holds tensors only) are evaluated as in their publication;
NAME is a published variant, and key=value changes its options. Weights saved by `train.keep: last` include their
own model and normalization. The preprocessing of the images is printed with top-1 and top-5.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from study.backbones import build_backbone, names, specify, variants
from study.backbones.specification import BackboneSpec
from study.backbones.weight_files import load_weights
from study.cli.arguments import command_parser, positive_int
from study.cli.console import open_console
from study.config.yaml_source import parse_override
from study.data.evaluation_folder import EvaluationFolder, FolderBatches, scan_evaluation_folder
from study.data.permutation import permute_positions
from study.data.preprocessing import PUBLISHED_PREPROCESSING, Preprocessing
from study.errors import Problem, UserError, handle_user_errors
from study.training.batches import find_input_permutation
from study.training.device import DeviceChoice, autocast, choose_device, execution_mode
from study.training.evaluation import Evaluation, evaluate
from study.training.memory_layout import choose_memory_format, to_memory_format
from study.training.saved_weights import read_saved_weights

_COLOR_CHANNELS = 3


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to evaluate, and the preprocessing of its images."""

    name: str
    spec: BackboneSpec
    preprocessing: Preprocessing
    permutation: Tensor | None  # of the pixels, as in training


def parser() -> argparse.ArgumentParser:
    parser = command_parser("evaluate", __doc__)
    parser.add_argument("--weights", required=True, metavar="FILE", help="safetensors, or a torch file of tensors")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="FOLDER/<class>/*, or in its test/ or val/")
    parser.add_argument("--backbone", metavar="NAME", help="a published variant, e.g. convmixer_768_32, or a backbone")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="options of the backbone, e.g. num_classes=100")
    parser.add_argument("--mean", type=_parse_triple, metavar="R,G,B", help="replaces the published one, of values in [0, 1]")
    parser.add_argument("--std", type=_parse_triple, metavar="R,G,B", help="replaces the published one")
    parser.add_argument("--crop", type=_parse_fraction, metavar="F", help="fraction of the resized shorter side to keep")
    parser.add_argument("--interpolation", choices=("bicubic", "bilinear"), help="replaces the published one")
    parser.add_argument("--batch-size", type=positive_int, default=64, metavar="N")
    parser.add_argument(
        "--workers", type=positive_int, default=len(os.sched_getaffinity(0)), metavar="N", help="threads that decode images"
    )
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--json", action="store_true", help="for scripts")
    return parser


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    console, path = open_console(), Path(arguments.weights)
    if not path.is_file():
        raise UserError(Problem("no such weights file", key="--weights", value=str(path)))
    model = resolve_model(path, arguments)
    folder = scan_evaluation_folder(Path(arguments.data))
    _check_model_fits_folder(model, folder)
    weights = load_weights(path, model.spec)
    device = choose_device(arguments.device, os.environ)
    result = evaluate_on_folder(model, weights, folder=folder, device=device, arguments=arguments)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if arguments.json:
        document = {
            "model": model.name,
            "weights_sha256": digest,
            "images": len(folder.files),
            "classes": len(folder.class_names),
            "top1": result.accuracy,
            "top5": result.top5,
            "loss": result.loss,
            "image_size": model.spec.image_size,
            "preprocessing": asdict(model.preprocessing),
        }
        console.print_json(json.dumps(document))
        return 0
    top5 = "" if result.top5 is None else f", top-5 {result.top5:.2%}"
    images = f"n = {len(folder.files):,} images of {len(folder.class_names):,} classes in {folder.root}"
    lines = [
        f"{model.name}: {model.spec.closed_form().params:,} parameters from {path} (sha256 {digest[:12]})",
        f"top-1 {result.accuracy:.2%}{top5}, loss {result.loss:.4f}",
        f"{images}; {device.kind}, {arguments.precision}",
        f"images: {model.preprocessing.describe(model.spec.image_size)}",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    return 0


def resolve_model(path: Path, arguments: argparse.Namespace) -> EvaluatedModel:
    """The model that the arguments name, or else the metadata of the weights; raises UserError if neither does."""
    saved, permutation = read_saved_weights(path), None
    if arguments.backbone:
        name, published = arguments.backbone, PUBLISHED_PREPROCESSING.get(arguments.backbone)
        spec = specify(name, {"in_channels": _COLOR_CHANNELS, **dict(map(parse_override, arguments.settings))})
    elif saved is None:
        rule = "the file doesn't say which model these weights are of"
        raise UserError(Problem(rule, place=str(path), key="--backbone", choices=[*variants(), *names()]))
    else:
        spec, name, published = saved.run.model, saved.run.run_id, None
        permutation = find_input_permutation(saved.run, torch.device("cpu"))
    if published is not None:
        preprocessing = published
    elif saved is not None:
        preprocessing = Preprocessing(saved.mean, saved.std)
    elif arguments.mean and arguments.std:
        preprocessing = Preprocessing(arguments.mean, arguments.std)
    else:
        raise UserError(Problem("the normalization of its images is unknown: give --mean and --std", key=str(name)))
    given = {option: getattr(arguments, option) for option in ("mean", "std", "crop", "interpolation")}
    changes = {option: value for option, value in given.items() if value is not None}
    return EvaluatedModel(name, spec, replace(preprocessing, **changes), permutation)


def _check_model_fits_folder(model: EvaluatedModel, folder: EvaluationFolder) -> None:
    problems, spec = [], model.spec
    if spec.in_channels != _COLOR_CHANNELS:
        rule = "images have three channels, and this model has another number"
        problems.append(Problem(rule, model.name, "in_channels", spec.in_channels))
    if len(folder.class_names) != spec.num_classes:
        rule = f"the model has {spec.num_classes:,} classes, and the folder has {len(folder.class_names):,}"
        problems.append(Problem(rule, str(folder.root), "--data"))
    if problems:
        raise UserError(*problems)


def evaluate_on_folder(
    model: EvaluatedModel,
    weights: dict[str, Tensor],
    *,
    folder: EvaluationFolder,
    device: DeviceChoice,
    arguments: argparse.Namespace,
) -> Evaluation:
    """Evaluate the model with these weights, which must be all of its weights, on every image of the folder."""
    backbone = build_backbone(model.spec)
    backbone.load_state_dict(weights)
    layout = choose_memory_format(backbone)
    backbone.to(device=device.device).to(memory_format=layout)  # type: ignore[call-overload]
    size, batch_size = model.spec.image_size, arguments.batch_size
    batches = FolderBatches(folder, model.preprocessing, size, batch_size, device.device, layout, arguments.workers)
    count = -(-len(folder.files) // batch_size)
    tracked = track(batches, "evaluating", total=count, transient=True, console=Console(stderr=True))
    source = None if model.permutation is None else model.permutation.to(device.device)
    inputs = ((to_memory_format(permute_positions(images, source), layout), labels) for images, labels in tracked)
    with execution_mode(device):
        return evaluate(backbone, inputs, autocast=autocast(arguments.precision, device.device))


def _parse_triple(word: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in word.split(","))
    if len(values) != _COLOR_CHANNELS:
        raise argparse.ArgumentTypeError(f"{word} is not three numbers separated by commas")
    return values


def _parse_fraction(word: str) -> float:
    value = float(word)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{word} is not a number above 0 and at most 1")
    return value


if __name__ == "__main__":
    sys.exit(main())

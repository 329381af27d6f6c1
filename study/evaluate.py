"""python -m study.evaluate --weights FILE --data FOLDER [--backbone NAME [key=value ...]]: evaluate saved weights.

Published weights (timm's names, safetensors or a torch file that holds tensors only) are evaluated as in their publication;
NAME is a published variant, and key=value changes its options. Weights saved by `train.keep: last` include their
own model, classes and normalization. The preprocessing of the images is printed with top-1 and top-5.

The folder may have some of the model's classes only: images are then classified among these.
"""

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from study.backbones import build_backbone, names, specify, variants
from study.backbones.specification import BackboneSpec
from study.backbones.weight_files import load_weights, read_weights_file
from study.cli.arguments import add_json_option, command_parser, parse_path, positive_int
from study.cli.console import open_console, print_json
from study.config.yaml_source import parse_override
from study.data.evaluation_folder import EvaluationFolder, FolderBatches, match_classes, scan_evaluation_folder
from study.data.permutation import permute_positions
from study.data.preprocessing import PUBLISHED_PREPROCESSING, Preprocessing
from study.errors import Problem, UserError, handle_user_errors
from study.planning.traced_cost import find_cost
from study.training.batches import find_input_permutation
from study.training.device import DeviceChoice, autocast, choose_device, execution_mode
from study.training.evaluation import Evaluation, SelectOutputs, evaluate
from study.training.memory_layout import choose_memory_format, to_memory_format
from study.training.saved_weights import read_saved_weights

_COLOR_CHANNELS = 3


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to evaluate, the preprocessing of its images, and the class of each output, where that is known."""

    name: str
    spec: BackboneSpec
    preprocessing: Preprocessing
    permutation: Tensor | None = None  # of the pixels, as in training
    class_names: tuple[str, ...] | None = None


def parser() -> argparse.ArgumentParser:
    parser = command_parser("evaluate", __doc__)
    parser.add_argument(
        "--weights", required=True, type=parse_path, metavar="FILE", help="safetensors, or a torch file of tensors"
    )
    parser.add_argument(
        "--data", required=True, type=parse_path, metavar="FOLDER", help="FOLDER/<class>/*, or in its test/ or val/"
    )
    parser.add_argument("--backbone", metavar="NAME", help="a published variant, e.g. convmixer_768_32, or a backbone")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="options of the backbone, e.g. num_classes=100")
    parser.add_argument("--key", metavar="NAME", help="of a file with several sets of weights, e.g. state_dict_ema")
    parser.add_argument(
        "--classes", type=parse_path, metavar="FILE", help="the class folder of each output of the model, one a line"
    )
    parser.add_argument("--mean", type=_parse_triple, metavar="R,G,B", help="replaces the published one, of values in [0, 1]")
    parser.add_argument("--std", type=_parse_deviations, metavar="R,G,B", help="replaces the published one")
    parser.add_argument("--crop", type=_parse_fraction, metavar="F", help="fraction of the resized shorter side to keep")
    parser.add_argument("--interpolation", choices=("bicubic", "bilinear"), help="replaces the published one")
    parser.add_argument("--batch-size", type=positive_int, default=64, metavar="N")
    parser.add_argument(
        "--workers", type=positive_int, default=len(os.sched_getaffinity(0)), metavar="N", help="threads that decode images"
    )
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    add_json_option(parser)
    return parser


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    console, path = open_console(for_json=arguments.json), Path(arguments.weights)
    if not path.is_file():
        raise UserError(Problem("no such weights file", key="--weights", value=str(path)))
    model = resolve_model(path, arguments)
    folder = scan_evaluation_folder(Path(arguments.data))
    outputs = match_classes(folder, model.class_names, outputs=model.spec.num_classes)
    resample = any(word.startswith(("image_size=", "patch_size=")) for word in arguments.settings)
    file = read_weights_file(path)
    weights = load_weights(file, model.spec, key=arguments.key, resample=resample)
    device = choose_device(arguments.device, os.environ)
    result = evaluate_on_folder(model, weights.state, folder=folder, outputs=outputs, device=device, arguments=arguments)
    if math.isnan(result.loss):
        raise UserError(Problem("some outputs of the model are no numbers; try --precision fp32", str(path), "--weights"))
    if arguments.json:
        document = {
            "model": model.name,
            "weights_sha256": file.sha256,
            "images": len(folder.files),
            "classes": len(folder.class_names),
            "classes_of_model": model.spec.num_classes,
            "classes_by_name": model.class_names is not None,
            "weights_key": weights.key,
            "positions_resampled_from": weights.grid,
            "patches_resampled_from": weights.patch_size,
            "top1": result.accuracy,
            "top5": result.top5,
            "loss": result.loss if math.isfinite(result.loss) else None,
            "image_size": model.spec.image_size,
            "preprocessing": asdict(model.preprocessing),
        }
        print_json("evaluate", document)
        return 0
    top5 = "" if result.top5 is None else f", top-5 {result.top5:.2%}"
    images = f"n = {len(folder.files):,} images of {len(folder.class_names):,} classes in {folder.root}"
    source = f"{weights.key} of {path}" if weights.key else str(path)
    lines = [
        f"{model.name}: {find_cost(model.spec).params:,} parameters from {source} (sha256 {file.sha256[:12]})",
        f"top-1 {result.accuracy:.2%}{top5}, loss {result.loss:.4f}",
        f"{images}; {device.kind}, {arguments.precision}",
        f"images: {model.preprocessing.describe(model.spec.image_size)}",
    ]
    if len(outputs) < model.spec.num_classes:
        lines.append(f"classified among these {len(outputs):,} of the model's {model.spec.num_classes:,} classes")
    if model.class_names is None:
        lines.append(
            "the weights don't name their classes: taken in the sorted order of the folder's (--classes FILE names them)"
        )
    lines += weights.describe_resampling(model.spec)
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    return 0


def resolve_model(path: Path, arguments: argparse.Namespace) -> EvaluatedModel:
    """The model that the arguments name, or else the metadata of the weights; raises UserError if neither does."""
    saved, settings, permutation = read_saved_weights(path), dict(map(parse_override, arguments.settings)), None
    if arguments.backbone:
        name, published = arguments.backbone, PUBLISHED_PREPROCESSING.get(arguments.backbone)
        spec = specify(name, {"in_channels": _COLOR_CHANNELS, **settings})
    elif saved is None:
        rule = "the file doesn't say which model these weights are of"
        raise UserError(Problem(rule, place=str(path), key="--backbone", choices=[*variants(), *names()]))
    else:
        name, published = saved.run.run_id, None
        spec = specify(saved.run.backbone, {**saved.run.model.model_dump(), **settings})
        permutation = find_input_permutation(saved.run, torch.device("cpu"))
        if permutation is not None and spec.image_size != saved.run.model.image_size:
            rule = "its training permuted the pixels of images of another size"
            raise UserError(Problem(rule, str(path), "image_size", spec.image_size))
    if spec.in_channels != _COLOR_CHANNELS:
        rule = "images have three channels, and this model has another number"
        raise UserError(Problem(rule, str(name), "in_channels", spec.in_channels))
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
    class_names = saved.class_names if saved else None
    if arguments.classes:
        class_names = _read_class_names(Path(arguments.classes), spec)
    return EvaluatedModel(name, spec, replace(preprocessing, **changes), permutation, class_names)


def _read_class_names(path: Path, spec: BackboneSpec) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(Problem(f"cannot read the class names: {error}", str(path), "--classes")) from None
    if len(names) != spec.num_classes or len(set(names)) < len(names):
        rule = (
            f"the model has {spec.num_classes:,} classes, each on a line of its own; here are {len(set(names)):,} distinct ones"
        )
        raise UserError(Problem(rule, str(path), "--classes"))
    return names


def evaluate_on_folder(
    model: EvaluatedModel,
    weights: dict[str, Tensor],
    *,
    folder: EvaluationFolder,
    outputs: Sequence[int],
    device: DeviceChoice,
    arguments: argparse.Namespace,
) -> Evaluation:
    """Evaluate the model with these weights, which must be all of its weights, on every image of the folder.

    `outputs` are the model's outputs for the folder's classes.
    """
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
        return evaluate(SelectOutputs(backbone, outputs), inputs, autocast=autocast(arguments.precision, device.device))


def _parse_triple(word: str, *, least: float = 0.0) -> tuple[float, ...]:
    """One number per channel, of values in [0, 1]."""
    with contextlib.suppress(ValueError):
        values = tuple(float(part) for part in word.split(","))
        if len(values) == _COLOR_CHANNELS and all(least <= value <= 1 for value in values):
            return values
    of_bytes = "; values of 0 to 255 are divided by 255" if "," in word else ""
    raise argparse.ArgumentTypeError(f"{word!r} is not three numbers of {least:g} to 1, separated by commas{of_bytes}")


_parse_deviations = partial(_parse_triple, least=1e-3)


def _parse_fraction(word: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(word) <= 1:
            return float(word)
    raise argparse.ArgumentTypeError(f"{word!r} is not a number above 0 and at most 1")


if __name__ == "__main__":
    sys.exit(main())

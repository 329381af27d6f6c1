"""python -m study.evaluate --weights FILE --data FOLDER [--backbone NAME [key=value ...]]: top-1 and top-5 of weights.

Published weights (timm's names, safetensors or a torch file that holds tensors only) are evaluated as their figures were
published; NAME is a published variant, and key=value changes its options. Weights kept by `train.keep: last` know their
own model and normalisation. What was done to the images is told with the figures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

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
from study.data.preprocessing import PUBLISHED_PREPROCESSING, Interpolation, Preprocessing
from study.errors import Problem, UserError, handle_user_errors
from study.training.device import DeviceChoice, autocast, choose_device, execution_mode
from study.training.evaluation import Evaluation, evaluate
from study.training.memory_layout import choose_memory_format
from study.training.saved_weights import SavedWeights, read_saved_weights

COLOUR_CHANNELS = 3


@dataclass(frozen=True)
class Candidate:
    """A model to be judged, and how its images are prepared."""

    name: str
    spec: BackboneSpec
    preprocessing: Preprocessing


def parser() -> argparse.ArgumentParser:
    parser = command_parser("evaluate", __doc__)
    parser.add_argument("--weights", required=True, metavar="FILE", help="safetensors, or a torch file of tensors")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="FOLDER/<class>/*, or in its test/ or val/")
    parser.add_argument("--backbone", metavar="NAME", help="a published variant, e.g. convmixer_768_32, or a backbone")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="options of the backbone, e.g. num_classes=100")
    parser.add_argument("--mean", type=triple, metavar="R,G,B", help="instead of the published one, of values in [0, 1]")
    parser.add_argument("--std", type=triple, metavar="R,G,B", help="instead of the published one")
    parser.add_argument("--crop", type=share, metavar="F", help="share of the resized shorter side that is kept")
    parser.add_argument("--interpolation", choices=("bicubic", "bilinear"), help="instead of the published one")
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
    found = candidate(path, arguments)
    folder = scan_evaluation_folder(Path(arguments.data))
    _check_classes(found, folder)
    weights = load_weights(path, found.spec)
    device = choose_device(arguments.device, os.environ)
    judged = judge(found, weights, folder=folder, device=device, arguments=arguments)
    if arguments.json:
        console.print_json(json.dumps(_document(found, judged, folder=folder, path=path)))
    else:
        _show(found, judged, folder=folder, console=console, path=path, execution=f"{device.kind}, {arguments.precision}")
    return 0


def candidate(path: Path, arguments: argparse.Namespace) -> Candidate:
    """The model that the arguments, or else the weights' own notes, describe; UserError where neither does."""
    kept = read_saved_weights(path)
    if arguments.backbone:
        spec = specify(arguments.backbone, {"in_channels": COLOUR_CHANNELS, **dict(map(parse_override, arguments.settings))})
        name, known = arguments.backbone, PUBLISHED_PREPROCESSING.get(arguments.backbone)
    elif kept is None:
        told = "these weights do not say which model they are of"
        raise UserError(Problem(told, place=str(path), key="--backbone", choices=[*variants(), *names()]))
    else:
        spec, name, known = kept.run.model, kept.run.run_id, None
    known = _of_kept(kept) if known is None and kept is not None else known
    if known is None and arguments.mean and arguments.std:
        known = Preprocessing(arguments.mean, arguments.std)
    if known is None:
        raise UserError(Problem("how its images were normalised is not known: give --mean and --std", key=str(name)))
    return Candidate(name, spec, _changed(known, arguments))


def _of_kept(kept: SavedWeights) -> Preprocessing:
    return Preprocessing(kept.mean, kept.std)


def _changed(known: Preprocessing, arguments: argparse.Namespace) -> Preprocessing:
    """The known preprocessing with what the command line says otherwise."""
    interpolation: Interpolation = arguments.interpolation or known.interpolation
    crop = known.crop if arguments.crop is None else arguments.crop
    return replace(
        known, mean=arguments.mean or known.mean, std=arguments.std or known.std, crop=crop, interpolation=interpolation
    )


def _check_classes(found: Candidate, folder: EvaluationFolder) -> None:
    problems = []
    if found.spec.in_channels != COLOUR_CHANNELS:
        problems.append(
            Problem(
                "pictures have three channels, and this model takes another number",
                found.name,
                "in_channels",
                found.spec.in_channels,
            )
        )
    if len(folder.class_names) != found.spec.num_classes:
        rule = f"the model tells {found.spec.num_classes:,} classes apart, and the folder has {len(folder.class_names):,}"
        problems.append(Problem(rule, str(folder.root), "--data"))
    if problems:
        raise UserError(*problems)


def judge(
    found: Candidate,
    weights: dict[str, Tensor],
    *,
    folder: EvaluationFolder,
    device: DeviceChoice,
    arguments: argparse.Namespace,
) -> Evaluation:
    """The figures of the model with these weights, which are all of its weights, on every image of the folder."""
    model = build_backbone(found.spec)
    model.load_state_dict(weights)
    layout = choose_memory_format(model)
    model.to(device=device.device).to(memory_format=layout)  # type: ignore[call-overload]
    batches = FolderBatches(
        folder, found.preprocessing, found.spec.image_size, arguments.batch_size, device.device, layout, arguments.workers
    )
    with execution_mode(device):
        return evaluate(model, _shown(batches), autocast=autocast(arguments.precision, device.device))


def _shown(batches: FolderBatches) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches, with progress on standard error."""
    count = -(-len(batches.folder.files) // batches.batch_size)
    yield from track(batches, "evaluating", total=count, transient=True, console=Console(stderr=True))


def _document(found: Candidate, judged: Evaluation, *, folder: EvaluationFolder, path: Path) -> dict[str, object]:
    return {
        "model": found.name,
        "weights_sha256": sha256(path),
        "images": len(folder.files),
        "classes": len(folder.class_names),
        "top1": judged.accuracy,
        "top5": judged.top5,
        "loss": judged.loss,
        "image_size": found.spec.image_size,
        "preprocessing": asdict(found.preprocessing),
    }


def _show(
    found: Candidate, judged: Evaluation, *, folder: EvaluationFolder, console: Console, path: Path, execution: str
) -> None:
    params = found.spec.closed_form().params
    top5 = "" if judged.top5 is None else f", top-5 {judged.top5:.2%}"
    lines = [
        f"{found.name}: {params:,} parameters from {path} (sha256 {sha256(path)[:12]})",
        f"top-1 {judged.accuracy:.2%}{top5}, loss {judged.loss:.4f}",
        f"n = {len(folder.files):,} images of {len(folder.class_names):,} classes in {folder.root}; {execution}",
        f"images: {found.preprocessing.describe(found.spec.image_size)}",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def triple(word: str) -> tuple[float, ...]:
    """Three numbers, for argparse."""
    values = tuple(float(part) for part in word.split(","))
    if len(values) != COLOUR_CHANNELS:
        raise argparse.ArgumentTypeError(f"{word} is not three numbers with commas between them")
    return values


def share(word: str) -> float:
    """A number above 0 and up to 1, for argparse."""
    value = float(word)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{word} is not above 0 and up to 1")
    return value


if __name__ == "__main__":
    sys.exit(main())

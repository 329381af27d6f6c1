"""Accuracy on other images than a run's own test set: changed test images, and further folders with the same classes."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from study.config.run import Run
from study.data.evaluation_folder import FolderBatches, match_classes, scan_evaluation_folder
from study.data.permutation import permute_positions
from study.data.preprocessing import Preprocessing
from study.data.splits import Splits
from study.errors import Problem, UserError
from study.probing.distortions import Distortion, list_distortions
from study.probing.kept_network import KeptNetwork
from study.records.correctness import pack_correctness
from study.records.probe_file import CLEAN, Correctness
from study.training.batches import EVALUATION_PIXELS, find_input_permutation
from study.training.device import autocast
from study.training.evaluation import SelectOutputs, evaluate

_COLOR_CHANNELS = 3


def evaluate_further(
    network: KeptNetwork, splits: Splits, run: Run, *, without: Collection[str], workers: int
) -> Iterator[tuple[str, Correctness]]:
    """Correctness by test: the test set as it is (`clean`), with every distortion, and the folders of `data.also_test`.

    `run` has the folders; `without` names tests to leave out; `workers` threads decode images. UserError for unusable folders.
    """
    distortions = list_distortions(splits.info.image_size, splits.info.mean)
    if taken := sorted(run.data.also_test.keys() & {CLEAN, *(each.label for each in distortions)}):
        raise UserError(*(Problem("is the name of a generated test", key=f"data.also_test.{name}") for name in taken))
    for label, distortion in [(CLEAN, None), *((each.label, each) for each in distortions)]:
        if label not in without:
            yield label, _judge(network, network.model, distort_batches(network, splits, distortion))
    for name, place in run.data.also_test.items():
        if name not in without:
            yield name, _evaluate_folder(network, splits, name=name, place=Path(place), workers=workers)


def distort_batches(network: KeptNetwork, splits: Splits, distortion: Distortion | None) -> Iterator[tuple[Tensor, Tensor]]:
    """All test images in stored order as the network's inputs, changed, with their labels."""
    test, size = splits.test, max(1, EVALUATION_PIXELS // splits.info.image_size**2)
    for numbers in torch.split(torch.arange(len(test)), size):
        pixels = test.stored[test.rows[numbers]]
        changed = pixels if distortion is None else distortion(pixels, numbers.tolist())
        yield network.prepare(splits, changed), test.labels[numbers].to(network.device)


def _evaluate_folder(network: KeptNetwork, splits: Splits, *, name: str, place: Path, workers: int) -> Correctness:
    """Correctness on a folder, prepared as the test set was; where it has some of the classes, among these."""
    key, info = f"data.also_test.{name}", splits.info
    if info.channels != _COLOR_CHANNELS:
        raise UserError(Problem("a folder's images have three channels, and this data set has another number", key=key))
    try:
        folder = scan_evaluation_folder(place)
        outputs = match_classes(folder, info.class_names, outputs=info.num_classes)
    except UserError as error:
        raise UserError(*(replace(problem, key=key) for problem in error.problems)) from None
    size = max(1, EVALUATION_PIXELS // info.image_size**2)
    prepared = Preprocessing(info.mean, info.std)
    batches = FolderBatches(folder, prepared, info.image_size, size, network.device, torch.contiguous_format, workers)
    source = find_input_permutation(network.run, network.device)
    permuted = ((permute_positions(images, source), labels) for images, labels in batches)
    return _judge(network, SelectOutputs(network.model, outputs), permuted)


def _judge(network: KeptNetwork, model: torch.nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Correctness:
    """Correctness in the precision of the run's own evaluation."""
    result = evaluate(model, batches, autocast=autocast(network.run.train.precision, network.device))
    correct = result.predictions.correct
    return Correctness(len(correct), pack_correctness(correct))

"""python -m study.probe SWEEP [--where COLUMN=VALUE]: measure what trained networks do, from weights that runs have kept.

Nothing is trained: runs need `train.keep: last`. Receptive fields, attention, kernels and similarities of layers are written to
runs/<sweep>/probes, with pictures of the runs of the first seed. What was measured before of the same weights is not measured
again.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from study.cli.arguments import add_json_option, positive_int, suggest_launch, sweep_folder, sweep_parser
from study.cli.console import open_console, pluralize, print_json
from study.config.plugins import LoadedPlugins, load_plugins
from study.config.run import Run
from study.config.sweep_file import read_sweep
from study.data import describe_dataset
from study.data.splits import Splits, StoredImages
from study.errors import Problem, UserError, handle_user_errors
from study.launcher.run_filter import match_runs, parse_where
from study.probing.attention_distance import average_maps
from study.probing.kept_network import KeptNetwork, sample_images
from study.probing.learned_filters import compare_positions, read_kernels, read_stem_filters
from study.probing.measurements import choose_compared, compare_runs, list_measures
from study.probing.receptive_field import SHARES, measure_receptive_fields
from study.probing.robustness import evaluate_further
from study.probing.similarity import LEAST_IMAGES, describe_layers
from study.records.code_snapshot import list_copied_plugins
from study.records.ledger import read_launches
from study.records.plan_file import PlannedEntry, load_plan
from study.records.probe_file import (
    CLEAN,
    ProbeFile,
    SimilarityFile,
    compute_accuracy,
    read_probe,
    write_probe,
    write_similarity,
)
from study.records.sweep_folder import SweepFolder
from study.training.device import choose_device, execution_mode

IMAGES = 256
_PICTURED_IMAGES, _PICTURED_KERNELS = 32, 64


def parser() -> argparse.ArgumentParser:
    parser = sweep_parser("probe", __doc__, sweep="a sweep's YAML file, or a folder of runs")
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only runs with this value")
    parser.add_argument(
        "--images", type=positive_int, default=IMAGES, metavar="N", help=f"test images to measure over (default: {IMAGES})"
    )
    parser.add_argument("--maps", type=positive_int, metavar="N", help="draw the attention to N of these images as well")
    parser.add_argument(
        "--tests", action="store_true", help="evaluate on changed test images and the folders of data.also_test as well"
    )
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add_json_option(parser)
    return parser


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    console = open_console(for_json=arguments.json)
    if arguments.images < LEAST_IMAGES:
        raise UserError(Problem(f"at least {LEAST_IMAGES} images are needed", "command line", "--images", arguments.images))
    folder, planned, plugins = _find_runs(arguments)
    kept = [entry for entry in planned if (folder.weights / f"{entry.run_id}.safetensors").is_file()]
    lacking = [entry.run_id for entry in planned if entry not in kept]
    if not kept:
        raise UserError(Problem("no run has kept its weights: train with train.keep: last", place=str(folder.weights)))
    device = choose_device(arguments.device, os.environ)
    with execution_mode(device), plugins.in_use():
        probe = _Probe(folder, device.device, arguments.images, console, maps=arguments.maps, tests=arguments.tests)
        probe.measure_runs(kept)
    if lacking:
        console.print(f"{pluralize(len(lacking), 'run')} without kept weights, e.g. {lacking[0]}")
    console.print(f"written to {folder.probes}", soft_wrap=True)
    if arguments.json:
        found = {"folder": str(folder.probes), "images": arguments.images, "runs": [entry.run_id for entry in kept]}
        print_json("probe", {**found, "without_weights": lacking})
    return 0


def _find_runs(arguments: argparse.Namespace) -> tuple[SweepFolder, list[PlannedEntry], LoadedPlugins]:
    """The sweep's folder, its final runs that --where chooses, and its plug-ins, as launched last. Raises UserError."""
    path = Path(arguments.sweep)
    if (path / "launches").is_dir():
        folder = SweepFolder(path)
        plan = load_plan(folder)
        launch = read_launches(folder)[-1]
        plugins = load_plugins(list_copied_plugins(launch.plugins, folder.code / launch.code / "study"))
    else:
        sweep = read_sweep(arguments.sweep, arguments.overrides)
        folder, plugins = sweep_folder(arguments, sweep.name), sweep.plugins
        with suggest_launch(sweep, runs=arguments.runs):
            plan = load_plan(folder)
    final = [entry for entry in plan.runs if entry.stage == "final"]
    chosen = match_runs(final, parse_where(arguments.where))
    return folder, [entry for entry in final if entry.run_id in chosen], plugins


@dataclass(frozen=True)
class _Probe:
    """One call of the command: where it writes, over how many images, of how many it draws the attention, whether it tests."""

    folder: SweepFolder
    device: torch.device
    images: int
    console: Console
    maps: int | None
    tests: bool
    _stored: dict[str, StoredImages] = field(default_factory=dict)  # by the options that chose them

    def measure_runs(self, kept: Sequence[PlannedEntry]) -> None:
        """Probe every run that was not probed before, then compare the layers of some runs with each other."""
        runs = [Run.from_json(entry.run) for entry in kept]
        compared = choose_compared(runs)
        described: dict[str, Tensor] = {}
        for run in runs:
            network = KeptNetwork.read(self.folder.weights / f"{run.run_id}.safetensors", self.device)
            splits = self._load(run)
            inputs = network.prepare(splits, sample_images(splits.test, self.images))
            layers = describe_layers(network.model, inputs)
            is_new = self._measure(network, inputs, layers)
            if self.tests:
                self._test(network, splits, run)
            if run in compared:
                described[run.run_id] = layers
            if run.seed == min(each.seed for each in runs) and (is_new or self.maps):
                self._draw(network, splits, inputs)
        write_similarity(self.folder, SimilarityFile(self.images, tuple(compare_runs(compared, described))))

    def _load(self, run: Run) -> Splits:
        key = run.data.model_dump_json()
        if key not in self._stored:
            self._stored[key] = StoredImages.open(run.data, describe_dataset(run.data))
        return self._stored[key].divide(run.data.split, run.seed)

    def _measure(self, network: KeptNetwork, inputs: Tensor, layers: Tensor) -> bool:
        """Measure a network unless it was measured before; whether it was now."""
        run_id, former = network.run.run_id, read_probe(self.folder, network.run.run_id)
        is_new = former is None or (former.weights, former.images) != (network.digest, len(inputs))
        if former is None or is_new:
            measures = list_measures(network, inputs, layers)
            tests = former.tests if former and former.weights == network.digest else {}
            former = ProbeFile(run_id, network.digest, len(inputs), tuple(measures), tests)
            write_probe(self.folder, former)
        radii = [one.value for one in former.measures if one.name == "field_radius" and one.at == SHARES[-1]]
        last = (
            f"{SHARES[-1]:.0%} of the last layer's receptive field within {radii[-1]:.1f} px" if radii else "no receptive field"
        )
        self.console.print(f"{run_id}: {last}")
        return is_new

    def _test(self, network: KeptNetwork, splits: Splits, run: Run) -> None:
        """Evaluate a run on the further tests that it wasn't evaluated on before."""
        former = read_probe(self.folder, run.run_id)
        assert former is not None, "a run is measured first"
        workers = len(os.sched_getaffinity(0))
        found = {**former.tests, **dict(evaluate_further(network, splits, run, without=former.tests, workers=workers))}
        write_probe(self.folder, replace(former, tests=found))
        self.console.print(
            f"{run.run_id}: {pluralize(len(found) - 1, 'further test')}, clean {compute_accuracy(found[CLEAN]):.1%}"
        )

    def _draw(self, network: KeptNetwork, splits: Splits, inputs: Tensor) -> None:
        """Write the pictures of a network to probes/pictures."""
        from study.reporting.figures import probe_pictures  # imports the plotting libraries
        from study.reporting.figures.figure_files import save_figure
        from study.reporting.figures.style import PAPER

        model, figures = network.model, {}
        figures["fields"] = probe_pictures.draw_fields(measure_receptive_fields(model, inputs[:_PICTURED_IMAGES]))
        if (filters := read_stem_filters(model)) is not None:
            figures["stem"] = probe_pictures.draw_tiles(filters)
        for own in read_kernels(model):
            figures[f"kernels-{own.layer}"] = probe_pictures.draw_tiles(own.kernels[:_PICTURED_KERNELS])
        if (similarity := compare_positions(model)) is not None:
            figures["positions"] = probe_pictures.draw_positions(similarity)
        if self.maps and (maps := average_maps(model, inputs[: self.maps])):
            pixels = sample_images(splits.test, self.images)[: self.maps].permute(0, 2, 3, 1).double().numpy() / 255
            figures["attention"] = probe_pictures.draw_attention(pixels, [*maps.values()], [f"layer {layer}" for layer in maps])
        for name, figure in figures.items():
            save_figure(figure, self.folder.probes / "pictures" / f"{network.run.run_id}-{name}", style=PAPER, formats=("png",))


if __name__ == "__main__":
    sys.exit(main())

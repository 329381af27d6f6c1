"""Which figures a study has of what its networks do: receptive fields, attention, and accuracy on shuffled images."""

from collections.abc import Iterator
from functools import partial

import pandas as pd

from study.analysis import labels
from study.analysis.findings import StudyPart
from study.analysis.further_tests import estimate_losses, list_tests, split_name
from study.analysis.layer_measures import select_measure
from study.reporting.figures.excerpts import excerpt_study
from study.reporting.figures.figure_spec import FigureSpec, describe_range
from study.reporting.figures.probe_plots import plot_layers, plot_losses

FIELD_SHARE = 0.5
"""Of the receptive field's mass within the radius that figure and sentences show: larger ones end at the image's border."""


def list_probe_figures(part: StudyPart, probes: pd.DataFrame) -> Iterator[FigureSpec]:
    """The figures that the part has measures for."""
    shown = excerpt_study(part.table, (part.layout.along, *part.layout.panels), part.layout.series)
    per = f"one panel for each {labels.format_option(part.layout.along)}"
    bands = f"Lines: mean over seeds; bands: lowest to highest seed{_describe_basis(part, probes)}."
    fields = select_measure(probes, "field_radius", at=FIELD_SHARE)
    if len(fields):
        yield FigureSpec(
            "receptive-field",
            "How far each layer sees",
            f"Radius around the central token that holds half of its effective receptive field, by layer; 0: the stem. "
            f"{bands}{shown.note}",
            f"Radius of the receptive field over layers, {per}.",
            partial(plot_layers, shown.table, fields, layout=part.layout, label="radius (pixels)"),
        )
    attention = select_measure(probes, "attention_distance")
    if len(attention):
        both = pd.concat([attention, select_measure(probes, "kernel_distance")])
        yield FigureSpec(
            "attention-distance",
            "How far each layer mixes",
            "Mean distance between a token and those that it attends to, weighted by attention, a mean over heads; of "
            f"depthwise convolutions, that of the kernel's weights from its center. Dotted: the kernel's radius. "
            f"{bands}{shown.note}",
            f"Distance over layers, {per}.",
            partial(plot_layers, shown.table, both, layout=part.layout, label="distance (pixels)", reach=True),
        )
    losses = compute_shuffle_losses(part)
    if len(losses):
        yield FigureSpec(
            "patch-shuffle",
            "What is left when blocks are shuffled",
            "Test accuracy minus that on the same images as they are, with the image's blocks in a random order, by the number "
            f"of blocks along a side. Error bars: 95 % interval over {part.population}; n = {describe_range(losses['n'])} "
            f"seeds per cell.{shown.note}",
            f"Accuracy lost over the number of blocks, {per}.",
            partial(plot_losses, shown.table, losses, layout=part.layout),
        )


def compute_shuffle_losses(part: StudyPart) -> pd.DataFrame:
    """The losses of every cell on all tests `patch_shuffle`, as from `estimate_losses`, with their `strength`."""
    names = [name for name in list_tests(part.table) if split_name(name)[0] == "patch_shuffle"]
    frames = [own.assign(strength=split_name(name)[1]) for name in names if len(own := estimate_losses(part, name))]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _describe_basis(part: StudyPart, probes: pd.DataFrame) -> str:
    runs, images = probes["run_id"].nunique(), describe_range(probes["images"].dropna())
    return f"; {runs} of {len(part.table)} runs, {images} test images"

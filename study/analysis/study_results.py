"""The tables that are computed from one study, each once: cells, contrasts and shares of the variance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from study.analysis.cell_grid import CellLevels, FloatArray, Grid, Level, read_cells, read_grid, read_numbers
from study.analysis.cell_means import summarize_cells
from study.analysis.class_accuracy import compare_confusions, tabulate_calibration, tabulate_classes, tabulate_confusions
from study.analysis.complete_designs import merge_partial_options
from study.analysis.contrast_results import estimate_contrasts
from study.analysis.declared_contrasts import DeclaredContrasts
from study.analysis.error_consistency import compare_errors
from study.analysis.factor_ranges import DesignRanges, estimate_ranges
from study.analysis.group_sequential import Look
from study.analysis.margin import Margin
from study.analysis.planned_contrasts import Contrast
from study.analysis.simultaneous import DRAWS
from study.analysis.variance_shares import decompose_variance
from study.config.sweep import CHANGE
from study.errors import UserError


@dataclass(frozen=True)
class Unavailable:
    """A result that the study does not have, and the reason as a sentence."""

    reason: str


_NO_PREDICTIONS = Unavailable("No predictions were kept (data.predictions).")


@dataclass(frozen=True, eq=False)
class StudyResults:
    """A run table and its factors with their levels, patch size first; the results are computed when first read.

    `correctness`: per test image, as from `load_correctness`; `predictions`: their counts, as from `count_predictions`; empty
    where none were kept. `choice_variance`: what tuning's choice adds to the variance of each cell's mean (fraction squared);
    cells that it lacks have none. `declared`: what the sweep states about its contrasts itself. `look`: which one this is,
    where seeds come in stages.
    """

    table: pd.DataFrame
    levels: Mapping[str, Sequence[Level]]
    correctness: pd.DataFrame = field(default_factory=pd.DataFrame)
    margin: Margin = field(default_factory=Margin)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    choice_variance: Mapping[CellLevels, float] = field(default_factory=dict)
    declared: DeclaredContrasts = field(default_factory=DeclaredContrasts)
    look: Look | None = None
    draws: int = DRAWS  # of each family's largest statistic

    @property
    def varied(self) -> list[str]:
        """The factors with more than one level."""
        return [name for name, values in self.levels.items() if len(set(values)) > 1]

    @property
    def is_ablation(self) -> bool:
        """Whether changes are compared with a baseline."""
        return CHANGE in self.varied

    @cached_property
    def grid(self) -> Grid:
        """The cells of all factors by seeds."""
        grid = read_grid(self.table, list(self.levels), correctness=self.correctness)
        if not self.choice_variance:
            return grid
        return replace(grid, choice_variance=np.array([self.choice_variance.get(cell, 0.0) for cell in grid.cells]))

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Accuracy of every cell, as from `summarize_cells`."""
        return summarize_cells(self.grid)

    @cached_property
    def baselines(self) -> FloatArray:
        """The accuracy (fraction) of a linear model on pixels, for the images of each cell (`cells`); NaN where unknown."""
        own = read_numbers(self.table, "baseline_accuracy")
        pairs = zip(read_cells(self.table, list(self.levels)), own, strict=True)
        found = {cell: accuracy for cell, accuracy in pairs if not np.isnan(accuracy)}
        return np.array([found.get(cell, np.nan) for cell in self.grid.cells])

    @cached_property
    def planned(self) -> list[Contrast]:
        """The contrasts that follow from the factors and their planned cells, and those that the sweep states."""
        return self.declared.plan(self.levels, cells=set(self.grid.cells))

    @cached_property
    def contrasts(self) -> pd.DataFrame | Unavailable:
        """The planned contrasts, as from `estimate_contrasts`."""
        if not self.planned:
            return Unavailable("No two cells differ in exactly one factor, so there is no contrast.")
        return estimate_contrasts(self.grid, self.planned, margin=self.margin, look=self.look, draws=self.draws)

    @cached_property
    def ranges(self) -> list[DesignRanges]:
        """The ranges of the factors in every largest complete design, as from `estimate_ranges`; none in an ablation."""
        if self.is_ablation:
            return []
        return estimate_ranges(merge_partial_options(self.grid), look=self.look, draws=self.draws)

    @cached_property
    def errors(self) -> pd.DataFrame | Unavailable:
        """Whether two mixers or backbones err on the same images, as from `compare_errors`."""
        found = compare_errors(merge_partial_options(self.grid))
        return Unavailable("No two token mixers or backbones have correctness per image.") if found is None else found

    @cached_property
    def has_predictions(self) -> bool:
        """Whether predictions of these runs were kept."""
        return bool(len(self.predictions)) and bool(self.predictions["run_id"].isin(self.table["run_id"]).any())

    @cached_property
    def classes(self) -> pd.DataFrame | Unavailable:
        """Accuracy by class, as from `tabulate_classes`."""
        return tabulate_classes(self.table, self.predictions, list(self.levels)) if self.has_predictions else _NO_PREDICTIONS

    @cached_property
    def calibration(self) -> pd.DataFrame | Unavailable:
        """Calibration errors, as from `tabulate_calibration`."""
        if not self.has_predictions:
            return _NO_PREDICTIONS
        return tabulate_calibration(self.table, self.predictions, list(self.levels))

    @cached_property
    def confusions(self) -> pd.DataFrame | Unavailable:
        """What each cell confuses, as from `tabulate_confusions`."""
        if not self.has_predictions:
            return _NO_PREDICTIONS
        return tabulate_confusions(self.table, self.predictions, list(self.levels))

    @cached_property
    def compared_confusions(self) -> pd.DataFrame:
        """The confusions that differ most between mixers or backbones, as from `compare_confusions`; empty without them."""
        found, measured = self.confusions, self.calibration
        if not isinstance(found, pd.DataFrame) or not isinstance(measured, pd.DataFrame):
            return pd.DataFrame()
        return compare_confusions(found, measured)

    @property
    def population(self) -> str:
        """What intervals speak of."""
        images = "and new test images of this kind" if self.grid.correct is not None else "on these test images"
        return f"new training seeds {images}"

    @cached_property
    def decomposition(self) -> pd.DataFrame | Unavailable:
        """The shares of the variance, as from `decompose_variance`."""
        if self.is_ablation:
            return Unavailable(
                "An ablation changes one thing at a time: its changes are no levels of one factor to share among."
            )
        if len(self.varied) < 2:
            return Unavailable("Shares of the variance need at least two factors.")
        try:
            return decompose_variance(self.grid)
        except UserError as error:
            return Unavailable(f"The study's {error.problems[0].key} {error.problems[0].rule}.")

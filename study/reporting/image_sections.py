"""The tables of what is known of single test images."""

from functools import partial

import pandas as pd

from study.analysis import labels
from study.reporting.text_tables import Column, ReportSection, TableRow, build_table, percent_column

_KAPPAS = {"between": "between", "within the first": "within_upper", "within the second": "within_lower"}


def build_errors(errors: pd.DataFrame) -> ReportSection:
    """Whether two mixers or backbones err on the same images, from what `compare_errors` found."""
    reading = (
        "Error consistency: Cohen's kappa of two runs' correctness on the same test images, the mean over pairs of runs with "
        "different seeds; 1: they err on the same images, 0: as independently as their accuracies allow. Between: a run of "
        "each; within: two runs of the same cell, the yardstick. Only one correct: the share of images that it classifies "
        "correctly in most of its runs, and the other incorrectly in most of its own. A description of these runs on these "
        "test images."
    )
    columns = [
        Column("first", lambda row: labels.format_level(row["upper"]), numeric=False),
        Column("second", lambda row: labels.format_level(row["lower"]), numeric=False),
        *(Column(name, partial(_format_kappa, key)) for name, key in _KAPPAS.items()),
        percent_column("only the first correct (%)", "only_upper", digits=2),
        percent_column("only the second correct (%)", "only_lower", digits=2),
    ]
    return ReportSection("errors", "Which images", build_table(errors, columns), reading)


def _format_kappa(name: str, row: TableRow) -> str:
    return "–" if pd.isna(row[name]) else f"{row[name]:.2f}".replace("-", "−")

"""The tables of what is known of single test images."""

from functools import partial

import pandas as pd

from study.analysis import labels
from study.analysis.cell_means import clip_intervals
from study.analysis.findings import StudyPart
from study.reporting.text_tables import (
    Column,
    ReportSection,
    TableRow,
    build_table,
    factor_columns,
    index_rows,
    interval_column,
    percent_column,
    text_column,
)

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


def build_classes(part: StudyPart) -> ReportSection:
    """Macro accuracy, the classes with the lowest and the highest accuracy, and calibration of every cell."""
    classes, calibration, factors = part.classes, part.calibration, list(part.levels)
    assert isinstance(classes, pd.DataFrame) and isinstance(calibration, pd.DataFrame), "predictions were kept"
    ordered = classes[classes["class"] >= 0].sort_values("accuracy", kind="stable")
    ends = [index_rows(ordered.drop_duplicates(factors, keep=keep), factors) for keep in ("first", "last")]
    errors = index_rows(calibration, factors)
    columns = [
        *factor_columns(factors),
        percent_column("macro accuracy (%)", "accuracy"),
        interval_column(),
        *(
            Column(f"{name} class", lambda row, find=find: _format_class(find(row)))  # type: ignore[misc]
            for name, find in zip(("worst", "best"), ends, strict=True)
        ),
        Column("calibration error (%)", lambda row: labels.format_percent(errors(row).get("calibration_error"), digits=2)),
        text_column("n", "n", numeric=True),
    ]
    reading = (
        "Macro accuracy: the mean of the accuracies of all classes, each that of the class's own test images; 95 % interval "
        "over new training seeds, on these test images. Classes by their number, with accuracy in percent. Calibration error: "
        "the expected one, in 15 bins of confidence of equal width, in percentage points. Every class is in classes.csv."
    )
    macro = clip_intervals(classes[classes["class"] == -1])
    return ReportSection("classes", "Classes and calibration", build_table(macro, columns), reading)


def _format_class(row: TableRow) -> str:
    return f"{row['class']} ({labels.format_percent(row['accuracy'])})" if row else "–"


def build_confusions(found: pd.DataFrame) -> ReportSection:
    """The confusions that differ most between two mixers or backbones, from what `compare_confusions` found."""
    columns = [
        Column("first", lambda row: labels.format_level(row["upper"]), numeric=False),
        Column("second", lambda row: labels.format_level(row["lower"]), numeric=False),
        text_column("class", "label", numeric=True),
        text_column("taken for", "predicted", numeric=True),
        percent_column("by the first (%)", "share_upper", digits=2),
        percent_column("by the second (%)", "share_lower", digits=2),
    ]
    reading = (
        "Of the test images of a class, the share that is taken for another one, the mean over the runs; the confusions with "
        "the largest differences of two mixers or backbones. A description of these runs on these test images: chosen for "
        "their size, so nothing is claimed. Those of every cell are in confusions.csv."
    )
    return ReportSection("confusions", "Confusions", build_table(found, columns), reading)


def _format_kappa(name: str, row: TableRow) -> str:
    return "–" if pd.isna(row[name]) else f"{row[name]:.2f}".replace("-", "−")

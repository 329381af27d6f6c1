"""The tables of what a sweep states itself: the changes of its ablation, and its expectations."""

from functools import partial

import pandas as pd

from study.analysis import labels
from study.analysis.ablation import list_ablation_costs, tabulate_ablation
from study.analysis.findings import StudyPart
from study.config.sweep import CHANGE
from study.reporting.text_tables import (
    Column,
    ReportSection,
    TableRow,
    build_table,
    interval_column,
    percent_column,
    text_column,
)


def build_ablation(part: StudyPart) -> ReportSection:
    """The table of an ablation as papers print it: a line per change, with its difference to the baseline and its costs."""
    others = [labels.format_option(name) for name in part.varied if name != CHANGE]
    averaged = f" Averaged over {labels.join_words(others)}; costs are the range of its runs." if others else ""
    reading = (
        "Each change is made by itself to the baseline. Difference: change minus baseline, in percentage points, formed within "
        f"seeds, with 95 % intervals over {part.population} that hold for all changes at once; the verdict is read off them."
        f"{averaged}"
    )
    columns = [
        text_column(CHANGE, CHANGE),
        percent_column("test accuracy (%)", "accuracy", digits=2),
        percent_column("difference", "difference", digits=2, signed=True),
        interval_column(digits=2, signed=True),
        Column("verdict", lambda row: "–" if pd.isna(row["verdict"]) else str(row["verdict"]), numeric=False),
        Column("n", lambda row: "–" if pd.isna(row["n"]) else f"{row['n']:.0f}"),
        *(Column(labels.format_axis_label(name), partial(_format_span, name)) for name in list_ablation_costs(part.table)),
    ]
    return ReportSection("ablation", "Ablation", build_table(tabulate_ablation(part), columns), reading)


def _format_span(name: str, row: TableRow) -> str:
    """An amount, or the ends of its range."""
    low, high = (labels.format_amount(row[f"{name}_{end}"]) for end in ("low", "high"))
    return low if low == high else f"{low} to {high}"


def build_expectations(part: StudyPart) -> ReportSection:
    """What the sweep expected before its runs, beside what they gave."""
    reading = (
        "Stated before the runs. A sign is as expected, or against expectation, where the verdict of its contrast says so; an "
        "accuracy is reproduced where its whole 95 % interval is within the tolerance, and not where the interval is outside."
    )
    columns = [text_column(name, name) for name in ("expected", "found", "result")]
    return ReportSection("expectations", "Expected and found", build_table(part.checked, columns), reading)

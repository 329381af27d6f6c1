"""The tables of a report, each with its name, title and explanation; Markdown, LaTeX and the page show the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pandas as pd

from study.analysis import labels
from study.analysis.cell_means import clip_intervals
from study.analysis.contrast_results import SIGNIFICANT
from study.analysis.findings import Findings, StudyPart
from study.analysis.study_comparison import CONTRAST, compare_signs
from study.analysis.study_results import Unavailable
from study.reporting.cost_sections import build_cost_curves, build_costs
from study.reporting.text_tables import (
    Column,
    ReportSection,
    TableRow,
    TextTable,
    build_table,
    factor_columns,
    format_estimate,
    format_p_value,
    index_rows,
    interval_column,
    list_notes,
    percent_column,
    text_column,
)


def list_sections(findings: Findings) -> list[ReportSection]:
    """Every table of the report in its order; none where the study plans no runs."""
    if not findings.parts:
        return []
    compared = [] if findings.compared is None else [_build_comparison(findings, findings.compared)]
    return [*compared, *(section for part in findings.parts for section in _list_part_sections(part)), _build_compute(findings)]


def _list_part_sections(part: StudyPart) -> Iterator[ReportSection]:
    sections = [
        build_cells(part),
        _build_contrasts(part),
        _build_variance_shares(part),
        build_costs(part),
        *build_cost_curves(part),
        *([_build_tuning(part)] if len(part.trials) else []),
        _build_fairness(part),
    ]
    for section in sections:
        title = f"{section.title}, {part.title}" if part.title else section.title
        yield replace(section, name=f"{section.name}{part.ending}", title=title)


def _build_comparison(findings: Findings, compared: pd.DataFrame) -> ReportSection:
    columns = [Column("contrast", _describe_contrast, numeric=False)]
    for part in findings.parts:
        find = index_rows(compared[compared["study"] == part.title], CONTRAST)
        columns.append(Column(part.title, partial(_format_difference, find)))
    signs = {"significant": "reverses", "possible": "may reverse", "none": "same", "not significant": "not significant"}
    columns.append(Column("sign", lambda row: signs[row["sign_change"]], numeric=False))
    reading = (
        "Differences in percentage points with 95 % intervals; *: significantly different from zero (adjusted). "
        "Sign: same in all columns with a significant difference; reverses; may reverse (one of the two signs is not "
        "significant); or not significant in any column. Networks of different columns differ in size, so columns are not "
        "subtracted."
    )
    return ReportSection("side-by-side", "Contrasts side by side", build_table(compare_signs(compared), columns), reading)


def _describe_contrast(row: TableRow) -> str:
    return ", ".join(filter(None, (f"{row['upper']} − {row['lower']}", row["where"])))


def _format_difference(find: Callable[[TableRow], TableRow], contrast: TableRow) -> str:
    row = find(contrast)
    if not row or pd.isna(row["difference"]):
        return "–"
    star = "*" if row["verdict"] in SIGNIFICANT else ""
    return star + format_estimate(row["difference"], row["low"], row["high"], digits=2, signed=True)


def build_cells(part: StudyPart) -> ReportSection:
    """Accuracy of every cell with its spread, interval and n, and its network's costs."""
    factors, cells = list(part.levels), part.cells
    diverged = bool(cells["diverged"].sum())
    columns = [
        *factor_columns(factors),
        percent_column("test accuracy (%)", "mean"),
        interval_column(),
        percent_column("SD", "sd", digits=2),
        Column("n", lambda row: f"{row['n']} of {row['planned']}"),
    ]
    if diverged:
        columns.append(text_column("diverged", "diverged", numeric=True))
        columns.append(interval_column("bounds with diverged runs", low="worst", high="best"))
    for cost in ("params", "macs"):
        if cost in part.table:
            find = index_rows(part.table[part.table[cost].notna()], factors)
            columns.append(Column(labels.format_option(cost), partial(_format_cost, cost, find)))
    reading = (
        "Test accuracy in percent. 95 % interval: over new seeds, and over new test images where correctness per image was "
        "kept. SD: over seeds, on these test images."
    )
    if diverged:
        reading += (
            " Bounds with diverged runs: the mean if they had ended at chance, and if they had done as well as the best run."
        )
    return ReportSection("cells", "Cells", build_table(clip_intervals(cells), columns), reading, list_notes(cells))


def _format_cost(cost: str, find: Callable[[TableRow], TableRow], cell: TableRow) -> str:
    return labels.format_amount(find(cell).get(cost))


def _build_contrasts(part: StudyPart) -> ReportSection:
    reading = (
        "Differences in percentage points, paired by seed. 95 % interval: all intervals of a family hold at once; the primary "
        "contrasts are one family. Unadjusted: each by itself. Sign-flip p: exact, over seeds, on these test images."
    )
    columns = [
        text_column("contrast", "contrast"),
        percent_column("difference", "difference", digits=2, signed=True),
        interval_column(digits=2, signed=True),
        text_column("verdict", "verdict"),
        Column("p (adjusted)", lambda row: format_p_value(row["p_adjusted"])),
        interval_column("unadjusted", low="low_single", high="high_single", digits=2, signed=True),
        text_column("n", "n", numeric=True),
        Column("sign-flip p", lambda row: format_p_value(row["sign_flip_p"])),
        Column("primary", lambda row: "yes" if row["primary"] else "exploratory", numeric=False),
        Column("family", lambda row: labels.format_term(row["family"]), numeric=False),
    ]
    return ReportSection("contrasts", "Planned contrasts", _try_build(part.contrasts, columns), reading)


def _try_build(found: pd.DataFrame | Unavailable, columns: list[Column]) -> TextTable | Unavailable:
    return found if isinstance(found, Unavailable) else build_table(found, columns)


def _build_variance_shares(part: StudyPart) -> ReportSection:
    reading = "Share of the variance in test accuracy explained by each term; the shares sum to 100 % and depend on the levels."
    columns = [
        Column("term", lambda row: labels.format_term(row["term"]), numeric=False),
        percent_column("share (%)", "share"),
        interval_column(),
        Column("levels", lambda row: row["levels"].replace(" x ", " × "), numeric=False),
    ]
    found = part.decomposition
    notes = () if isinstance(found, Unavailable) else list_notes(found)
    return ReportSection("decomposition", "Sources of variance", _try_build(found, columns), reading, notes)


def _build_tuning(part: StudyPart) -> ReportSection:
    reading = (
        "Selected on validation images, from the same candidates in every cell. Validation accuracy: mean over the trials' "
        "seeds; as the best of several it is biased upward. Gap: to the second-best candidate, in percentage points; a small "
        "gap means that the choice mattered little. At boundary: the lowest or highest level tried was selected, so a better "
        "one may be outside the range. Ties: other candidates with the same accuracy; the validation loss decided."
    )
    columns = [
        *factor_columns([*part.levels, *part.tuned]),
        percent_column("validation accuracy (%)", "accuracy", digits=2),
        percent_column("gap", "gap", digits=2, signed=True),
        Column("at boundary", lambda row: labels.join_words(map(labels.format_option, row["edge"])) or "no", numeric=False),
        text_column("ties", "tied", numeric=True),
        text_column("candidates", "candidates", numeric=True),
        text_column("trials", "tried", numeric=True),
        text_column("diverged", "diverged", numeric=True),
    ]
    seeds = [str(seed) for seed in sorted({int(seed) for seed in part.trials["seed"]})]
    notes = [
        f"Seeds of the trials: {labels.join_words(seeds)}. No run of this report shares them, and no trial read a test image."
    ]
    if len(seeds) == 1:
        notes.append("With a single trial seed, how much the choices depend on the seed stays hidden.")
    if "fit_on" in part.table and (part.table["fit_on"] == "train+val").any():
        notes.append("Runs are trained on training and validation images, so they have no validation accuracy.")
    return ReportSection("tuning", "Hyperparameter tuning", _try_build(part.choices, columns), reading, tuple(notes))


def _build_fairness(part: StudyPart) -> ReportSection:
    columns = [text_column("aspect", "aspect"), text_column("state", "state"), text_column("details", "detail")]
    reading = "From the records of the completed runs, not from the sweep file."
    return ReportSection("fairness", "Fairness checks", build_table(part.fairness, columns), reading)


def _build_compute(findings: Findings) -> ReportSection:
    def hours_column(heading: str, name: str) -> Column:
        return Column(f"{heading} (h)", lambda row: "–" if pd.isna(row[name]) else f"{row[name]:.3g}")

    trials = [text_column("trials", "trials", numeric=True), hours_column("trials", "trial_hours")]
    columns = [
        Column("backbone", lambda row: labels.format_level(row["backbone"]), numeric=False),
        text_column("device", "device"),
        text_column("runs", "runs", numeric=True),
        hours_column("done", "done_hours"),
        hours_column("diverged", "diverged_hours"),
        *(trials if len(findings.study.trials) else []),
        hours_column("lost", "lost_hours"),
        text_column("retries", "further_attempts", numeric=True),
        text_column("untimed", "untimed", numeric=True),
    ]
    reading = (
        "Device-hours of training by outcome of the runs; trials: hyperparameter tuning; lost: failed attempts, and work that "
        "workers had not saved when they died, from the workers' journals. Untimed: runs without a recorded "
        "time. –: not recorded."
    )
    return ReportSection("compute", "Compute", build_table(findings.spent, columns), reading)

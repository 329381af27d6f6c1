"""The tables of a report, each with its name, title and explanation; Markdown, LaTeX and the page show the same ones."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pandas as pd

from study.analysis import labels
from study.analysis.budget_balance import count_images_seen, is_training_matched
from study.analysis.cell_means import clip_intervals
from study.analysis.contrast_results import SIGNIFICANT
from study.analysis.factor_ranges import DesignRanges
from study.analysis.findings import Findings, StudyPart
from study.analysis.protocol_check import check_protocol
from study.analysis.study_comparison import compare_signs
from study.analysis.study_results import Unavailable
from study.analysis.tuning_choices import has_own_choices
from study.reporting.cost_sections import build_cost_curves, build_costs
from study.reporting.image_sections import build_classes, build_confusions, build_errors
from study.reporting.stated_sections import build_ablation, build_expectations
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
    list_reasons,
    percent_column,
    text_column,
)


def list_sections(findings: Findings) -> list[ReportSection]:
    """Every table of the report in its order; none where the study plans no runs."""
    if not findings.parts:
        return []
    compared = [] if findings.compared is None else [_build_comparison(findings, findings.compared)]
    compared += [_build_random_effects(findings.over_data_sets)] if len(findings.over_data_sets) else []
    return [*compared, *(section for part in findings.parts for section in _list_part_sections(part)), _build_compute(findings)]


def _list_part_sections(part: StudyPart) -> Iterator[ReportSection]:
    sections = [
        *([build_ablation(part)] if part.is_ablation else []),
        *([build_expectations(part)] if part.is_checked else []),
        build_cells(part),
        _build_contrasts(part),
        *_build_ranges(part),
        _build_variance_shares(part),
        *([build_errors(part.errors)] if isinstance(part.errors, pd.DataFrame) else []),
        *([build_classes(part)] if part.has_predictions else []),
        *([build_confusions(part.compared_confusions)] if len(part.compared_confusions) else []),
        build_costs(part),
        *build_cost_curves(part),
        *([_build_tuning(part)] if len(part.trials) else []),
        _build_fairness(part),
    ]
    for section in sections:
        title = f"{section.title}, {part.title}" if part.title else section.title
        yield replace(section, name=f"{section.name}{part.ending}", title=title)


def _build_comparison(findings: Findings, compared: pd.DataFrame) -> ReportSection:
    columns = [text_column("contrast", "contrast"), _role_column()]
    for part in findings.parts:
        find = index_rows(compared[compared["study"] == part.title], ["contrast"])
        columns.append(Column(part.title, partial(_format_difference, find)))
    signs = {"significant": "reverses", "possible": "may reverse", "none": "same", "not significant": "not significant"}
    columns.append(Column("sign", lambda row: signs[row["sign_change"]], numeric=False))
    reading = (
        "Differences in percentage points with simultaneous 95 % intervals; *: significantly different from zero. Sign: same "
        "in all columns with a significant difference; reverses; may reverse (one of the two signs is not significant); or "
        "not significant in any column. Networks of different columns differ in size, so columns are not subtracted."
    )
    return ReportSection("side-by-side", "Contrasts side by side", build_table(compare_signs(compared), columns), reading)


def _build_random_effects(found: pd.DataFrame) -> ReportSection:
    reading = (
        "Random-effects meta-analysis of the primary contrasts, of which each data set gives its own difference and standard "
        "error: the mean over data sets like these in percentage points, with 95 % intervals by Hartung and Knapp, each by "
        "itself. SD between data sets: of their true differences, in points; I²: its share of the observed variance."
    )
    columns = [
        text_column("contrast", "contrast"),
        text_column("data sets", "sets", numeric=True),
        percent_column("mean difference", "difference", digits=2, signed=True),
        interval_column(digits=2, signed=True),
        percent_column("SD between data sets", "between_sd", digits=2),
        percent_column("I² (%)", "i2", digits=0),
    ]
    return ReportSection("data-sets", "Contrasts over data sets", build_table(found, columns), reading)


def _role_column() -> Column:
    return Column("role", lambda row: "primary" if row["primary"] else "exploratory", numeric=False)


def _format_difference(find: Callable[[TableRow], TableRow], contrast: TableRow) -> str:
    row = find(contrast)
    if not row or pd.isna(row["difference"]):
        return "–"
    star = "*" if row["verdict"] in SIGNIFICANT else ""
    return star + format_estimate(row["difference"], row["low"], row["high"], digits=2, signed=True)


def build_cells(part: StudyPart) -> ReportSection:
    """Accuracy of every cell with its spread, interval and n, and its network's costs."""
    factors, cells = list(part.levels), part.cells
    columns = [
        *factor_columns(factors),
        percent_column("test accuracy (%)", "mean"),
        interval_column(),
        percent_column("SD", "sd", digits=2),
        Column("n", lambda row: f"{row['n']} of {row['planned']}"),
    ]
    reading = f"Test accuracy in percent. 95 % interval: {part.population}. SD: over seeds, on these test images."
    if cells["seed_share"].notna().any():
        columns.append(percent_column("variance from seeds (%)", "seed_share", digits=0))
        reading += " Variance from seeds: the share of it that more seeds would reduce; the rest is of the test images."
    if cells["diverged"].any():
        columns.append(text_column("diverged", "diverged", numeric=True))
        columns.append(interval_column("bounds with diverged runs", low="worst", high="best"))
        reading += (
            " Bounds with diverged runs: the mean if they had ended at chance, and if they had done as well as the best run."
        )
    table = part.table
    if is_training_matched(table):
        table = table.assign(images_seen=count_images_seen(table))
    for cost in ("params", "macs", "images_seen"):
        if cost in table:
            find = index_rows(table[table[cost].notna()], factors)
            columns.append(Column(labels.format_option(cost), partial(_format_cost, cost, find)))
    return ReportSection("cells", "Cells", build_table(clip_intervals(cells), columns), reading, list_notes(cells))


def _format_cost(cost: str, find: Callable[[TableRow], TableRow], cell: TableRow) -> str:
    return labels.format_amount(find(cell).get(cost))


def _build_contrasts(part: StudyPart) -> ReportSection:
    reading = (
        f"Differences in percentage points, formed within seeds; intervals are over {part.population}. 95 % interval: all of "
        "the primary contrasts hold at once, and so do all of each exploratory family; the verdict is read off it. p: adjusted "
        "in the same way. Unadjusted: each interval by itself. Sign-flip p: exact, over seeds on these test images, a "
        "sensitivity check."
    )
    found = part.contrasts
    if isinstance(found, Unavailable):
        return ReportSection("contrasts", "Planned contrasts", found, reading)
    columns = [
        text_column("contrast", "contrast"),
        _role_column(),
        percent_column("difference", "difference", digits=2, signed=True),
        interval_column(digits=2, signed=True),
        text_column("verdict", "verdict"),
        Column("p", lambda row: format_p_value(row["p_adjusted"])),
        text_column("n", "n", numeric=True),
        interval_column("unadjusted interval", low="low_single", high="high_single", digits=2, signed=True),
        Column("sign-flip p", lambda row: format_p_value(row["sign_flip_p"])),
        Column("family", lambda row: labels.format_term(row["family"]), numeric=False),
    ]
    if found["seed_share"].notna().any():
        columns.insert(8, percent_column("variance from seeds (%)", "seed_share", digits=0))
        reading += " Variance from seeds: the share of it that more seeds would reduce."
    if part.look:
        level = labels.format_small_percent(part.look.nominal_level(contrasts=int(found["primary"].sum())))
        reading += (
            f" Those of primary contrasts are repeated intervals ({part.look.name}), which hold at all looks at once: each "
            f"contrast is tested at a nominal level of {level} here. Exploratory families are not adjusted for the looks."
        )
    if found["margin"].notna().any():
        columns.insert(5, percent_column("margin", "margin", digits=2))
        reading += " Margin: the smallest effect of interest that the sweep states; equivalent: the interval is within it."
    ordered = found.sort_values("primary", ascending=False, kind="stable")
    return ReportSection("contrasts", "Planned contrasts", build_table(ordered, columns), reading, list_reasons(ordered))


def _build_ranges(part: StudyPart) -> Iterator[ReportSection]:
    """The ranges over all levels, without each level and in log-odds; a table for each largest complete design."""
    reading = (
        "Range of a factor: the mean of its best level minus that of its worst, in percentage points, averaged over the other "
        f"factors, without controls; bounds are simultaneous over {part.population}. Difference: of the two ranges compared. "
        "Without a level, and in log-odds: estimates alone. One factor is said to matter more only if the difference is "
        "significant over all levels and has the same sign in every row."
    )
    for place, design in enumerate(part.ranges):
        rows = pd.DataFrame(_write_ranges(design))
        lacks = [labels.format_setting(factor, level) for factor, level in design.left_out]
        notes = [f"n = {design.n} seeds, with which all cells were measured."]
        notes += [f"Without {labels.join_words(lacks)}, for lack of runs."] if lacks else []
        number, title = (f"-{place + 1}", f", design {place + 1}") if len(part.ranges) > 1 else ("", "")
        content = TextTable(rows, tuple(name not in ("levels", "larger") for name in rows))
        yield ReportSection(f"ranges{number}", f"Ranges and their robustness{title}", content, reading, tuple(notes))


def _write_ranges(design: DesignRanges) -> Iterator[dict[str, str]]:
    """The rows of a table of ranges: over all levels with bounds, then without each level and in log-odds."""
    found = {labels.format_option(own.factor): own.bounds for own in design.ranges}
    whole = {name: format_estimate(own.value, own.low, own.high, digits=2) for name, own in found.items()}
    if not (compared := design.comparison):
        yield {"levels": "all", **whole}
        return
    difference = compared.difference
    limits = format_estimate(difference.value, difference.low, difference.high, digits=2, signed=True)
    names, none = list(map(labels.format_option, compared.factors)), "–"
    yield {"levels": "all", **whole, "difference": limits, "larger": names[int(difference.value < 0)]}
    for case in compared.cases:
        own = dict(zip((*names, "difference"), (*case.ranges, case.difference), strict=True))
        scale = 0.01 if case.left_out is None else 1.0  # log-odds are no percentages
        texts = {
            name: labels.format_percent(scale * own[name], digits=2, signed=name == "difference") if name in own else none
            for name in (*whole, "difference")
        }
        yield {"levels": case.name, **texts, "larger": names[int(case.difference < 0)]}


def _build_variance_shares(part: StudyPart) -> ReportSection:
    reading = (
        "A description, from which nothing is claimed: the share of the variance in test accuracy that each term explains at "
        "these levels, without controls; the shares sum to 100 % and depend on the levels and on their number."
    )
    found = part.decomposition
    if isinstance(found, Unavailable):
        return ReportSection("decomposition", "Sources of variance", found, reading)
    columns = [
        Column("term", lambda row: labels.format_term(row["term"]), numeric=False),
        percent_column("share (%)", "share"),
        interval_column(),
        Column("levels", lambda row: row["levels"].replace(" x ", " × "), numeric=False),
    ]
    if found["with_controls"].notna().any():
        columns.insert(3, percent_column("with controls (%)", "with_controls"))
    return ReportSection("decomposition", "Sources of variance", build_table(found, columns), reading, list_notes(found))


def _build_tuning(part: StudyPart) -> ReportSection:
    reading = (
        "Selected on validation images, from the same candidates in every cell. Validation accuracy: mean over the trials' "
        "seeds; as the best of several it is biased upward. Gap: to the second-best candidate, in percentage points; a small "
        "gap means that the choice mattered little. Another choice: how often resampled trial seeds and validation images "
        "choose another candidate. SD of choice: by how much the cell's accuracy would vary with new trials (percentage "
        "points), which is part of the standard errors. At boundary: the lowest or highest level tried was selected, so a "
        "better one may be outside the range. Ties: other candidates with the same accuracy; the validation loss decided."
    )
    columns = [
        *factor_columns([*part.levels, *part.tuned]),
        percent_column("validation accuracy (%)", "accuracy", digits=2),
        percent_column("gap", "gap", digits=2, signed=True),
        percent_column("another choice (%)", "another", digits=0),
        Column("SD of choice", lambda row: labels.format_percent(row["choice_variance"] ** 0.5, digits=2)),
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
    if has_own_choices(part.trials):
        notes.append(
            "Each seed tuned for itself: levels with the number of seeds that selected them. The spread over seeds has the "
            "noise of the choices, so nothing is added to standard errors."
        )
    if len(seeds) == 1:
        notes.append("With a single trial seed, how much the choices depend on the seed stays hidden.")
    if "fit_on" in part.table and (part.table["fit_on"] == "train+val").any():
        notes.append("Runs are trained on training and validation images, so they have no validation accuracy.")
    found = part.choices
    content = found if isinstance(found, Unavailable) else build_table(found, columns)
    return ReportSection("tuning", "Hyperparameter tuning", content, reading, tuple(notes))


def _build_fairness(part: StudyPart) -> ReportSection:
    columns = [text_column("aspect", "aspect"), text_column("state", "state"), text_column("details", "detail")]
    reading = "From the records of the completed runs, not from the sweep file."
    found = check_protocol(part.table, list(part.levels), tuned_per_seed=part.tuned if has_own_choices(part.trials) else ())
    return ReportSection("fairness", "Fairness checks", build_table(found, columns), reading)


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
        "workers had not saved when they died, from the workers' journals, also of runs that never finished. Untimed: runs "
        "without a recorded time. –: not recorded."
    )
    return ReportSection("compute", "Compute", build_table(findings.spent, columns), reading)

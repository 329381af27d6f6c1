"""The tables of a report, each with its name, title and how to read it; Markdown, LaTeX and page show the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd

from study.analysis import labels
from study.analysis.cell_grid import CellLevels, to_level
from study.analysis.cell_means import clip_intervals
from study.analysis.factor_layout import read_cells
from study.analysis.findings import Findings, StudyPart, Unavailable
from study.analysis.study_comparison import CLAIMS, CONTRAST, compare_signs
from study.reporting.cost_sections import cost_section, curves_sections
from study.reporting.section import Section, cut_notes, factor_columns, with_limits
from study.reporting.text_tables import Column, Row, count, limits, number, p_text, p_value, percent, text_table, words

BINOMIAL = ("binomial_error", "binomial_low", "binomial_high")
IMPROVEMENT = ("improvement", "improvement_low", "improvement_high")
DIFFERENCE = ["difference", "low", "high", "verdict"]


def all_sections(findings: Findings) -> list[Section]:
    """Every table of the report in its order; none where the study plans no runs."""
    if not findings.parts:
        return []
    together = [side_by_side_section(findings)] if findings.compared is not None else []
    return [*together, *(section for part in findings.parts for section in of_part(part)), compute_section(findings)]


def side_by_side_section(findings: Findings) -> Section:
    """Every contrast with its difference in each part, and what became of its sign."""
    assert findings.compared is not None
    compared = findings.compared
    told = {"firm": "turns", "perhaps": "may turn", "no": "same", "untold": "not told"}
    rows = {
        (*map(str, row[:3]), row[3]): row[4:] for row in compared[[*CONTRAST, "study", *DIFFERENCE]].itertuples(index=False)
    }

    def difference(row: Row, study: str) -> str:
        found = rows.get((*(str(row[name]) for name in CONTRAST), study))
        if found is None or pd.isna(found[0]):
            return "–"
        size, low, high, verdict = found
        return ("*" if verdict in CLAIMS else "") + with_limits(size, low, high, digits=2, signed=True)

    columns = [
        Column("contrast", contrast_name, numeric=False),
        *(Column(part.title, partial(difference, study=part.title)) for part in findings.parts),
        Column("sign", lambda row: told[str(row["turns"])], numeric=False),
    ]
    reading = (
        "Differences in percentage points with 95 % intervals; a star: told from zero after Holm's correction. Sign: whether "
        "it is the same wherever a difference is told from zero, turns, may turn (the other sign isn't told from zero), or is "
        "told from zero nowhere. Networks of different columns differ in size, so columns are not subtracted."
    )
    return Section("side-by-side", "Side by side", text_table(compare_signs(compared), columns), reading)


def contrast_name(row: Row) -> str:
    """A contrast with where it was taken."""
    return f"{row['upper']} − {row['lower']}{', ' if row['where'] else ''}{row['where']}"


def of_part(part: StudyPart) -> Iterator[Section]:
    """The tables of one part, in the order of the report."""
    ending = f", {part.title}" if part.title else ""
    yield cells_section(part, ending)
    yield contrasts_section(part, ending)
    yield decomposition_section(part, ending)
    yield cost_section(part, ending)
    yield from curves_sections(part, ending)
    if len(part.trials):
        yield tuning_section(part, ending)
    reading = "Read from the records of the runs that are done, not from what the sweep intended."
    columns = [words("what", "aspect"), words("state", "state"), words("in particular", "told")]
    yield Section(f"fairness{part.ending}", f"Was it fair?{ending}", text_table(part.fairness, columns), reading)


def compute_section(findings: Findings) -> Section:
    """What the whole study cost."""
    columns = [
        words("backbone", "backbone"),
        words("device", "device"),
        count("runs", "runs"),
        *(hours_column(name) for name in ("done", "diverged")),
        *([count("trials", "trials"), hours_column("trial")] if len(findings.study.trials) else []),
        hours_column("lost"),
        count("further attempts", "further_attempts"),
        count("without a time", "untimed"),
    ]
    reading = (
        "Device-hours of training by how the runs ended. Lost: in attempts that failed, and what workers that died had not "
        "saved, from the workers' journals. Trials chose the runs' options. A dash: not recorded."
    )
    return Section("compute", "Compute spent", text_table(findings.spent, columns), reading)


def hours_column(name: str) -> Column:
    """Device-hours of one kind."""
    return Column(f"{name} (h)", lambda row: "–" if pd.isna(row[f"{name}_hours"]) else f"{row[f'{name}_hours']:.3g}")


def cells_section(part: StudyPart, ending: str) -> Section:
    """Accuracy of every cell with its spread, interval and n, and what its network costs."""
    factors = list(part.levels)
    bound = limits("with diverged runs", low="worst", high="best")
    diverged = [count("diverged", "diverged"), bound] if part.cells["diverged"].sum() else []
    bootstrapped = part.cells["bootstrap_low"].notna().any()
    columns = [
        *factor_columns(factors),
        percent("test accuracy (%)", "mean"),
        limits(),
        percent("sd", "sd", digits=2),
        Column("n", lambda row: f"{row['n']} of {row['planned']}"),
        *([limits("bootstrap interval", low="bootstrap_low", high="bootstrap_high")] if bootstrapped else []),
        Column("test set error", lambda row: with_limits(*(row[name] for name in BINOMIAL), digits=1, signed=False)),
        *diverged,
        *(cost_column(part.table, factors, cost) for cost in ("params", "macs")),
    ]
    reading = (
        "Accuracies in per cent. Interval: Student's t over seeds, from three seeds on. Test set error: the standard error "
        "that another test set of this size would bring to every cell, in brackets Wilson's 95 % interval of one such network "
        "on all images of this kind."
    )
    if part.cells["diverged"].sum():
        reading += " With diverged runs: the mean had they ended at chance, and had they done as well as the best."
    notes = tuple(sorted({str(text).capitalize() + "." for text in part.cells["note"] if text}))
    shown = text_table(clip_intervals(part.cells), columns)
    return Section(f"cells{part.ending}", f"Cells{ending}", shown, reading, (*cut_notes(part.cells), *notes))


def cost_column(table: pd.DataFrame, factors: Sequence[str], cost: str) -> Column:
    """What a cell's network costs, a dash where no run tells."""
    known: dict[CellLevels, float] = {}
    for key, value in zip(read_cells(table, factors), table.get(cost, pd.Series(pd.NA, index=table.index)), strict=True):
        if not pd.isna(value):
            known.setdefault(key, float(value))

    def text(row: Row) -> str:
        return labels.format_amount(known.get(tuple(to_level(row[name]) for name in factors)))

    return Column(labels.format_option(cost), text)


def contrasts_section(part: StudyPart, ending: str) -> Section:
    """Every planned contrast: difference, interval, corrected p, pairing, what could have been seen, and the verdict."""
    reading = (
        "Differences in percentage points, paired by seed, with t intervals; pooled: by a mixed model that takes the spread of "
        "all cells as one. p after Holm: in a family of m contrasts the smallest p counts m times, the next m - 1 times and so "
        "on, so that in 95 of 100 studies without any difference a family claims none. Sign flips: the same by permutation, "
        "where n can reach the level; in brackets the least p that n can give. Correlation: of the two sides over seeds. "
        "Detectable: the smallest difference that these seeds would have shown in four of five such studies. Better in: share "
        "of the seeds that favour the first side, with its exact interval."
    )
    columns = [
        words("contrast", "contrast"),
        percent("difference", "difference", digits=2, signed=True),
        limits(digits=2, signed=True),
        words("verdict", "verdict"),
        p_value("p (Holm)", "p_holm"),
        count("n", "n"),
        percent("detectable", "detectable", digits=2),
        Column("pooled", lambda row: labels.format_interval(row["block_low"], row["block_high"], digits=2, signed=True)),
        Column("sign flips", lambda row: f"{p_text(row['permutation_p_holm'])} ({p_text(row['attainable_p'])})"),
        number("correlation", "correlation"),
        Column("better in (%)", lambda row: with_limits(*(row[name] for name in IMPROVEMENT), digits=0, signed=False)),
        Column("family", lambda row: labels.format_term(str(row["family"])), numeric=False),
    ]
    found = part.contrasts
    content = found if isinstance(found, Unavailable) else text_table(found, columns)
    return Section(f"contrasts{part.ending}", f"Planned contrasts{ending}", content, reading)


def decomposition_section(part: StudyPart, ending: str) -> Section:
    """The share of each term with its interval and the levels that it speaks about."""
    reading = (
        "What part of the variation in test accuracy each term carries; the shares add up to 100 % and depend on the levels "
        "that were chosen."
    )
    columns = [
        Column("part", lambda row: labels.format_term(str(row["term"])), numeric=False),
        percent("share (%)", "share"),
        limits(),
        Column("levels", lambda row: str(row["levels"]).replace(" x ", " × "), numeric=False),
    ]
    found = part.decomposition
    content = found if isinstance(found, Unavailable) else text_table(found, columns)
    notes = () if isinstance(found, Unavailable) else tuple({str(text).capitalize() + "." for text in found["note"] if text})
    return Section(f"decomposition{part.ending}", f"Shares of the variation{ending}", content, reading, notes)


def tuning_section(part: StudyPart, ending: str) -> Section:
    """What was chosen for every cell from how many candidates, how clearly, and whether a wider range was called for."""
    reading = (
        "Chosen on validation images, from the same candidates in every cell: mean accuracy in per cent over the trials' "
        "seeds, which flatters the best of several and is no estimate. Gap: to the runner-up, in points; a small one says "
        "that the choice mattered little. At the edge: the least or greatest level tried was chosen, so a better one may lie "
        "beyond. Ties: other candidates with the same accuracy, between which the validation loss decided."
    )
    columns = [
        *factor_columns(list(part.levels)),
        *factor_columns(part.tuned),
        percent("validation accuracy (%)", "accuracy", digits=2),
        percent("gap", "gap", digits=2, signed=True),
        Column("at the edge", lambda row: labels.join_words(map(labels.format_option, row["edge"])) or "no", numeric=False),
        count("ties", "tied"),
        count("candidates", "candidates"),
        count("trials", "tried"),
        count("diverged", "diverged"),
    ]
    found = part.choices
    content = found if isinstance(found, Unavailable) else text_table(found, columns)
    return Section(f"tuning{part.ending}", f"What was tuned{ending}", content, reading, tuning_notes(part))


def tuning_notes(part: StudyPart) -> tuple[str, ...]:
    """What a reader of the choices has to know besides."""
    seeds = labels.join_words(str(seed) for seed in sorted({int(seed) for seed in part.trials["seed"]}))
    told = [f"Trials have the seeds {seeds}; no run of this report shares them, and no trial read a test image."]
    if "fit_on" in part.table and (part.table["fit_on"] == "train+val").any():
        told.append("Runs are fitted on training and validation images, so they have no validation figures.")
    return tuple(told)

"""The tables of a report, each with its name, title and how to read it; Markdown, LaTeX and page show the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.reporting import wording
from study.reporting.costs import costs_of, from_price
from study.reporting.findings import Findings, Missing, Part
from study.reporting.layout import keys
from study.reporting.statistics.cells import bounded, cut_ends
from study.reporting.statistics.grid import Cell, plain
from study.reporting.tables import (
    Column,
    Row,
    TextTable,
    count,
    limits,
    number,
    p_value,
    percent,
    text_table,
    words,
)


@dataclass(frozen=True)
class Section:
    """One table with its heading. `content` says why, where there is none; `reading` explains the columns."""

    name: str  # for file names: "contrasts"
    title: str
    content: TextTable | Missing
    reading: str
    notes: tuple[str, ...] = ()


def of_part(part: Part) -> Iterator[Section]:
    """The tables of one part, in the order of the report."""
    ending = f", {part.title}" if part.title else ""
    yield cells_section(part, ending)
    yield contrasts_section(part, ending)
    yield decomposition_section(part, ending)
    yield cost_section(part, ending)
    yield curves_section(part, ending)
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
        *(hours_column(name) for name in ("done", "diverged", "failed")),
        *([count("trials", "trials"), hours_column("trial")] if len(findings.material.trials) else []),
        hours_column("lost"),
        count("further attempts", "further_attempts"),
        count("without a time", "untimed"),
    ]
    reading = (
        "Device-hours of the runs by how they ended, and those lost to failures and restarts; a dash: not recorded. Trials "
        "chose the runs' options."
    )
    return Section("compute", "Compute spent", text_table(findings.spent, columns), reading)


def hours_column(name: str) -> Column:
    """Device-hours of one kind."""
    return Column(f"{name} (h)", lambda row: "–" if pd.isna(row[f"{name}_hours"]) else f"{row[f'{name}_hours']:.3g}")


def factor_columns(names: Sequence[str]) -> list[Column]:
    """The columns that name a cell."""
    return [factor_column(name) for name in names]


def factor_column(name: str) -> Column:
    """The levels of one factor."""
    return Column(wording.option(name), lambda row: wording.level(plain(row[name])), numeric=False)


def cells_section(part: Part, ending: str) -> Section:
    """Accuracy of every cell with its spread, interval and n, and what its network costs."""
    factors = list(part.levels)
    diverged = [count("diverged", "diverged")] if part.cells["diverged"].sum() else []
    columns = [
        *factor_columns(factors),
        percent("test accuracy (%)", "mean"),
        limits(),
        percent("sd", "sd", digits=2),
        Column("n", lambda row: f"{row['n']} of {row['planned']}"),
        percent("test set error", "binomial_error", digits=2),
        *diverged,
        *(cost_column(part.table, factors, cost) for cost in ("params", "macs")),
    ]
    reading = (
        "Accuracies in per cent. Interval: Student's t over seeds, from three seeds on. Test set error: the standard error "
        "that another test set of this size would bring to every cell."
    )
    notes = tuple(sorted({str(text).capitalize() + "." for text in part.cells["note"] if text}))
    shown = text_table(bounded(part.cells), columns)
    return Section(f"cells{part.ending}", f"Cells{ending}", shown, reading, (*cut_notes(part.cells), *notes))


def cut_notes(found: pd.DataFrame) -> tuple[str, ...]:
    """That intervals were cut where accuracies end, where that happened."""
    ends = cut_ends(found)
    return (
        (f"Intervals that run past {ends} are cut there: no accuracy lies beyond. Nothing else is computed from the cut ones.",)
        if ends
        else ()
    )


def cost_column(table: pd.DataFrame, factors: Sequence[str], cost: str) -> Column:
    """What a cell's network costs, a dash where no run tells."""
    known: dict[Cell, float] = {}
    for key, value in zip(keys(table, factors), table.get(cost, pd.Series(pd.NA, index=table.index)), strict=True):
        if not pd.isna(value):
            known.setdefault(key, float(value))

    def text(row: Row) -> str:
        return wording.amount(known.get(tuple(plain(row[name]) for name in factors)))

    return Column(wording.option(cost), text)


def contrasts_section(part: Part, ending: str) -> Section:
    """Every planned contrast: difference, interval, corrected p, pairing, what could have been seen, and the verdict."""
    reading = (
        "Differences in percentage points, paired by seed, with t intervals; p corrected by Holm within the family. "
        "Correlation: of the two sides over seeds. Detectable: the smallest difference that these seeds would have shown in "
        "four of five such studies. Better in: share of the seeds that favour the first side."
    )
    columns = [
        words("family", "family"),
        words("contrast", "contrast"),
        percent("difference", "difference", digits=2, signed=True),
        limits(digits=2, signed=True),
        count("n", "n"),
        p_value("p (Holm)", "p_holm"),
        number("correlation", "correlation"),
        percent("detectable", "detectable", digits=2),
        percent("better in (%)", "improvement", digits=0),
        words("verdict", "verdict"),
    ]
    found = part.contrasts
    content = found if isinstance(found, Missing) else text_table(found, columns)
    return Section(f"contrasts{part.ending}", f"Planned contrasts{ending}", content, reading)


def decomposition_section(part: Part, ending: str) -> Section:
    """The share of each term with its interval and the levels that it speaks about."""
    reading = (
        "What part of the variation in test accuracy each term carries; the shares add up to 100 % and depend on the levels "
        "that were chosen."
    )
    columns = [
        Column("part", lambda row: wording.term(str(row["term"])), numeric=False),
        percent("share (%)", "share"),
        limits(),
        Column("levels", lambda row: str(row["levels"]).replace(" x ", " × "), numeric=False),
    ]
    found = part.decomposition
    content = found if isinstance(found, Missing) else text_table(found, columns)
    notes = () if isinstance(found, Missing) else tuple({str(text).capitalize() + "." for text in found["note"] if text})
    return Section(f"decomposition{part.ending}", f"Shares of the variation{ending}", content, reading, notes)


def tuning_section(part: Part, ending: str) -> Section:
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
        Column("at the edge", lambda row: wording.enumeration(map(wording.option, row["edge"])) or "no", numeric=False),
        count("ties", "tied"),
        count("candidates", "candidates"),
        count("trials", "tried"),
        count("diverged", "diverged"),
    ]
    found = part.choices
    content = found if isinstance(found, Missing) else text_table(found, columns)
    return Section(f"tuning{part.ending}", f"What was tuned{ending}", content, reading, tuning_notes(part))


def tuning_notes(part: Part) -> tuple[str, ...]:
    """What a reader of the choices has to know besides."""
    seeds = wording.enumeration(str(seed) for seed in sorted({int(seed) for seed in part.trials["seed"]}))
    told = [f"Trials have the seeds {seeds}; no run of this report shares them, and no trial read a test image."]
    if "fit_on" in part.table and (part.table["fit_on"] == "train+val").any():
        told.append("Runs are fitted on training and validation images, so they have no validation figures.")
    return tuple(told)


def cost_section(part: Part, ending: str) -> Section:
    """Every cell's costs, and whether it is on the Pareto front of each."""
    reading = (
        "On the front: no cell that costs as much or less is more accurate, judged by the means; in brackets the share of "
        "plausible means (new seeds) under which the cell is on it."
    )
    fronts = {cost: found for cost in costs_of(part.table) if isinstance(found := part.front(cost), pd.DataFrame)}
    title, name = f"Accuracy per cost{ending}", f"cost{part.ending}"
    if not fronts:
        return Section(name, title, Missing("No run has both an accuracy and a cost."), reading)
    factors = list(part.levels)
    columns = [*factor_columns(factors), percent("test accuracy (%)", "mean")]
    for cost, found in fronts.items():
        columns += front_columns(cost, found, factors)
    return Section(name, title, text_table(part.cells[part.cells["n"] > 0], columns), reading)


def front_columns(cost: str, found: pd.DataFrame, factors: Sequence[str]) -> list[Column]:
    """A cost and the place on its front."""
    rows = dict(zip(keys(found, factors), found.to_dict("records"), strict=True))

    def of(row: Row) -> Row | None:
        return rows.get(tuple(plain(row[name]) for name in factors))

    def price(row: Row) -> str:
        return wording.amount(float(from_price(own["cost"], cost))) if (own := of(row)) else "–"

    def place(row: Row) -> str:
        own = of(row)
        if own is None:
            return "–"
        sure = own["front_probability"]
        return ("yes" if own["on_front"] else "no") + ("" if pd.isna(sure) else f" ({wording.percent(sure, digits=0)} %)")

    return [Column(wording.axis(cost), price), Column("on the front", place)]


def curves_section(part: Part, ending: str) -> Section:
    """Accuracy over MACs as curves along the layout's axis: mean over the common range, and a power law."""
    name, title = f"curves{part.ending}", f"Accuracy over MACs{ending}"
    reading = (
        f"Curves run along the {wording.option(part.places.along)}. Mean: accuracy over the logarithm of the MACs, in the "
        "range that all curves cover, with its difference (points, paired by seed) to the reference. Exponent: of error as a "
        "power of the MACs, fitted from four sizes on; misfit: how far the worst size lies off that line."
    )
    found = part.area("macs")
    if isinstance(found, Missing) or found.empty:
        reason = found.reason if isinstance(found, Missing) else "No curve of accuracy over cost has been measured."
        return Section(name, title, Missing(reason), reading)
    others = [factor for factor in part.levels if factor != part.places.along]
    fit = part.power_law("macs")
    law = [] if isinstance(fit, Missing) else law_columns(fit, others)
    columns = [
        *factor_columns(others),
        Column("range (MACs)", lambda row: f"{wording.amount(row['start'])} to {wording.amount(row['end'])}"),
        percent("mean accuracy (%)", "accuracy"),
        limits(),
        percent("difference", "difference", digits=2, signed=True),
        limits(low="difference_low", high="difference_high", digits=2, signed=True),
        *law,
    ]
    shown = bounded(found).assign(start=np.where(found["accuracy"].isna(), np.nan, found["start"]))
    notes = tuple(sorted({str(text).capitalize() + "." for text in found["note"] if text}))
    return Section(name, title, text_table(shown, columns), reading, (*cut_notes(found), *notes))


def law_columns(fit: pd.DataFrame, factors: Sequence[str]) -> list[Column]:
    """The exponent of each curve with its interval and misfit."""
    rows = dict(zip(keys(fit, factors), fit.to_dict("records"), strict=True))

    def exponent(row: Row) -> str:
        own = rows[tuple(plain(row[name]) for name in factors)]
        if pd.isna(own["exponent"]):
            return "–"
        spread = "" if pd.isna(own["low"]) else f" ({own['low']:.2f} to {own['high']:.2f})"
        return f"{own['exponent']:.2f}{spread}".replace("-", "−")

    def misfit(row: Row) -> str:
        value = rows[tuple(plain(row[name]) for name in factors)]["misfit"]
        return f"{wording.percent(value, digits=0)} %" if not pd.isna(value) else "–"

    return [Column("exponent (95 % interval)", exponent), Column("misfit", misfit)]

"""The answer to the sweep's question in plain sentences: differences in points first, each with its interval and verdict.

Nothing is claimed that the primary contrasts don't bear, and nothing that a diverged run could overturn. Cells that do not
exceed the baseline give "undertrained: no answer"; fewer than three seeds give differences without a claim; an unfinished sweep
is reported as such first. Only metaformer sweeps, in which nothing but the token mixer differs, compare "attention"; whole
architectures are compared as "backbone".
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from study.analysis.ablation import describe_changes
from study.analysis.budget_balance import describe_balance
from study.analysis.cell_grid import TEST_ACCURACY, read_cells
from study.analysis.cell_means import clip_intervals
from study.analysis.complete_designs import CONTROLS
from study.analysis.contrast_results import SIGNIFICANT
from study.analysis.factor_ranges import DesignRanges, FactorRange
from study.analysis.factor_ranking import describe_designs, format_bounds, name_left_out, rank_factors
from study.analysis.intervals import MIN_SEEDS
from study.analysis.labels import (
    drop_option,
    format_cell,
    format_interval,
    format_level,
    format_matching,
    format_option,
    format_percent,
    format_points,
    format_sides,
    join_words,
)
from study.analysis.study_results import StudyResults, Unavailable
from study.analysis.tuning_choices import describe_choices
from study.config.sweep import BASELINE, CHANGE
from study.errors import and_more

_Row = Mapping[Hashable, Any]
_ACCURACY = format_option(TEST_ACCURACY)


@dataclass(frozen=True)
class Answer:
    """The answer and how far it goes; the first sentence can stand alone."""

    state: Literal["answered", "provisional", "too few seeds", "too few cells", "undertrained", "no runs"]
    sentences: tuple[str, ...]
    larger: str | None = None  # the factor that matters more than another, where that is claimed

    @property
    def text(self) -> str:
        """All sentences as one paragraph."""
        return " ".join(self.sentences)


def answer_question(study: StudyResults, *, choices: pd.DataFrame | None = None) -> Answer:
    """The answer that the study's runs give about its factors; every cell but controls has to exceed its baseline.

    `choices`: what tuning selected in every cell, as from `summarize_choices`.

    Population: new training seeds and new test images of this data set (these test images where no correctness was kept), at
    these levels and this budget. In an ablation only the baseline's cells have to exceed theirs.
    """
    cells, factors = study.cells, study.varied
    if not cells["n"].sum():
        return Answer("no runs", (f"No answer: none of the {cells['planned'].sum()} runs is done.",))
    progress = _describe_progress(cells)
    done: Literal["provisional", "answered"] = "provisional" if progress else "answered"
    if not factors:
        return Answer(done, (*progress, _describe_single_cell(study)))
    meant_poor = cells[factors].isin(dict(CONTROLS)).any(axis=1)
    if study.is_ablation:
        meant_poor |= cells[CHANGE] != BASELINE  # a change may be as bad as it is
    tested = cells.assign(baseline=study.baselines)[~meant_poor]
    if len(low := tested[tested["mean"] <= tested["baseline"]]):
        return Answer("undertrained", (*progress, *_explain_undertrained(low, factors)))
    contrasts = study.contrasts
    if isinstance(contrasts, Unavailable):
        return Answer("too few cells", (*progress, f"No answer: {contrasts.reason[0].lower()}{contrasts.reason[1:]}"))
    primary = contrasts[contrasts["primary"]]
    if primary["n"].max() < MIN_SEEDS:
        effects = [f"{_name_contrast(row)}: {_describe_estimate(row)}." for row in primary.to_dict("records")]
        few = _explain_few_seeds(int(primary["n"].max()))
        return Answer("too few seeds", (*progress, few, *effects, *_describe_divergence(cells)))
    larger, found = _describe_ablation(study, primary) if study.is_ablation else _describe_factors(study, primary)
    sentences = [
        *found,
        *study.margin.explain_verdicts(set(primary["verdict"])),
        *([study.look.describe_stop(list(primary["verdict"]))] if study.look else []),
        *describe_balance(study.table, list(study.levels)),
        *describe_choices(choices, factors),
        *_describe_divergence(cells),
        *_describe_baselines(cells, tested),
        _describe_population(study),
    ]
    return Answer(done, (*progress, *sentences), larger)


def _describe_ablation(study: StudyResults, primary: pd.DataFrame) -> tuple[None, list[str]]:
    """One sentence on all changes."""
    sample = _describe_sample(study, primary["n"])
    return None, [f"On {_describe_setting(study)}, {describe_changes(primary)} ({sample}; 95 % intervals)."]


def _describe_factors(study: StudyResults, primary: pd.DataFrame) -> tuple[str | None, list[str]]:
    """The factor that matters more, if that is claimed; the headline, then each factor, and their comparison."""
    larger, comparison = rank_factors(study)
    return larger, [
        _write_headline(study, primary),
        *(
            text
            for factor in (*study.varied, "")
            for text in _describe_effect(study, factor, primary[primary["subject"] == factor])
        ),
        *_describe_interaction(primary[primary["subject"].str.contains(" x ")]),
        *comparison,
        *describe_designs(study),
    ]


def _write_headline(study: StudyResults, primary: pd.DataFrame) -> str:
    """The largest averaged difference if significant (a control's is never the one), and how many primary contrasts are."""
    own = primary[~primary["control"]] if not primary["control"].all() else primary
    significant = own[own["verdict"].isin(SIGNIFICANT)]
    averaged = ~own["subject"].str.contains(" x ")
    main, interactions = (significant[part.loc[significant.index]] for part in (averaged, ~averaged))
    largest = _find_largest(next(rows for rows in (main, interactions, own[averaged], own) if len(rows)))
    count, total = int(primary["verdict"].isin(SIGNIFICANT).sum()), len(primary)
    counts = f"{count or 'none'} of {total} primary contrasts {'are' if count > 1 else 'is'} significant"
    if total == 1:
        counts = f"the primary contrast is {'' if count else 'not '}significant"
    if equivalent := int((primary["verdict"] == "equivalent").sum()):
        counts += f", {equivalent} equivalent within {study.margin}"
    if len(main):
        sign = "higher" if largest["difference"] > 0 else "lower"
        where, size = f"{largest['where']}, " if largest["where"] else "", format_points(largest["difference"])
        limits = format_interval(largest["low"], largest["high"], digits=2, signed=True)
        claim = f"{where}{largest['upper']} is {size} {sign} than {largest['lower'] or 'zero'} (95 % interval {limits})"
        claim += f"{', and the factors interact' if len(interactions) else ''}; {counts}"
    elif len(interactions):
        claim = f"the factors interact: {_describe_change(largest)}; {counts}"
    else:
        claim = f"{counts}; the largest averaged estimate is {_name_contrast(largest)}, {_describe_estimate(largest)}"
    levels = [f"{format_option(factor)} {', '.join(map(format_level, study.levels[factor]))}" for factor in study.varied]
    return f"On {_describe_setting(study)}, {claim} ({'; '.join([*levels, _describe_sample(study, primary['n'])])})."


def _find_largest(rows: pd.DataFrame) -> _Row:
    return rows.to_dict("records")[int(np.argmax(rows["difference"].abs().fillna(-1)))]


def _describe_setting(study: StudyResults) -> str:
    """Data set and budget: "digits at equal parameters"."""
    table = study.table
    column = "data_set" if "data_set" in table else "data_name"
    names = sorted(set(table[column].dropna().replace("folder", "this image folder"))) if column in table else []
    ways = sorted(set(table["match_by"].dropna())) if "match_by" in table else []
    return " ".join((join_words(names) or "this data", join_words(map(format_matching, ways)))).strip()


def _describe_sample(study: StudyResults, n: pd.Series) -> str:
    count = f"{n.min()}" if n.nunique() == 1 else f"{n.min()} to {n.max()}"
    seeds = f"after {count} seeds ({study.look.name})" if study.look else f"n = {count} seeds"
    several = "test_images" in study.table and study.table["test_images"].nunique() > 1
    number = "test images" if several or not study.grid.test_images else f"{study.grid.test_images:,} test images"
    return f"{seeds}, {number}" if study.grid.correct is not None else f"{seeds}, on these {number}"


def _name_contrast(row: _Row) -> str:
    return format_sides(row["upper"], row["lower"]) + (f" {row['where']}" if row["where"] else "")


def _describe_estimate(row: _Row) -> str:
    """Difference and interval, or why there is none: "−1.42 points (−2.55 to −0.29)"."""
    if np.isnan(row["difference"]):
        return "no seed has all the runs that it needs"
    size = format_points(row["difference"], signed=True)
    if np.isnan(row["low"]):
        return f"{size} ({row['note']})"
    return f"{size} ({format_interval(row['low'], row['high'], digits=2, signed=True)})"


def _describe_effect(study: StudyResults, factor: str, rows: pd.DataFrame) -> Iterator[str]:
    """One factor: its range with bounds, from three levels on, then its primary contrasts with intervals and verdicts.

    The factor "" are the contrasts that the sweep states itself.
    """
    name = format_option(factor) or "own contrasts"
    ranges = [
        _describe_range(study, design, own)
        for design in study.ranges
        for own in design.ranges
        if own.factor == factor and len(own.levels) > 2
    ]
    for where in rows["where"].unique() if len(rows) else [""]:
        effects = [
            f"{format_sides(*(drop_option(row[side], factor) for side in ('upper', 'lower')))}"
            f"{' (control)' if row['control'] else ''}: "
            f"{_describe_estimate(row)}{', ' + row['verdict'] if row['verdict'] != 'too few seeds' else ''}"
            for row in rows[rows["where"] == where].to_dict("records")
        ]
        if ranges or effects:
            yield f"{name[0].upper()}{name[1:]}{f' ({where})' if where else ''}: {'; '.join([*ranges, *effects])}."
        ranges = []


def _describe_range(study: StudyResults, design: DesignRanges, found: FactorRange) -> str:
    place = f", without {join_words(name_left_out(design))}" if len(study.ranges) > 1 else ""
    return f"range {format_bounds(found.bounds)}{place}, best {format_level(found.best)}, worst {format_level(found.worst)}"


def _describe_interaction(rows: pd.DataFrame) -> Iterator[str]:
    """The significant interaction contrasts, or that none is."""
    significant = rows[rows["verdict"].isin(SIGNIFICANT)]
    if len(significant):
        yield f"The factors interact: {'; '.join(map(_describe_change, significant.to_dict('records')))}."
    elif len(rows):
        yield f"No interaction contrast is significant; the largest estimate: {_describe_change(_find_largest(rows))}."


def _describe_change(row: _Row) -> str:
    """An interaction contrast: "ViT − ConvMixer changes by +1.86 points (...) from patch size 1 to patch size 4"."""
    gap, _, end = row["upper"].rpartition(" at ")
    start, control = row["lower"].rpartition(" at ")[2], " (control)" if row["control"] else ""
    return f"{gap.strip('()')}{control} changes by {_describe_estimate(row)} from {start} to {end}"


def _describe_divergence(cells: pd.DataFrame) -> list[str]:
    diverged = cells[cells["diverged"] > 0]
    if diverged.empty:
        return []
    number = int(diverged["diverged"].sum())
    are, they = ("runs diverged and are", "they") if number > 1 else ("run diverged and is", "it")
    reach = format_points((diverged["best"] - diverged["worst"]).max())
    return [
        f"{number} {are} excluded from the means, which {they} could change by up to {reach}; no claim is made that {they} "
        "could overturn."
    ]


def _describe_baselines(cells: pd.DataFrame, tested: pd.DataFrame) -> Iterator[str]:
    """That the measured cells exceed their baselines, where these are known."""
    measured = tested[tested["n"] > 0]
    if measured.empty or measured["baseline"].isna().any():
        return
    kind = "baseline " if CHANGE in cells else "non-control "
    which = f"{'measured ' if len(measured) < len(tested) else ''}{kind if len(tested) < len(cells) else ''}"
    baselines = measured["baseline"]
    if baselines.nunique() == 1:
        floor, lowest = format_percent(baselines.iloc[0]), format_percent(measured["mean"].min())
        exceeded = f"the linear baseline of {floor} % (lowest mean {lowest} %)"
    else:
        least = format_points((measured["mean"] - baselines).min())
        exceeded = f"the linear baselines of their images, by {least} at least"
    yield f"All {which}cells exceed {exceeded}."


def _describe_population(study: StudyResults) -> str:
    """Whether parts or whole backbones were compared, and of what the intervals speak."""
    metaformer_only = bool((study.table["backbone"] == "metaformer").all())
    kind = "Each change is made by itself" if study.is_ablation else "Only the named factors differ between the cells"
    if "backbone" in study.varied or ("token_mixer" in study.varied and not metaformer_only):
        kind = "Whole backbones are compared, so no effect is attributed to a single part of them"
    looks = ", at all looks" if study.look else ""
    lacks = f" ({study.grid.lacks_correct})" if study.grid.correct is None else ""
    return (
        f"{kind}. Intervals (95 %; those of primary contrasts and of ranges simultaneous{looks}) are over "
        f"{study.population}{lacks}."
    )


def _explain_undertrained(low: pd.DataFrame, factors: Sequence[str]) -> tuple[str, str]:
    count = f"{len(low)} cell{'s do' if len(low) > 1 else ' does'} not exceed"
    low = low.iloc[np.argsort(low["mean"] - low["baseline"], kind="stable")]  # the worst first
    rows = zip(read_cells(low, factors), low["mean"], low["baseline"], strict=True)
    cells = [
        f"{format_cell(factors, cell)} ({format_percent(mean)} %, baseline {format_percent(baseline)} %)"
        for cell, mean, baseline in rows
    ]
    return (
        f"Undertrained: no answer. {count} the {_ACCURACY} of a linear baseline: {'; '.join(and_more(cells, 3))}.",
        "Accuracies at or below a linear model on pixels show how far training went, not what the factors contribute.",
    )


def _describe_single_cell(study: StudyResults) -> str:
    row = clip_intervals(study.cells).iloc[0]
    limits = "" if np.isnan(row["low"]) else f", 95 % interval {format_interval(row['low'], row['high'])}"
    seeds = f"n = {row['n']} seed{'s' if row['n'] > 1 else ''}"
    mean = f"{_ACCURACY} {format_percent(row['mean'])} % ({seeds}{limits})"
    return f"No factor varies, so there is no comparison: {mean}."


def _explain_few_seeds(most: int) -> str:
    if not most:
        return f"No answer: no seed has both runs of any contrast; at least {MIN_SEEDS} such seeds are needed."
    return f"No answer: {most} seed{'s' if most > 1 else ''}, and at least {MIN_SEEDS} are needed to estimate the spread."


def _describe_progress(cells: pd.DataFrame) -> list[str]:
    totals = cells[["planned", "done", "diverged", "failed", "missing"]].sum()
    if not totals["failed"] + totals["missing"]:
        return []
    shown = f"{totals['done'] + totals['diverged']} of {totals['planned']} runs"
    return [f"Provisional: {shown} ({totals['failed']} failed, {totals['missing']} missing)."]

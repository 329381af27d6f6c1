"""What a study will compare and can find, stated before its runs: contrasts, critical value, seeds for a difference."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from study.analysis.budget_balance import describe_balance
from study.analysis.cell_grid import FloatArray, read_numbers
from study.analysis.contrast_results import build_weights
from study.analysis.crossed import estimate_weighted_means
from study.analysis.expectations import find_expected
from study.analysis.findings import Findings
from study.analysis.group_sequential import Look
from study.analysis.intervals import CONFIDENCE, MIN_SEEDS
from study.analysis.labels import format_points, join_words
from study.analysis.margin import Margin
from study.analysis.planned_contrasts import Contrast
from study.analysis.report_tables import StudyTables, read_run_folder
from study.analysis.seeds_needed import MOST_SEEDS, Spread, find_spreads, seeds_needed
from study.analysis.simultaneous import DRAWS, draw_multivariate_t
from study.analysis.study_results import StudyResults
from study.errors import Problem, UserError, and_more
from study.records.columns import planned_columns
from study.records.plan_file import NotLaunched, PlanFile

_NORMAL = 1e6  # degrees of freedom of a t distribution that is a normal one


def read_planned_study(plan: PlanFile) -> Findings:
    """A plan as a study of which nothing is recorded: its parts have the contrasts that the report will make."""
    rows = [planned_columns(entry) for entry in plan.of_stage("final")]
    table = pd.DataFrame(rows).convert_dtypes().assign(status="missing", test_accuracy=np.nan)
    return Findings(StudyTables(table, pd.DataFrame(), plan.facts))


def check_stated(planned: Findings, places: Mapping[str, str]) -> None:
    """Raise UserError, with its place, for a contrast or an expectation that the report could not make."""
    try:
        for part in planned.parts:
            assert part.planned is not None
            find_expected(part, part.expectations)
        if planned.study.facts.looks and not any(_list_primary(part) for part in planned.parts):
            rule = "seeds until a decision need a contrast to decide about, but this sweep plans none: give a number of seeds"
            raise UserError(Problem(rule, key="seeds"))
    except UserError as error:
        found = [(one, next((place for key, place in places.items() if one.key.startswith(key)), "")) for one in error.problems]
        raise UserError(*(one.at(place) for one, place in found)) from None


def describe_planned_contrasts(planned: Findings, *, shown: int, exploratory: bool = False) -> list[str]:
    """Lines that state the hypotheses before the data: effect of interest, primary contrasts, how large they must be.

    And what the budget leaves unequal between the cells that are contrasted. With `exploratory` these are listed too.
    """
    facts, lines = planned.study.facts, []
    for part in planned.parts:
        if primary := _list_primary(part):
            title, others = f", {part.title}" if part.title else "", len(part.planned) - len(primary)
            lines += [f"primary contrasts{title} ({len(primary)}, adjusted together; {others} more are exploratory):"]
            lines += [f"    {name}" for name in and_more([contrast.name for contrast in primary], shown)]
            looks = [] if part.look is None else [_describe_looks(part.look, len(primary))]
            lines += looks or [_describe_critical_value(build_weights(part.grid, primary), len(facts.seeds))]
            if exploratory and others:
                lines += [f"exploratory contrasts{title} ({others}):"]
                lines += [f"    {contrast.name}" for contrast in part.planned if not contrast.primary]
            lines += describe_balance(part.table, list(part.levels))
    margin = str(Margin.from_facts(facts.effect_of_interest)) or "not stated, so nothing can be called equivalent"
    return [f"effect of interest: {margin}", *lines] if lines else []


def _list_primary(part: StudyResults) -> list[Contrast]:
    return [contrast for contrast in part.planned if contrast.primary]


def _describe_critical_value(family: FloatArray, seeds: int) -> str:
    if seeds < MIN_SEEDS:
        return f"with {seeds} seed{'s' * (seeds > 1)} there are no verdicts, which need {MIN_SEEDS} at least"
    own = find_critical_value(family, seeds - 1)
    others = ", ".join(f"{find_critical_value(family, count - 1):.1f} with {count}" for count in (5, 10) if count > seeds)
    hardly = ", so hardly any will be" if seeds < 5 else ""
    more = f" ({others})" if others else ""
    return (
        f"with {seeds} seeds, a difference is significant from {own:.1f} standard errors on where seeds vary most{hardly}{more}"
    )


def _describe_looks(look: Look, contrasts: int) -> str:
    """The same for each look of a study whose seeds come in stages."""
    looks = [(Look(number, look.sizes), size) for number, size in enumerate(look.sizes, start=1)]
    values = [f"{float(each.critical_value(size - 1, contrasts=contrasts)):.1f}" for each, size in looks]
    return (
        f"at looks with {join_words(map(str, look.sizes))} seeds, a difference is significant from {join_words(values)} "
        "standard errors on where seeds vary most"
    )


def find_critical_value(family: FloatArray, df: float) -> float:
    """The standard errors beyond which a contrast is significant, adjusted for the whole family (weights `contrasts cells`).

    By the multivariate t, with the correlations of independent and equally noisy cells, since nothing is measured yet.
    """
    if len(family) == 1:
        return float(stats.t.isf((1 - CONFIDENCE) / 2, df))
    unit = family / np.linalg.norm(family, axis=1, keepdims=True)
    drawn = draw_multivariate_t(unit @ unit.T, np.full(len(unit), df), draws=DRAWS)
    return float(np.quantile(np.abs(drawn).max(axis=1), CONFIDENCE))


def find_family_level(family: FloatArray) -> float:
    """The level of a single contrast at which the whole family keeps 5 %, with many seeds (safe also with few)."""
    return float(2 * stats.norm.sf(find_critical_value(family, _NORMAL)))


def _find_level(part: StudyResults, family: FloatArray) -> float:
    """The level of a single contrast of a family; where seeds come in stages, at the last look."""
    if part.look is None:
        return find_family_level(family)
    return replace(part.look, number=len(part.look.sizes)).nominal_level(contrasts=len(family))


def describe_pilot_seeds(folder: Path, difference: float) -> list[str]:
    """The seeds with which each primary contrast finds a true `difference` (fraction) with 80 % power, by a pilot's spread.

    The pilot is what `folder` has recorded (UserError if nothing). Population: new seeds and new test images, as many of
    these as in the pilot; new seeds on its test images where it kept no correctness per image.
    """
    try:
        pilot = Findings(read_run_folder(folder))
    except NotLaunched:
        rule = "no pilot is recorded here: launch the sweep with a few seeds first (seeds=5), or state the spread (--sd POINTS)"
        raise UserError(Problem(rule, str(folder), "--detect")) from None
    lines = []
    for part in pilot.parts:
        if primary := _list_primary(part):
            family = build_weights(part.grid, primary)
            estimates, level = estimate_weighted_means(part.grid, family), _find_level(part, family)
            images = "these test images" if estimates.images is None else f"{estimates.images:,} test images"
            source = f"by the pilot of {len(part.grid.seeds)} seeds on {images}, in brackets for the 95 % interval of its sd"
            lines.append(_describe_detection(difference, f"{part.title}, {source}" if part.title else source, level=level))
            for contrast, note, spread in zip(primary, estimates.notes, find_spreads(estimates), strict=True):
                lines.append(f"    {contrast.name}: {_format_seeds(difference, spread, level=level) if spread else note}")
    return lines


def describe_stated_seeds(planned: Findings, difference: float, *, sd: float, accuracy: float | None) -> list[str]:
    """The seeds for a `difference` with a stated `sd` over seeds (fractions), without a pilot, for the largest family.

    How much the test images add depends on the images on which both sides err, which only a pilot knows: from nothing, where
    these are all of them, to `2 p (1 - p) / m` at an `accuracy` p on m test images, where the sides err independently.
    """
    families = [(part, build_weights(part.grid, primary)) for part in planned.parts if (primary := _list_primary(part))]
    level = min(_find_level(part, family) for part, family in families)
    same = _format_seeds(difference, Spread(sd, None, 0.0, None), level=level)
    lines = [
        _describe_detection(difference, "by the stated sd", level=level),
        f"    if both sides err on the same images: {same}",
    ]
    if accuracy is not None:
        images = int(read_numbers(planned.table, "test_images").min())
        spread = Spread(sd, None, float(np.sqrt(2 * accuracy * (1 - accuracy) / images)), images)
        lines.append(f"    if they err independently, on {images:,} images: {_format_seeds(difference, spread, level=level)}")
    return lines


def _describe_detection(difference: float, source: str, *, level: float) -> str:
    return (
        f"seeds that find {format_points(difference)} in four of five studies, {source} "
        f"(each contrast at a level of {100 * level:.2g} %, so that its family keeps 5 %):"
    )


def _format_seeds(difference: float, spread: Spread, *, level: float) -> str:
    found = seeds_needed(difference, spread, alpha=level)
    error = f", standard error {format_points(spread.image_error)} from the images" if spread.images else ""
    parts = f"sd {format_points(spread.seed_sd)} over seeds{error}"
    if found.smallest_with_any_seeds >= difference:
        least = format_points(found.smallest_with_any_seeds)
        return f"out of reach with these test images, where any number of seeds finds {least} at best ({parts})"
    seeds, low, high = (f"over {MOST_SEEDS:,}" if each is None else str(each) for each in (found.seeds, found.low, found.high))
    return f"{seeds} seeds{f' [{low} to {high}]' if spread.seed_df else ''} ({parts})"

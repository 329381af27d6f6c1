"""Which of two factors matters more here: the claim that the answer makes last, and all conditions that it has to meet."""

import pandas as pd

from study.analysis.complete_designs import drop_controls, merge_partial_options
from study.analysis.contrast_results import SIGNIFICANT
from study.analysis.factor_ranges import Bounds, DesignRanges, is_reversed_by_divergence
from study.analysis.labels import format_interval, format_level, format_option, format_points, format_setting, join_words
from study.analysis.study_results import StudyResults


def rank_factors(study: StudyResults) -> tuple[str | None, list[str]]:
    """The factor that matters more here, if that may be claimed, and the sentence about it; none where no two are compared.

    The claim needs a significant primary contrast of that factor, and has to hold in every largest complete design, with any
    level left out, in log-odds, and whatever the diverged runs might have shown.
    """
    found = [design.comparison for design in study.ranges if design.comparison]
    if len(found) < len(study.ranges) or len({own.factors for own in found}) != 1:
        return None, _name_two_levels(study)
    factors = found[0].factors
    one, two = map(format_option, factors)
    sizes = join_words(format_bounds(comparison.difference, signed=True) for comparison in found)
    size = f"the range of the {one} minus that of the {two} is {sizes}"
    reversals = dict.fromkeys(case.name for comparison in found for case in comparison.reversals)
    claims = {comparison.larger for comparison in found}
    undecided = f"Whether the {one} or the {two} matters more"
    if not all(comparison.sign for comparison in found):
        return None, [f"{undecided} here is inconclusive: {size}."]
    if reversals or len(claims) > 1:
        cases = join_words(reversals) or "with the levels that are left out"
        return None, [f"{undecided} depends on the levels: {size}, and has not the same sign {cases}."]
    (larger,) = claims
    assert larger is not None, "the signs are significant and none reverses"
    if is_reversed_by_divergence(merge_partial_options(study.grid), factors, sign=found[0].sign):
        return None, [f"{undecided} is inconclusive: {size}, which the diverged runs could reverse."]
    contrasts = study.contrasts
    assert isinstance(contrasts, pd.DataFrame)
    bearing = contrasts[contrasts["primary"] & ~contrasts["control"] & (contrasts["subject"] == larger)]
    if not bearing["verdict"].isin(SIGNIFICANT).any():
        return None, [
            f"{undecided} is inconclusive: {size}, but no primary contrast of the {format_option(larger)} is significant."
        ]
    more, less = (one, two) if larger == factors[0] else (two, one)
    return larger, [
        f"The {more} matters more than the {less} here: {size}, with the same sign without any one level and in log-odds."
    ]


def _name_two_levels(study: StudyResults) -> list[str]:
    """The factors that no range is compared with, since they have two levels, or two are left in some complete part."""
    pairs = {
        (own.factor, own.levels)
        for design in study.ranges
        for own in design.ranges
        if len(own.levels) == 2 and len(study.varied) > 1
    }
    clauses = [
        f"the {format_option(factor)} "
        + ("has two levels" if len(set(study.levels[factor])) == 2 else f"is compared at {join_words(map(format_level, pair))}")
        for factor, pair in sorted(pairs, key=lambda pair: (study.varied.index(pair[0]), str(pair[1])))
    ]
    if not clauses:
        return []
    text, effect = join_words(clauses), "its effect is" if len(clauses) == 1 else "each of these effects is"
    return [f"{text[0].upper()}{text[1:]} here: {effect} that of two levels alone, and no ranges are compared."]


def format_bounds(bounds: Bounds, *, signed: bool = False) -> str:
    """A range or a difference of ranges with its bounds: "0.58 points (0.27 to 1.12)"."""
    size = format_points(bounds.value, signed=signed)
    limits = format_interval(bounds.low, bounds.high, digits=2, signed=signed)
    return size if limits == "–" else f"{size} ({limits})"


def describe_designs(study: StudyResults) -> list[str]:
    """Which cells the ranges are without, where some have no runs or too few."""
    designs = [design for design in study.ranges if design.left_out]
    if designs:
        ways = [f"without {join_words(name_left_out(design))}" for design in designs]
        either = "in each of the largest complete parts" if len(ways) > 1 else "in the largest complete part"
        return [f"Some combinations of levels lack runs: the ranges are those {either} of the study, {' and '.join(ways)}."]
    tested = drop_controls(merge_partial_options(study.grid))
    if study.ranges or len(tested.cells) < 2:  # without controls, nothing is left to compare
        return []
    return ["There are no ranges: no two levels of each factor have three seeds in common in all combinations."]


def name_left_out(design: DesignRanges) -> list[str]:
    """The levels that a design lacks, in words."""
    return [format_setting(factor, level) for factor, level in design.left_out]

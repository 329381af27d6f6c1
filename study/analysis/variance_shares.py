"""How much of the variation in accuracy each part of the design carries, as shares that add up to one.

A share is a component of variance divided by their sum: what the accuracy of a run would vary by this term, if its cell
were drawn evenly from the levels under study and its seed from all seeds. It is omega squared, not partial, so the
shares of factors, interactions, seeds and the rest add up. A share depends on the levels chosen: patch sizes 1 to 16
carry more than 1 to 2, whatever the mixers do; therefore every row names the levels that it speaks about.

Intervals are generalised confidence intervals (Weerahandi, "Generalized confidence intervals", JASA 1993): each
component is drawn from the distribution that the observed sums of squares leave for it (chi-squared for seeds and rest,
inverted noncentral chi-squared for fixed effects), and each draw's shares add up too. Simulated at 3, 5 and 10 seeds
(a thousand studies each; the tests repeat the first two): 95 % intervals cover in 93 to 98 % of studies where every term has
a share and cells spread alike, and in 91 % and more where spreads differ by a factor of two. The worst seen is 87 %, for the
share of a factor whose effect depends on the seed (5 seeds), and of one that is the only effect there is (3 seeds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy import special, stats

from study.analysis.cell_grid import BoolArray, FloatArray, Grid, collect_levels, is_measured, merge_partial_options, read_grid
from study.analysis.cell_means import describe_cell
from study.analysis.intervals import CONFIDENCE, MIN_SEEDS
from study.analysis.labels import format_level
from study.analysis.sums_of_squares import RESIDUAL, SEED, SumsOfSquares, complete_part, compute_sums_of_squares
from study.errors import Problem, UserError
from study.rng import stream

SHARE_DRAWS = 4000


@dataclass(frozen=True, eq=False)
class CompletePart:
    """The complete factorial that is decomposed, and in words what of the study is not in it."""

    grid: Grid
    left_out: str


def decompose_variance(table: pd.DataFrame, by: Sequence[str], *, draws: int = SHARE_DRAWS) -> pd.DataFrame:
    """One row per term (factors, interactions, seed, residual): its share of the variation, which add up to 1.

    Population of `share`, `low`, `high`: runs whose cell is drawn evenly from the levels named in `levels` and whose
    seed is drawn from all seeds, on this data and this test set. `worst` and `best` are the shares if all diverged runs
    had ended at chance or as well as their kind; they equal `share` where none diverged. `note` names what was left
    out. Negative components count as zero; `component` is the unbiased variance (fraction squared) before that.
    """
    part = complete(factorial_grid(table, by))
    sums = decomposed(part.grid)
    components = sums.components()[0]
    low, high = _share_limits(sums, seeds=len(part.grid.seeds), draws=draws)
    frame = pd.DataFrame(
        {
            "term": [*sums.terms, RESIDUAL],
            "share": shares(components),
            "low": low,
            "high": high,
            "component": components,
            "sum_squares": np.append(sums.squares[0], sums.residual[0]),
            "df": np.append(sums.df, sums.residual_df).astype(int),
            "levels": [levels_of(term, part.grid) for term in (*sums.terms, RESIDUAL)],
        }
    )
    frame["worst"] = diverged_shares(table, by, case="worst")
    frame["best"] = diverged_shares(table, by, case="best")
    return frame.assign(n=len(part.grid.seeds), runs=int(is_measured(part.grid.values).sum()), note=part.left_out)


def compare_shares(table: pd.DataFrame, by: Sequence[str], *, first: str, second: str) -> tuple[float, float, float]:
    """Share of the term `first` minus share of `second`, with its limits: whether one carries more than the other.

    Population as in `decomposition`; drawn jointly, since shares of one whole are not independent. Limits are NaN below
    three seeds.
    """
    part = complete(factorial_grid(table, by))
    sums = decomposed(part.grid)
    here, there = (sums.terms.index(name) for name in (first, second))
    point = shares(sums.components()[0])
    if len(part.grid.seeds) < MIN_SEEDS or not sums.residual[0] > 0:
        return float(point[here] - point[there]), float("nan"), float("nan")
    drawn = drawn_shares(sums, draws=SHARE_DRAWS)[0]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn[:, here] - drawn[:, there], [tail, 1 - tail])
    return float(point[here] - point[there]), float(low), float(high)


def factorial_grid(table: pd.DataFrame, by: Sequence[str]) -> Grid:
    """The table as a grid over those of the factors that vary, options that some levels lack joined to their factor."""
    table, joined = merge_partial_options(table, by)
    varied = [factor for factor, levels in collect_levels(table, joined).items() if len(levels) > 1]
    if not varied:
        raise UserError(Problem("have no two levels between them", key=", ".join(by)))
    return read_grid(table, varied)


def complete(grid: Grid) -> CompletePart:
    """The largest complete sub-factorial of cells with a measured run, and the seeds that it has runs of."""
    filled: BoolArray = np.asarray(is_measured(grid.values).any(axis=1))
    present = [cell for cell, some in zip(grid.cells, filled, strict=True) if some]
    kept = set(complete_part(present, grid.factors))
    inside = np.array([cell in kept for cell in grid.cells])
    reduced = grid.select([int(place) for place in np.flatnonzero(inside)])
    seeds: BoolArray = np.asarray(is_measured(reduced.values).any(axis=0))
    numbers = tuple(seed for seed, stays in zip(grid.seeds, seeds, strict=True) if stays)
    smaller = replace(reduced, seeds=numbers, values=reduced.values[:, seeds], status=reduced.status[:, seeds])
    return CompletePart(smaller, what_is_left_out(grid, smaller, inside=inside))


def decomposed(grid: Grid) -> SumsOfSquares:
    """The sums of squares of one study; a UserError where its finished runs don't suffice for any."""
    key = ", ".join(grid.factors)
    if grid.values.size == 0:
        raise UserError(Problem("have no two levels each at which every combination finished a run", key=key))
    sums = compute_sums_of_squares(grid.values[None], grid.cells, grid.factors)
    if sums.residual_df < 1:
        raise UserError(Problem("can't be told from chance with fewer than two finished seeds per cell", key=key))
    return sums


def what_is_left_out(grid: Grid, kept: Grid, *, inside: BoolArray) -> str:
    """In words: cells outside the complete part, and runs inside it that gave no accuracy; empty where all are in."""
    told = []
    if not inside.all():
        levels = "; ".join(f"{factor} {levels_of(factor, kept)}" for factor in kept.factors)
        outside = [describe_cell(grid.factors, cell) for cell, stays in zip(grid.cells, inside, strict=True) if not stays]
        told.append(f"only the complete part ({levels}) is decomposed, without {'; '.join(outside)}")
    for status in ("diverged", "failed", "missing"):
        number = int((kept.status == status).sum())
        if number:
            told.append(f"{number} {status} run{'s' * (number > 1)} of this part left out")
    return "; ".join(told)


def shares(components: FloatArray) -> FloatArray:
    """Components over their sum along the last axis, negative ones as zero."""
    positive = np.maximum(components, 0.0)
    total = positive.sum(axis=-1, keepdims=True)
    return np.where(total > 0, positive / np.where(total > 0, total, 1.0), np.nan)


def _share_limits(sums: SumsOfSquares, *, seeds: int, draws: int) -> tuple[FloatArray, FloatArray]:
    """Limits of the shares of one study; NaN below three seeds or without any spread."""
    if seeds < MIN_SEEDS or not sums.residual[0] > 0:
        nothing = np.full(len(sums.terms) + 1, np.nan)
        return nothing, nothing
    low, high = share_limits(sums, draws=draws)
    return low[0], high[0]


def share_limits(sums: SumsOfSquares, *, draws: int) -> tuple[FloatArray, FloatArray]:
    """Limits of every share (`studies (terms + residual)`).

    Where all other shares may be zero, the residual may be everything: its upper limit then is 1, which no draw reaches.
    """
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn_shares(sums, draws=draws), [tail, 1 - tail], axis=1)
    nothing_else = (low[:, :-1] <= 0).all(axis=1)
    high[:, -1] = np.where(nothing_else, 1.0, high[:, -1])
    return low, high


def drawn_shares(sums: SumsOfSquares, *, draws: int) -> FloatArray:
    """Generalised draws of the shares, `studies draws (terms + residual)`.

    Drawn at a Latin hypercube for each study: every component has one draw in each of `draws` equal parts of its
    distribution (McKay, Beckman and Conover, "A comparison of three methods for selecting values of input variables", 1979).
    """
    rng = stream(0, "decomposition intervals")
    ranks = rng.permuted(np.tile(np.arange(draws), (len(sums.residual), len(sums.terms) + 1, 1)), axis=2)
    points = np.clip((ranks + rng.random(ranks.shape)) / draws, 1e-9, 1 - 1e-9)  # studies terms draws
    noise = sums.residual[:, None] / stats.chi2.ppf(points[:, -1], sums.residual_df)
    drawn = []
    for place, name in enumerate(sums.terms):
        squares, df, gain = sums.squares[:, place, None], sums.df[place], sums.gain[place]
        if name == SEED:
            drawn.append((squares / stats.chi2.ppf(points[:, place], df) - noise) * df / gain)
        else:
            drawn.append(noise * noncentrality(squares / noise, df, below=points[:, place]) / gain)
    return shares(np.stack([*drawn, noise], axis=-1))


def noncentrality(observed: FloatArray, df: float, *, below: FloatArray) -> FloatArray:
    """The noncentrality under which a chi-squared variable lies under `observed` with probability `below`, or 0.

    Exact up to 100 df; beyond, where the exact series is slow, from the first terms of the root's expansion, whose error
    is below two hundredths of the spread of the result.
    """
    found = np.zeros(np.broadcast_shapes(observed.shape, below.shape))
    below = np.broadcast_to(below, found.shape)
    far = observed > 100 * df
    near = ~far & (below < special.chdtr(df, observed))  # elsewhere even the central distribution has less below
    found[near] = special.chndtrinc(observed[near], df, below[near])
    root, deviate = np.sqrt(observed[far]), special.ndtri(below[far])
    centre = root - deviate
    for _ in range(3):
        centre = root - deviate * np.sqrt(1 + (df - 1) / (2 * centre**2)) - (df - 1) / (2 * centre)
    found[far] = centre**2
    return found


def diverged_shares(table: pd.DataFrame, by: Sequence[str], *, case: Literal["worst", "best"]) -> FloatArray:
    """The shares with every diverged run given the accuracy of the case."""
    grid = factorial_grid(table, by)
    return shares(decomposed(complete(replace(grid, values=grid.fill_diverged(case))).grid).components()[0])


def levels_of(term: str, grid: Grid) -> str:
    """The levels that a term speaks about, in words: "1, 2, 4" for a factor, "1, 2, 4 x attention, mlp" for two."""
    if term == SEED:
        return f"{len(grid.seeds)} seeds"
    if term == RESIDUAL:
        return "run to run"
    named = [factor for factor in grid.factors if factor in term.split(" x ")] or list(grid.factors)
    return " x ".join(", ".join(map(format_level, grid.levels(factor))) for factor in named)

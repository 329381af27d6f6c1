"""A factorial study with seeds as blocks, as sums of squares: which part of the variation each term takes.

Accuracy = factors, their interactions + seed + rest. Type II sums of squares (each term after all terms that don't
contain it; Langsrud, "ANOVA for unbalanced data: use Type II instead of Type III sums of squares", 2003), which for
complete tables are the ordinary ones. Beside each stands what a component of variance of 1 adds to it, so that sums of
squares turn into components also where runs are missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from study.analysis.cell_grid import CellLevels, FloatArray, Level, is_measured

SEED, RESIDUAL, HIGHER = "seed", "residual", "higher interactions"


@dataclass(frozen=True)
class DesignTerm:
    """A main effect (one factor), an interaction (two), or all higher interactions pooled."""

    name: str
    factors: tuple[tuple[str, ...], ...]  # the effects it is made of, each as its factors

    def within(self, other: DesignTerm) -> bool:
        """Whether `other` contains this term, so that this one isn't adjusted for it."""
        return self != other and any(set(mine) <= set(theirs) for mine in self.factors for theirs in other.factors)


@dataclass(frozen=True, eq=False)
class SumsOfSquares:
    """Sums of squares of many studies with the same runs measured; `studies terms`, terms in order, seeds last."""

    terms: tuple[str, ...]
    squares: FloatArray  # studies terms
    df: FloatArray  # terms
    gain: FloatArray  # terms; what a component of 1 adds to the expected sum of squares
    residual: FloatArray  # studies
    residual_df: int

    def components(self) -> FloatArray:
        """Unbiased components of variance, `studies (terms + residual)`; small ones may come out below zero.

        For a factor it is the mean squared effect over its levels in the study (levels are fixed), for seeds and the
        rest the variance over all seeds (a sample of them was drawn).
        """
        noise = self.residual / self.residual_df
        effects = (self.squares - noise[:, None] * self.df) / self.gain
        return np.concatenate([effects, noise[:, None]], axis=1)


def terms_of(factors: Sequence[str]) -> tuple[DesignTerm, ...]:
    """Main effects, then interactions of two; those of three and more are one term, so that shares stay readable."""
    single = [DesignTerm(factor, ((factor,),)) for factor in factors]
    double = [DesignTerm(" x ".join(pair), (pair,)) for pair in itertools.combinations(factors, 2)]
    many = [c for size in range(3, len(factors) + 1) for c in itertools.combinations(factors, size)]
    return (*single, *double, *([DesignTerm(HIGHER if len(many) > 1 else " x ".join(many[0]), tuple(many))] if many else []))


def compute_sums_of_squares(values: FloatArray, cells: Sequence[CellLevels], factors: Sequence[str]) -> SumsOfSquares:
    """Type II sums of squares with seeds as blocks (`studies cells seeds`); every cell needs a measured run.

    NaN marks runs that weren't measured, the same ones in all studies. Asserts that no term is lost to missing runs.
    """
    rows, columns = np.nonzero(is_measured(values).all(axis=0))
    observed = values[:, rows, columns]
    observed = observed - observed.mean(axis=1, keepdims=True)
    terms = terms_of(factors)
    blocks = {term.name: term_columns(term, cells, factors)[rows] for term in terms}
    seeds = sum_to_zero(values.shape[2])[columns]
    everything = np.hstack([np.ones((len(rows), 1)), *blocks.values(), seeds])
    found = []
    for term in terms:
        others = [blocks[other.name] for other in terms if other != term and not term.within(other)]
        found.append(adjusted(observed, blocks[term.name], np.hstack([np.ones((len(rows), 1)), seeds, *others])))
    found.append(adjusted(observed, seeds, np.hstack([np.ones((len(rows), 1)), *blocks.values()])))
    squares, df, trace = map(np.array, zip(*found, strict=True))
    gain = np.append(trace[:-1] / np.maximum(df[:-1], 1), trace[-1])
    residual = ((observed - projected(observed, everything)) ** 2).sum(axis=1)
    names = (*(term.name for term in terms), SEED)
    return SumsOfSquares(names, squares.T, df, gain, residual, len(rows) - int(np.linalg.matrix_rank(everything)))


def adjusted(observed: FloatArray, columns: FloatArray, others: FloatArray) -> tuple[FloatArray, float, float]:
    """Sum of squares of `columns` after `others` (one per study), its df, and the squared length of what they leave."""
    own = columns - projected(columns.T, others).T
    df = int(np.linalg.matrix_rank(own)) if own.size else 0
    assert df == columns.shape[1], "a term can't be told from the others in the runs that were measured"
    return (projected(observed, own) ** 2).sum(axis=1), float(df), float((own**2).sum())


def projected(vectors: FloatArray, columns: FloatArray) -> FloatArray:
    """The part of each row of `vectors` (`k runs`) that lies in the span of `columns` (`runs m`)."""
    if columns.shape[1] == 0:
        return np.zeros_like(vectors)
    basis = linalg.orth(columns)
    return np.asarray((vectors @ basis) @ basis.T)


def term_columns(term: DesignTerm, cells: Sequence[CellLevels], factors: Sequence[str]) -> FloatArray:
    """The term's columns over cells (`cells df`), scaled so that a squared coefficient is a mean squared effect."""
    return np.hstack([effect_columns(effect, cells, factors) for effect in term.factors])


def effect_columns(effect: Sequence[str], cells: Sequence[CellLevels], factors: Sequence[str]) -> FloatArray:
    """Products of the factors' orthonormal contrasts, times the root of the number of combinations."""
    columns = np.ones((len(cells), 1))
    for factor in effect:
        own = [cell[list(factors).index(factor)] for cell in cells]
        levels: list[Level] = list(dict.fromkeys(own))
        contrast = sum_to_zero(len(levels))[[levels.index(level) for level in own]] * np.sqrt(len(levels))
        columns = np.einsum("ca,cb->cab", columns, contrast).reshape(len(cells), -1)
    return columns


def sum_to_zero(levels: int) -> FloatArray:
    """Orthonormal contrasts between `levels` (`levels levels-1`), each orthogonal to the mean (Helmert's)."""
    return np.asarray(linalg.helmert(levels), dtype=np.float64).T


def complete_part(present: Sequence[CellLevels], factors: Sequence[str]) -> tuple[CellLevels, ...]:
    """The largest set of levels per factor at which every combination is present, as the cells it holds.

    Two levels of each factor at least, where that is possible at all; otherwise (). Of equally large ones the first in
    the order of the levels.
    """
    levels = [list(dict.fromkeys(cell[place] for cell in present)) for place in range(len(factors))]
    widest = max(range(len(factors)), key=lambda place: len(levels[place]))
    there = set(present)
    best: tuple[CellLevels, ...] = ()
    for chosen in itertools.product(*(subsets(own) if p != widest else [own] for p, own in enumerate(levels))):
        others = list(itertools.product(*(own if p != widest else (None,) for p, own in enumerate(chosen))))
        kept = [
            level for level in levels[widest] if all((*cell[:widest], level, *cell[widest + 1 :]) in there for cell in others)
        ]
        if len(kept) >= 2 and len(kept) * len(others) > len(best):
            best = tuple(itertools.product(*(own if p != widest else kept for p, own in enumerate(chosen))))
    return tuple(cell for cell in present if cell in set(best))


def subsets(levels: Sequence[Level]) -> list[tuple[Level, ...]]:
    """All choices of at least two levels, the largest first."""
    sizes = range(len(levels), 1, -1)
    return [chosen for size in sizes for chosen in itertools.combinations(levels, size)]

"""Type II sums of squares of a factorial study with seeds as blocks, and the variance components they estimate.

Accuracy = factors, their interactions + seed + residual. Type II: each term is adjusted for all terms that do not contain it
(Langsrud, "ANOVA for unbalanced data: use Type II instead of Type III sums of squares", 2003); for complete tables these are
the ordinary sums of squares. The gain of a term is what a variance component of 1 adds to its expected sum of squares, so
that sums of squares give components also where runs are missing.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import linalg

from study.analysis.cell_grid import CellLevels, FloatArray, Level, is_measured

SEED, RESIDUAL, HIGHER = "seed", "residual", "higher interactions"


@dataclass(frozen=True)
class DesignTerm:
    """A main effect (one factor), an interaction (two factors), or all higher interactions pooled."""

    name: str
    factors: tuple[tuple[str, ...], ...]  # the factors of each effect in the term

    def is_contained_in(self, other: Self) -> bool:
        """Whether `other` contains this term, so that this one is not adjusted for it."""
        return self != other and any(set(mine) <= set(theirs) for mine in self.factors for theirs in other.factors)


@dataclass(frozen=True, eq=False)
class SumsOfSquares:
    """Sums of squares of many studies with the same missing runs; `studies terms`, terms in order, seeds last."""

    terms: tuple[str, ...]
    squares: FloatArray  # studies terms
    df: FloatArray  # terms
    gain: FloatArray  # terms; what a component of 1 adds to the expected sum of squares
    residual: FloatArray  # studies
    residual_df: int

    def components(self) -> FloatArray:
        """Unbiased variance components, `studies (terms + residual)`; small ones may be negative.

        For a factor it is the mean squared effect over its levels in the study (levels are fixed), for seeds and the
        residual the variance over all seeds (the seeds are a sample).
        """
        noise = self.residual / self.residual_df
        effects = (self.squares - noise[:, None] * self.df) / self.gain
        return np.concatenate([effects, noise[:, None]], axis=1)


def compute_sums_of_squares(values: FloatArray, cells: Sequence[CellLevels], factors: Sequence[str]) -> SumsOfSquares:
    """Type II sums of squares with seeds as blocks (`studies cells seeds`); every cell needs a measured run.

    NaN marks runs that were not measured, the same ones in all studies. Asserts that missing runs alias no term.
    """
    rows, columns = np.nonzero(is_measured(values).all(axis=0))
    observed = values[:, rows, columns]
    observed = observed - observed.mean(axis=1, keepdims=True)
    terms = _list_terms(factors)
    blocks = {term.name: _code_term(term, cells, factors)[rows] for term in terms}
    seeds = _code_sum_to_zero(values.shape[2])[columns]
    constant = np.ones((len(rows), 1))
    full = np.hstack([constant, *blocks.values(), seeds])
    found = []
    for term in terms:
        others = [blocks[other.name] for other in terms if other != term and not term.is_contained_in(other)]
        found.append(_adjust(observed, blocks[term.name], np.hstack([constant, seeds, *others])))
    found.append(_adjust(observed, seeds, np.hstack([constant, *blocks.values()])))
    squares, df, trace = map(np.array, zip(*found, strict=True))
    gain = np.append(trace[:-1] / np.maximum(df[:-1], 1), trace[-1])
    residual = ((observed - _project(observed, full)) ** 2).sum(axis=1)
    names = (*(term.name for term in terms), SEED)
    return SumsOfSquares(names, squares.T, df, gain, residual, len(rows) - int(np.linalg.matrix_rank(full)))


def _list_terms(factors: Sequence[str]) -> tuple[DesignTerm, ...]:
    """Main effects, then interactions of two factors; those of three and more are one term, so that shares stay readable."""
    single = [DesignTerm(factor, ((factor,),)) for factor in factors]
    double = [DesignTerm(" x ".join(pair), (pair,)) for pair in itertools.combinations(factors, 2)]
    higher = [c for size in range(3, len(factors) + 1) for c in itertools.combinations(factors, size)]
    pooled = [DesignTerm(HIGHER if len(higher) > 1 else " x ".join(higher[0]), tuple(higher))] if higher else []
    return (*single, *double, *pooled)


def _adjust(observed: FloatArray, columns: FloatArray, others: FloatArray) -> tuple[FloatArray, float, float]:
    """Sum of squares of `columns` adjusted for `others` (`studies`), its df, and the squared length of the adjusted columns."""
    own = columns - _project(columns.T, others).T
    df = int(np.linalg.matrix_rank(own)) if own.size else 0
    assert df == columns.shape[1], "a term is aliased with others in the runs that were measured"
    return (_project(observed, own) ** 2).sum(axis=1), float(df), float((own**2).sum())


def _project(vectors: FloatArray, columns: FloatArray) -> FloatArray:
    """The projection of each row of `vectors` (`k runs`) onto the span of `columns` (`runs m`)."""
    if columns.shape[1] == 0:
        return np.zeros_like(vectors)
    basis = linalg.orth(columns)
    return np.asarray((vectors @ basis) @ basis.T)


def _code_term(term: DesignTerm, cells: Sequence[CellLevels], factors: Sequence[str]) -> FloatArray:
    """The term's design columns over cells (`cells df`), scaled so that a squared coefficient is a mean squared effect."""
    effects = []
    for effect in term.factors:
        columns = np.ones((len(cells), 1))
        for factor in effect:
            own = [cell[list(factors).index(factor)] for cell in cells]
            levels: list[Level] = list(dict.fromkeys(own))
            contrast = _code_sum_to_zero(len(levels))[[levels.index(level) for level in own]] * np.sqrt(len(levels))
            columns = np.einsum("ca,cb->cab", columns, contrast).reshape(len(cells), -1)
        effects.append(columns)
    return np.hstack(effects)


def _code_sum_to_zero(levels: int) -> FloatArray:
    """Orthonormal contrasts between `levels` (`levels levels-1`), each orthogonal to the mean (Helmert's)."""
    return np.asarray(linalg.helmert(levels), dtype=np.float64).T

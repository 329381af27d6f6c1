"""Group-sequential inference: the seeds of a study come in stages, it is looked at after each, and may stop at any look.

A level of 5 % is spent over the looks (Lan and DeMets): up to look k, with the fraction t of the largest number of seeds, all
tests together err with a probability of `spend(t)`, which grows like O'Brien and Fleming's boundary: hardly at all in the first
looks, so that the last one costs little. From what each look may add follows its nominal level, by recursive integration over
the looks before it (Armitage, McPherson and Rowe). The intervals at nominal levels are *repeated* ones: with a probability of
95 % they hold at all looks at once, so they hold at the look at which the study stops, for whatever reason it does, and
everything that is read off them, equivalence included, is spent for.

Of several primary contrasts each spends its share of the level, by Sidak's inequality, which holds for all of their looks
together however they are correlated (Royen's Gaussian correlation inequality). The recursion takes the looks to be as weakly
correlated as they are where seeds alone vary. Test images are the same at all looks: a mean over n seeds then has the variance
`s^2 / n + v`, and two looks have the correlation `sqrt((s^2 / n_2 + v) / (s^2 / n_1 + v))`, which is larger, so that the looks
err together more often and in fewer studies. Statistics with estimated variances are correlated less than normal ones: against
that, each look's t has one degree of freedom less than a single test's, and a twentieth of the level is left unspent.

Lan & DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 70, 1983; Armitage, McPherson & Rowe, "Repeated
significance tests on accumulating data", JRSS A 132, 1969; Jennison & Turnbull, Group Sequential Methods with Applications to
Clinical Trials, 2000, chapters 7, 9 and 19.
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from study.analysis.cell_grid import FloatArray
from study.analysis.crossed import Estimates
from study.analysis.intervals import CONFIDENCE
from study.analysis.simultaneous import SimultaneousIntervals, share_df, simultaneous_intervals
from study.records import StudyFacts
from study.records.looks import DECIDED

_NODES = 200  # of Gauss-Legendre's rule
_SPENT = 0.95  # of the level: what looks by Student's t with few seeds exceed theirs by, at most
_LARGEST_Z = 40.0  # no nominal level is below that of it, 1e-349
_LEVELS = (1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.03, 1 - CONFIDENCE, 0.1, 0.3, 0.9)
"""Levels of a family between which a p value is interpolated: with the level of all verdicts, so that both agree."""


@dataclass(frozen=True)
class Look:
    """One analysis of a study whose seeds come in stages; `sizes` are the seeds of each cell at all of its planned looks."""

    number: int  # from 1
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        """ "look 2 of 6"."""
        return f"look {self.number} of {len(self.sizes)}"

    @property
    def spent(self) -> float:
        """The part of the level that a family has spent up to this look."""
        return float(spend(np.array(self.sizes[self.number - 1] / self.sizes[-1]), level=_SPENT * (1 - CONFIDENCE)))

    def describe_stop(self, verdicts: Collection[str]) -> str:
        """Why the study stops here or doesn't, by the verdicts of its primary contrasts."""
        undecided = sum(verdict not in DECIDED for verdict in verdicts)
        rule = "Seeds are added in stages until every primary contrast is significant or equivalent"
        if not undecided:
            return f"{rule}: decided at {self.name}, with {self.sizes[self.number - 1]} of at most {self.sizes[-1]} seeds."
        count = f"{rule}: {undecided} of {len(verdicts)} {'is' if undecided == 1 else 'are'} undecided"
        if self.number == len(self.sizes):
            return f"{count} at the last look, with {self.sizes[-1]} seeds."
        return f"{count} at {self.name}, and further seeds follow, {self.sizes[-1]} at most."

    def nominal_level(self, *, contrasts: int, level: float = 1 - CONFIDENCE) -> float:
        """The two-sided level of a single contrast at this look, at which a family of so many keeps `level` over all looks."""
        sizes = self.sizes[: self.number]
        return float(find_nominal_levels(sizes, self.sizes[-1], contrasts=contrasts, level=_SPENT * level)[-1])

    def critical_value(self, df: FloatArray | float, *, contrasts: int) -> FloatArray:
        """The standard errors beyond which a contrast with so many degrees of freedom is significant at this look."""
        return np.asarray(stats.t.isf(self.nominal_level(contrasts=contrasts) / 2, _reduce(df)))


def find_look(facts: StudyFacts, table: pd.DataFrame) -> Look | None:
    """The look that a run table of one sweep is of, by the number of its seeds; None where these don't come in stages."""
    sizes = facts.looks.get(str(table["study"].iloc[0]) if "study" in table else facts.name, [])
    seeds = table["seed"].nunique()
    return Look(sizes.index(seeds) + 1, tuple(sizes)) if seeds in sizes else None


def _reduce(df: FloatArray | float) -> FloatArray:
    """One degree of freedom less than a single test has, since each look has its own estimate of the variance."""
    return np.asarray(np.maximum(np.asarray(df) - 1, 1), dtype=float)


def spend(fraction: FloatArray, *, level: float) -> FloatArray:
    """The part of a two-sided `level` that is spent up to a fraction of the seeds, O'Brien and Fleming's way on each side."""
    return np.asarray(4 * stats.norm.sf(stats.norm.isf(level / 4) / np.sqrt(fraction)))


@functools.cache
def find_nominal_levels(sizes: tuple[int, ...], last: int, *, contrasts: int = 1, level: float = 1 - CONFIDENCE) -> FloatArray:
    """The two-sided nominal levels of a contrast's tests at looks with so many seeds, of at most `last` (`looks`).

    They spend Sidak's share of `level` for a family of so many contrasts.
    """
    fractions = np.asarray(sizes) / last
    spent = -np.expm1(np.log1p(-spend(fractions, level=level)) / contrasts)
    edges: list[float] = []  # |score| at which a look's test rejects; the score has variance `fraction`
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    place, mass = np.zeros(1), np.ones(1)  # where the score is, unrejected, and with which probability
    before = 0.0
    for fraction, added in zip(fractions, np.diff(spent, prepend=0.0), strict=True):
        sd = np.sqrt(fraction - before)
        edge = _find_edge(place, mass, sd, added=max(float(added), np.finfo(float).tiny), most=_LARGEST_Z * np.sqrt(fraction))
        edges.append(edge)
        steps = (edge * nodes[:, None] - place) / sd
        density = np.exp(-(steps**2) / 2) @ mass / (sd * np.sqrt(2 * np.pi))
        place, mass, before = edge * nodes, edge * weights * density, fraction
    return np.asarray(2 * stats.norm.sf(edges / np.sqrt(fractions)))


def _find_edge(place: FloatArray, mass: FloatArray, sd: float, *, added: float, most: float) -> float:
    """The score beyond which, to both sides, the next look has the probability `added`."""

    def miss(edge: float) -> float:
        beyond = mass @ (special.ndtr((place - edge) / sd) + special.ndtr((-edge - place) / sd))
        return float(np.log(max(beyond, np.finfo(float).tiny)) - np.log(added))

    return float(optimize.brentq(miss, 0.0, most, xtol=1e-12)) if miss(most) < 0 else most


def repeated_intervals(estimates: Estimates, look: Look) -> SimultaneousIntervals:
    """Limits that hold at once for all contrasts of a family and at all looks, and p values adjusted for both.

    Student's t at the nominal level, with the smallest degrees of freedom of the contrasts with as many seeds or more. A p
    value is the smallest level at which the interval leaves out 0, interpolated between levels.
    """
    error = estimates.standard_error
    low, high, p = np.full((3, len(error)), np.nan)
    known = error > 0
    if not known.any():
        return SimultaneousIntervals(low, high, p)
    mean, error = estimates.mean[known], error[known]
    df, count = share_df(estimates.select(np.flatnonzero(known))), len(estimates.mean)
    half = look.critical_value(df, contrasts=count) * error
    nominal = np.array([look.nominal_level(contrasts=count, level=level) for level in _LEVELS])
    own = 2 * stats.t.sf(np.abs(mean) / error, _reduce(df))
    low[known], high[known] = mean - half, mean + half
    p[known] = np.exp(np.interp(np.log(np.maximum(own, 1e-300)), np.log(nominal), np.log(_LEVELS), right=0.0))
    return SimultaneousIntervals(low, high, p)


def adjust_family(estimates: Estimates, *, look: Look | None, draws: int) -> SimultaneousIntervals:
    """The intervals of a family that hold at once: at the only analysis of a study, or at a look and all others."""
    return simultaneous_intervals(estimates, draws=draws) if look is None else repeated_intervals(estimates, look)

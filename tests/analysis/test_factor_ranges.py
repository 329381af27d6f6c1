"""Ranges of factors: worked by hand on exact data, found where one factor matters more; null studies: test_headlines."""

import itertools

import numpy as np
import pytest

from study.analysis import factor_ranges
from study.analysis.cell_grid import Grid
from study.analysis.factor_ranges import DesignRanges, RangeComparison, estimate_ranges, is_reversed_by_divergence
from study.analysis.simultaneous import simultaneous_intervals

FACTORS = ("patch_size", "token_mixer")
DRAWS = 4000
CELLS = tuple(itertools.product((1, 2, 4), ("attention", "conv", "mlp")))


def as_grid(correct: np.ndarray, *, cells: tuple[tuple[int, str], ...] = CELLS, kept: bool = True) -> Grid:
    """A study in which every run is done, from its correctness `cells seeds images`, which the grid has where `kept`."""
    values = correct.mean(axis=2)
    status = np.full(values.shape, "done", dtype="<U16")
    seeds = tuple(range(values.shape[1]))
    found = correct.astype(bool) if kept else None
    return Grid(FACTORS, cells, seeds, values, status, correct.shape[2], 0.1, found)


def mark(grid: Grid, status: str, *places: tuple[int, int]) -> Grid:
    for place in places:
        grid.values[place], grid.status[place] = np.nan, status
        if grid.correct is not None:
            grid.correct[place] = False
    return grid


def exact(means: np.ndarray, *, seeds: int = 3, images: int = 100) -> np.ndarray:
    """Correctness of these accuracies in all seeds, up to one image more in one seed, since equal runs have no interval."""
    counts = np.rint(images * np.ravel(means))[:, None] + np.eye(seeds)[np.arange(means.size) % seeds]
    return (np.arange(images) < counts[..., None]).astype(float)


def simulate(rng: np.random.Generator, *, rows: float, columns: float, seeds: int, images: int = 400) -> np.ndarray:
    """Correctness `cells n m`: additive effects of these ranges about 75 %, per-image difficulty, seeds of sd 1.5 points."""
    effects = np.array([rows * (i - 1) / 2 + columns * (j - 1) / 2 for i in range(3) for j in range(3)])[:, None, None]
    seed = 0.015 * rng.normal(size=(9, seeds, 1))
    image = 0.3 * rng.normal(size=(1, 1, images)) + 0.15 * rng.normal(size=(9, 1, images))
    return (rng.random((9, seeds, images)) < 0.75 + effects + seed + image).astype(float)


def estimate_one(grid: Grid) -> DesignRanges:
    (found,) = estimate_ranges(grid, draws=DRAWS)
    return found


def compare(correct: np.ndarray, *, kept: bool = True) -> RangeComparison:
    found = estimate_one(as_grid(correct, kept=kept)).comparison
    assert found is not None
    return found


def test_estimates_are_those_of_the_cell_means() -> None:
    """Means of 2, 4, 6 tenths over rows and 3, 4, 5 over columns: ranges of 4 and 2, also with a level left out."""
    means = np.array([0.1, 0.2, 0.3, 0.3, 0.4, 0.5, 0.5, 0.6, 0.7])
    correct = exact(means, images=1000)
    found = estimate_one(as_grid(correct))
    patch, mixer = found.ranges
    assert (patch.best, patch.worst, mixer.best, mixer.worst) == (4, 1, "mlp", "attention")
    assert [patch.bounds.value, mixer.bounds.value] == pytest.approx([0.4, 0.2], abs=0.001)
    assert found.comparison is not None and found.comparison.difference.value == pytest.approx(0.2, abs=0.001)
    cases = {case.left_out: case for case in found.comparison.cases}
    assert cases["patch_size", 1].ranges == pytest.approx((0.2, 0.2), abs=0.001)
    assert cases["patch_size", 2].difference == pytest.approx(0.2, abs=0.001)
    assert cases["token_mixer", "mlp"].difference == pytest.approx(0.3, abs=0.001)
    own = correct.mean(axis=(1, 2))
    logit = np.log(own / (1 - own)).reshape(3, 3)
    assert cases[None].ranges == pytest.approx((np.ptp(logit.mean(axis=1)), np.ptp(logit.mean(axis=0))))


def test_a_sign_that_hangs_on_one_level_is_no_claim() -> None:
    """Ranges of 40 and 20 points that patch size 1 alone makes different: significant, and not claimed."""
    patch, mixer = np.array([0.0, 0.38, 0.4]), np.array([0.0, 0.1, 0.2])
    found = compare(exact(0.2 + patch[:, None] + mixer, seeds=5, images=4000))
    assert found.sign == 1
    assert [case.left_out for case in found.reversals] == [("patch_size", 1)]
    assert found.larger is None


def test_bounds_of_the_difference_are_those_of_all_pairs() -> None:
    """By brute force over every ordered pair of levels of both factors, from the same simultaneous limits."""
    correct = simulate(np.random.default_rng(3), rows=0.1, columns=0.05, seeds=4)
    grid = as_grid(correct)
    found = compare(correct)
    levels = [
        np.array([[cell[place] == level for cell in CELLS] for level in grid.levels(FACTORS[place])]) / 3 for place in (0, 1)
    ]
    ordered = [[one[a] - one[b] for a, b in itertools.permutations(range(3), 2)] for one in levels]
    unordered = [[one[a] - one[b] for a, b in itertools.combinations(range(3), 2)] for one in levels]
    family = [*unordered[0], *unordered[1]]
    family += [a + sign * b for sign in (-1, 1) for a, b in itertools.product(*unordered)]
    estimate = factor_ranges.estimate_weighted_means(grid, np.array(family))
    together = simultaneous_intervals(estimate, draws=DRAWS)
    critical = (together.high - together.low)[0] / estimate.standard_error[0] / 2
    limits = []
    for sign in (-1, 1):
        estimate = factor_ranges.estimate_weighted_means(grid, np.array([a - b for a, b in itertools.product(*ordered)]))
        ends = (estimate.mean + sign * critical * estimate.standard_error).reshape(6, 6)
        limits.append(ends.min(axis=1).max())
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(limits))


def test_a_factor_that_matters_more_is_named() -> None:
    """With and without correctness per image."""
    rng = np.random.default_rng(22)
    for kept in (True, False):
        claims = [compare(simulate(rng, rows=0.16, columns=0.01, seeds=10), kept=kept).larger for _ in range(15)]
        assert claims.count("patch_size") >= 13 and "token_mixer" not in claims


def test_bounds_cover_the_true_range() -> None:
    """Of studies with ranges of 10 and 4 points at least 93 % bound both and their difference."""
    rng, studies, covered = np.random.default_rng(23), 60, 0
    for _ in range(studies):
        found = estimate_one(as_grid(simulate(rng, rows=0.10, columns=0.04, seeds=5)))
        assert found.comparison is not None
        bounds = [*(own.bounds for own in found.ranges), found.comparison.difference]
        covered += all(own.low <= value <= own.high for own, value in zip(bounds, (0.10, 0.04, 0.06), strict=True))
    assert covered / studies >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / studies)


def test_controls_are_in_no_range() -> None:
    """A mixer that is there to be poor, 30 points below the others, changes nothing."""
    cells = tuple(itertools.product((1, 2, 4), ("attention", "conv", "identity", "mlp")))
    correct = simulate(np.random.default_rng(4), rows=0.1, columns=0.02, seeds=3)
    poor = np.insert(correct, (2, 5, 8), correct[:3] * (np.arange(400) < 200), axis=0)
    found = estimate_one(as_grid(poor, cells=cells))
    assert [own.bounds for own in found.ranges] == [own.bounds for own in estimate_one(as_grid(correct)).ranges]
    assert found.left_out == ()


def test_an_empty_cell_can_be_avoided_in_two_ways() -> None:
    """A cell without runs leaves two designs of six cells, each of which says what it lacks and neither of which compares."""
    correct = simulate(np.random.default_rng(5), rows=0.1, columns=0.02, seeds=4)
    found = estimate_ranges(mark(as_grid(correct), "failed", *((0, seed) for seed in range(4))))
    assert {design.left_out for design in found} == {(("patch_size", 1),), (("token_mixer", "attention"),)}
    assert all(design.comparison is None for design in found)  # one factor keeps two levels


def test_missing_runs_leave_the_seeds_that_all_cells_have() -> None:
    correct = simulate(np.random.default_rng(6), rows=0.1, columns=0.02, seeds=5)
    whole = estimate_one(as_grid(correct[:, 1:]))
    found = estimate_one(mark(as_grid(correct), "missing", (3, 0)))
    assert (found.n, found.images, found.ranges) == (4, 400, whole.ranges)


def test_a_diverged_run_that_could_reverse_the_difference_does() -> None:
    """At chance, one run of five moves a patch size by five points: enough against 2 points more, not against 20."""
    for rows, reversed_ in ((0.06, True), (0.30, False)):
        correct = exact(0.5 + np.add.outer([-rows / 2, 0, rows / 2], [-0.01, 0, 0.01]), seeds=5, images=1000)
        grid = mark(as_grid(correct), "diverged", (8, 2))
        assert compare(correct).larger == "patch_size"
        assert is_reversed_by_divergence(grid, FACTORS, sign=1) == reversed_


def test_a_cell_that_diverged_in_all_seeds_counts_in_its_worst_and_best_case() -> None:
    correct = exact(0.5 + np.add.outer([-0.15, 0, 0.15], [-0.01, 0, 0.01]), seeds=5, images=1000)
    grid = mark(as_grid(correct), "diverged", *((8, seed) for seed in range(5)))
    assert is_reversed_by_divergence(grid, FACTORS, sign=1)


def test_diverged_runs_that_leave_two_levels_of_a_factor_could_reverse_anything() -> None:
    """Law: with bounds in place of diverged runs, a part of two levels may be the largest; nothing is claimed from it."""
    cells = tuple(itertools.product((1, 2, 4), "abcdef"))
    means = 0.6 + np.array([0.2, 0.0, -0.2])[:, None] + np.array([0.01, 0.0, -0.01, 0.0, 0.0, 0.0])
    grid = as_grid(exact(means, images=1000), cells=cells)
    mark(grid, "failed", *((place, seed) for place in (15, 16, 17) for seed in range(3)))
    mark(grid, "diverged", *((place, seed) for place in (3, 4, 5, 9, 10, 11) for seed in range(3)))
    assert estimate_one(grid).comparison is not None  # three levels of each were measured
    assert is_reversed_by_divergence(grid, FACTORS, sign=1)

"""Shares have every run once, are balanced, ordered by seed, and keep architectures together."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from study.launcher.load_balance import balance_load


def make_run(run_id: str, seed: int, architecture: str, cost: float) -> SimpleNamespace:
    """What a planned run is to the balance."""
    return SimpleNamespace(run_id=run_id, run=SimpleNamespace(seed=seed), architecture=architecture, cost=cost)


def balance(runs, workers):
    """Shares of run ids."""
    shares = balance_load(runs, {each.run_id: each.cost for each in runs}, workers=workers)
    return [[each.run_id for each in share] for share in shares]


LOADS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abc"), st.floats(0.1, 100)), min_size=1, max_size=40).map(
    lambda rows: [make_run(f"run{n}", seed, architecture, cost) for n, (seed, architecture, cost) in enumerate(rows)]
)


@settings(deadline=None)
@given(loads=LOADS, workers=st.integers(1, 8))
def test_every_run_is_in_exactly_one_share(loads, workers):
    """Nothing is lost, nothing is doubled, no share is empty, and the outcome is a function of the input."""
    shares = balance(loads, workers)
    assert sorted(run for share in shares for run in share) == sorted(load.run_id for load in loads)
    assert all(shares)
    assert len(shares) <= workers
    assert shares == balance(loads, workers)


@settings(deadline=None)
@given(loads=LOADS, workers=st.integers(1, 8))
def test_a_share_is_ordered_by_seed(loads, workers):
    """Within a share seeds don't interleave; within a seed, expensive runs come first."""
    by_id = {load.run_id: load for load in loads}
    first_seen = list(dict.fromkeys(load.run.seed for load in loads))
    for share in balance(loads, workers):
        ranks = [first_seen.index(by_id[run].run.seed) for run in share]
        assert ranks == sorted(ranks)


@settings(deadline=None)
@given(loads=LOADS, workers=st.integers(1, 8))
def test_shares_are_balanced(loads, workers):
    """Greedy assignment: no share exceeds the mean by more than one longest run per seed."""
    by_id = {load.run_id: load for load in loads}
    sums = [sum(by_id[run].cost for run in share) for share in balance(loads, workers)]
    longest = max(load.cost for load in loads)
    seeds = len({load.run.seed for load in loads})
    assert max(sums) <= sum(sums) / workers + seeds * longest + 1e-9


def test_equal_architectures_are_adjacent():
    """Two architectures of two seeds on one worker: seeds in order, architectures grouped inside each."""
    loads = [make_run(f"{a}{s}", s, a, 1.0) for s in (0, 1) for a in ("x", "y", "x", "y")]
    (share,) = balance(loads, 1)
    assert [run[0] for run in share] == ["x", "x", "y", "y"] * 2

"""Contestants take turns fairly, ratios are taken within rounds, and peers train the same models."""

from __future__ import annotations

import json
import sys
import zipfile
from contextlib import contextmanager

import pytest
import torch

from benchmarks import cpu, gpu, limits, wheels
from benchmarks.peers import plain_step, usual_epoch
from benchmarks.subjects import SUBJECTS, facts_of, run_of
from benchmarks.turns import Lap, LocalContestant, Timing, ratio, start_processes, take_turns
from study.data.splits import make_random_splits
from study.data.torchvision_schema import declare_missing_operators

declare_missing_operators()


class Scripted:
    """A contestant whose turns are known, and which records its turns."""

    def __init__(self, name: str, seconds: list[float], turns: list[tuple[str, int]]):
        self.name, self.seconds, self.turns, self.description = name, iter(seconds), turns, f"described as {name}"

    def lap(self, calls: int) -> Lap:
        self.turns.append((self.name, calls))
        seconds = next(self.seconds)
        return Lap(seconds, seconds * 2)


def test_rounds_alternate_their_order():
    """Who goes first in one round goes last in the next, and each makes its number of calls."""
    turns: list[tuple[str, int]] = []
    contestants = {name: Scripted(name, [1.0] * 3, turns) for name in "abc"}
    timings = take_turns(contestants, rounds=3, calls={"b": 7}, others=2)
    assert [name for name, _ in turns] == list("abccbaabc")
    assert dict(turns) == {"a": 2, "b": 7, "c": 2}
    assert timings["a"].description == "described as a" and len(timings["a"].laps) == 3


def test_a_ratio_is_the_median_within_rounds():
    """A machine that slows both down tenfold in one round changes nothing; medians of each alone would."""
    slow = Timing("slow", "", tuple(Lap(s, 0.0) for s in (2.0, 20.0, 4.0)))
    fast = Timing("fast", "", tuple(Lap(s, 0.0) for s in (1.0, 10.0, 1.0)))
    assert ratio(slow, fast).median == 2.0
    assert (ratio(slow, fast).lower, ratio(slow, fast).upper) == (2.0, 3.0)


def sleeping() -> tuple[object, str]:
    return (lambda: sum(range(10**5))), f"{torch.get_num_threads()} threads"


def test_contestants_in_processes_have_one_each():
    """With the threads they were given; the processes are gone afterwards."""
    with start_processes({"one": sleeping, "two": sleeping}, threads=1) as started:
        timings = take_turns(started, rounds=2)
        processes = [contestant.process for contestant in started.values()]
        assert len({process.pid for process in processes}) == 2
    assert not any(process.is_alive() for process in processes)
    assert timings["one"].description == "1 threads" and all(lap.seconds > 0 for lap in timings["two"].laps)


@pytest.mark.parametrize("name", SUBJECTS)
def test_peer_and_project_train_the_same_model(name):
    """As many parameters, to the last one."""
    cpu.assert_same_model(SUBJECTS[name])


def test_limits_are_arithmetic():
    """Six operations per MAC, and six passes of four bytes over what convolutions and linear layers write."""
    spec = run_of(SUBJECTS["convmixer_k5"], batch_size=1, precision="fp32").model
    arithmetic, memory = limits.Limits(operations=1e9, bytes=1e9).step_seconds(spec, 2)
    assert arithmetic == pytest.approx(2 * 6 * 148_113_920 / 1e9)
    assert memory == pytest.approx(2 * 6 * 4 * (17 * 256 * 16**2 + 10) / 1e9)


def test_the_usual_loop_counts_what_it_saw():
    """Mean loss over images, not over batches, and hits between none and all."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4, 10))
    step = plain_step(model, device=torch.device("cpu"), precision="fp32")
    batches = [(torch.randn(count, 3, 2, 2), torch.arange(count) % 10) for count in (4, 2)]
    loss, hits = usual_epoch(step, batches, device=torch.device("cpu"))
    assert 0 < loss < 20 and 0 <= hits <= 6


@contextmanager
def in_this_process(prepared, *, threads):
    """Stands for `start_processes`, without the seconds that each process takes to import torch."""
    yield {name: LocalContestant(prepare) for name, prepare in prepared.items()}


@pytest.mark.parametrize("separate", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["here", "in processes"])
def test_a_toy_benchmark_prints_targets_limits_and_shares(tmp_path, monkeypatch, capsys, separate):
    """One round over one toy model: a table, a summary, and JSON with every turn."""
    if not separate:
        monkeypatch.setattr(cpu, "start_processes", in_this_process)
        monkeypatch.setattr(limits, "SIDE", {"cpu": 64})
        monkeypatch.setattr(limits, "COPIED", {"cpu": 2**16})
    out = tmp_path / "found.json"
    assert cpu.main(["toy_convmixer", "--batch-size", "4", "--rounds", "1", "--threads", "1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "x peer (b) contiguous eager" in printed and "of the machine's limit" in printed
    (measured,) = json.loads(out.read_text())["measured"]
    assert set(measured["timings"]) >= {"ours", "timm contiguous", "timm channels_last", "data and augmentation"}
    assert all(len(timing["laps"]) == 1 for timing in measured["timings"].values())


def test_a_part_that_fails_costs_no_other():
    """Its error becomes its row."""

    def broken(request):
        raise RuntimeError("no such kernel\nand much more")

    assert gpu.run_part("broken", broken, None) == [{"failed": "RuntimeError: no such kernel"}]


def test_missing_packages_come_from_wheels(tmp_path, monkeypatch):
    """A package that isn't installed is imported from a wheel; without wheels the error names it."""
    monkeypatch.setattr(wheels, "NEEDED", ("brought_along",))
    monkeypatch.setattr(wheels, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit, match="brought_along is not installed"):
        wheels.unpack_missing()
    with zipfile.ZipFile(tmp_path / "brought_along-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("brought_along.py", "HERE = True")
    wheels.unpack_missing()
    import brought_along

    assert brought_along.HERE


def test_a_contestant_warms_up():
    """A contestant's first calls are no turn."""
    calls = []
    here = LocalContestant(lambda: (lambda: calls.append(1), "description"), warm_up=3)
    assert len(calls) == 3
    here.lap(4)
    assert len(calls) == 7


def test_random_images_have_the_runs_shape():
    """The noise that stands for CIFAR-10 fits the run."""
    run = run_of(SUBJECTS["toy_vit"], batch_size=4, precision="fp32", images=8)
    assert make_random_splits(facts_of(run), images=8).train.images.shape == (8, 3, 32, 32)

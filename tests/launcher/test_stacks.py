"""Runs that a benchmark found faster together train as one stack, and lose nothing by it: not to kills, not to each other."""

from __future__ import annotations

import json
import os
import signal
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typed_commands import Typed, typed, wait_until, worker_processes

from study.config.sweep_file import read_sweep
from study.launcher.liveness import life_of
from study.launcher.stacks import cut, kinds, stacks, under_way
from study.launcher.sweep_status import running_now
from study.planning.planned_run import PlannedRun
from study.planning.sweep_plan import make_plan
from study.records import load_curves, load_table
from study.records.benchmark_file import Benchmark, InputSpeed, Speed, StackSpeed
from study.records.journal import DEATHS_ALLOWED
from study.records.ledger import Withdrawals, read_launch, read_share, withdraw
from study.records.record import Record
from study.records.sweep_folder import Lines, SweepFolder, Writer, write_whole
from study.training.fingerprint import processor_name
from study.worker.share import Worker, stacks_of

SWEEP = """\
question: does a stack train what its runs train alone?
device: cpu
data: {name: digits, train_images: 300}
model: {depth: 1, patch_size: 4}
train: {epochs: EPOCHS, batch_size: 50, lr: 3e-3}
backbones: {convmixer: {model: {kernel_size: 3}}}
match: {by: params, target: 6k, head_dim: 8}
axes:
  backbone: [convmixer, vit]
seeds: [0, 1, 2]
"""
OUTCOME = ["run_id", "status", "stacked", "val_accuracy", "val_loss", "test_accuracy", "test_loss"]


def planned_runs(folder: Path, *, epochs: int = 3, text: str = SWEEP) -> list[PlannedRun]:
    folder.mkdir(exist_ok=True)
    (folder / "sweep.yaml").write_text(text.replace("EPOCHS", str(epochs)))
    return list(make_plan(read_sweep(folder / "sweep.yaml")).runs)


def measured(runs: list[PlannedRun], gains: dict[int, float]) -> Benchmark:
    """A made-up benchmark of this machine's processor, by which stacks gain so much with every architecture."""
    speeds, found = [], []
    for planned in {p.architecture: p for p in runs}.values():
        run = planned.run
        known = {
            "label": planned.label,
            "backbone": run.backbone,
            "model": run.model.model_dump(mode="json"),
            "precision": "fp32",
            "batch_size": run.train.batch_size,
        }
        speeds.append(
            Speed(
                **known,
                memory_layout="contiguous",
                train_step_seconds=(0.001,),
                inference_step_seconds=(0.001,),
                inference_latency_seconds=(0.001,),
                peak_memory_mib=None,
            )
        )
        found += [StackSpeed(**known, size=size, train_step_seconds=(0.001 * size / gain,)) for size, gain in gains.items()]
    augment = runs[0].run.augment.model_dump(mode="json")
    fed = InputSpeed(augment=augment, channels=1, image_size=8, images_per_second=(1e12,))
    return Benchmark(
        sweep="sweep",
        began="2026-01-02T10:15:00Z",
        rounds=1,
        device="cpu",
        device_name=processor_name(),
        fingerprint={},
        provenance={},
        architectures=tuple(speeds),
        inputs=(fed,),
        stacks=tuple(found),
    )


# ---- Which runs stand together ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> list[PlannedRun]:
    """Ten seeds and two rates of two backbones."""
    text = SWEEP.replace(", lr: 3e-3", "").replace("[0, 1, 2]", "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]")
    text = text.replace("  backbone: [convmixer, vit]", "  backbone: [convmixer, vit]\n  train.lr: [1e-3, 3e-3]")
    return planned_runs(tmp_path_factory.mktemp("many"), text=text)


def test_runs_that_differ_in_seed_and_rate_are_of_one_kind(many):
    """Two backbones: two kinds of twenty. Another batch size, crop or number of epochs is another kind."""
    assert [len(kind) for kind in kinds(many)] == [20, 20]
    run = many[0].run
    for changed in (
        replace(run, train=run.train.model_copy(update={"batch_size": 25})),
        replace(run, train=run.train.model_copy(update={"epochs": 4})),
        replace(run, augment=run.augment.model_copy(update={"crop": 1})),
    ):
        assert len(kinds([many[0], replace(many[1], run=changed)])) == 2
    for refused in ({"accumulate": 2}, {"stochastic_depth": 0.1}, {"distributed": "ddp"}):
        assert kinds([replace(many[0], run=replace(run, train=run.train.model_copy(update=refused)))]) == []


SIZES = st.dictionaries(st.integers(2, 9), st.floats(1.16, 9.0), max_size=4)


@settings(deadline=None)
@given(data=st.data(), count=st.integers(1, 20), workers=st.integers(1, 12), alone=st.integers(0, 5), gains=SIZES)
def test_every_run_is_in_one_stack_that_is_no_longer_than_a_workers_part(many, data, count, workers, alone, gains):
    """Whatever pays and whatever runs cost: nothing is lost or doubled, and sizes are those that pay."""
    runs = many[:count]
    single = {planned.run_id for planned in runs[:alone]}
    costs = {planned.run_id: data.draw(st.floats(0.1, 10.0)) for planned in runs}
    found = stacks(runs, measured(many, gains), costs=costs, workers=workers, alone=single)
    assert Counter(planned.run_id for stack in found for planned in stack) == Counter(planned.run_id for planned in runs)
    assert {len(stack) for stack in found} <= gains.keys() | {1}
    assert all(len(stack) == 1 for stack in found for planned in stack if planned.run_id in single)
    assert all(len({planned.run.backbone for planned in stack}) == 1 for stack in found)
    for stack in found:
        seconds = sum(costs[planned.run_id] for planned in stack) / gains.get(len(stack), 1.0)
        assert len(stack) == 1 or seconds <= sum(costs.values()) / workers * (1 + 1e-9)


def test_only_what_pays_is_stacked(many):
    """A gain of 1.15 is not enough, more is; without a benchmark nothing is."""
    costs = {planned.run_id: 1.0 for planned in many}
    for benchmark in (measured(many, {2: 1.15, 4: 1.1}), None):
        assert {len(stack) for stack in stacks(many, benchmark, costs=costs, workers=1, alone=set())} == {1}
    found = stacks(many, measured(many, {2: 1.2, 4: 1.1, 8: 1.3}), costs=costs, workers=1, alone=set())
    assert sorted(len(stack) for stack in found if stack[0].run.backbone == "vit") == [2, 2, 8, 8]


def all_cuts(count: int, sizes: list[int]) -> list[list[int]]:
    """Every way to write a number as a sum of sizes, as the oracle."""
    return [[]] if not count else [[size, *rest] for size in sizes if size <= count for rest in all_cuts(count - size, sizes)]


@settings(deadline=None, max_examples=40)
@given(count=st.integers(1, 9), gains=SIZES)
def test_runs_are_cut_into_the_sizes_that_take_the_least_time(many, count, gains):
    """Against all ways there are; seeds stay together."""
    found = cut(kinds(many)[0][:count], gains)
    took = [sum(size / {1: 1.0, **gains}[size] for size in sizes) for sizes in all_cuts(count, [1, *gains])]
    assert sum(len(stack) / {1: 1.0, **gains}[len(stack)] for stack in found) == pytest.approx(min(took))
    seeds = [planned.run.seed for stack in found for planned in stack]
    assert seeds == sorted(seeds)


def test_a_stack_goes_on_as_it_was_or_not_at_all(many):
    """Begun as [0, 1, 2]: again so while each of them is left or recorded, and at least one is left; else it's no stack."""
    plan = {planned.run_id: planned for planned in many}
    ids = list(plan)[:3]
    begun = dict.fromkeys(ids, tuple(ids)) | {list(plan)[5]: (list(plan)[5],)}
    for left, settled, whole in (
        ({*ids}, set(), True),
        ({*ids[1:]}, {ids[0]}, True),
        ({*ids[1:]}, set(), False),  # the first is somebody else's now
        (set(), {*ids}, False),
    ):
        found = under_way(begun, plan, left=left, settled=settled)
        assert [[planned.run_id for planned in stack] for stack in found] == [ids] * whole
    assert under_way(begun, {run_id: plan[run_id] for run_id in ids[1:]}, left={*ids}, settled=set()) == []


def test_the_gain_is_that_of_whole_steps(many):
    """Images cost the same in a stack: steps of 1 ms, four at once in 2 ms, and images for 1 ms a step make 8 / 6."""
    benchmark = measured(many, {4: 2.0})
    (fed,) = benchmark.inputs
    slow = benchmark.model_copy(update={"inputs": (fed.model_copy(update={"images_per_second": (50_000.0,)}),)})
    assert benchmark.stack_gains(many[0].run.to_json()) == {4: pytest.approx(2.0)}
    assert slow.stack_gains(many[0].run.to_json()) == {4: pytest.approx(8 / 6)}


# ---- What a worker does with a stack -----------------------------------------------------------------------------------


class Tensors:
    """Stands for what fills a device's memory."""


@dataclass
class Witness:
    """Stands for the trainer: notes which runs it is asked to train, together or alone; stacks fail if they are to."""

    stacks_fail: bool = False
    asked: list[tuple[str, ...]] = field(default_factory=list)
    stacked: list[int] = field(default_factory=list)
    withdraw: Callable[[], None] = lambda: None  # what happens meanwhile
    held: weakref.ref[Tensors] | None = None  # what the frames of the failed stack held

    def saved_step(self, run_ids: Any) -> int:
        assert run_ids
        return 0

    def reason(self, error: Exception) -> str:
        return str(error)

    def release(self) -> None: ...

    def can_stack(self, stack: Any, left: Any) -> bool:
        return True

    def train(
        self, stack: Any, *, begun: tuple[str, ...], ended: Callable[[Record], None], stop: Callable[[], bool], log: str
    ) -> None:
        self.withdraw()
        if stop():
            self.asked.append(())
            return
        self.asked.append(begun)
        self.stacked.append(len(stack))
        assert self.held is None or self.held() is None, "a failed stack is still in memory"
        if len(stack) > 1 and self.stacks_fail:
            tensors = Tensors()
            self.held = weakref.ref(tensors)
            ended(recorded(begun[0]))
            raise RuntimeError("out of memory, for one")
        for run_id in begun:
            ended(recorded(run_id))

    def failure(self, planned: dict[str, Any], *, reason: str, log: str) -> Record:
        raise AssertionError(reason)

    def forget(self, run_id: str) -> None: ...


def recorded(run_id: str) -> Record:
    return Record(
        run_id,
        "done",
        run={},
        cost={},
        match={},
        result={"val_accuracy": 0.5, "test_accuracy": 0.5},
        measured={"train_seconds": 1.0},
    )


@dataclass
class Noted:
    """Stands for the journal."""

    lines: list[tuple[str, str, str]] = field(default_factory=list)

    def note(self, event: str, *, run_id: str = "", step: int = 0, reason: str = "") -> None:
        self.lines.append((event, run_id, reason))


def train_three(folder: Path, witness: Witness, *, deaths: int = 0, gone: str = "") -> Noted:
    """What a worker notes of a share that is one stack of three, whose runs took workers down so many times each."""
    place, noted = SweepFolder(folder), Noted()
    worker = Worker(
        place,
        Writer("launch", 0, 0),
        noted,
        stop=lambda: False,
        log="",
        recorded={},  # type: ignore[arg-type]
        deaths=dict.fromkeys("abc", deaths),
        failures={},
        withdrawals=Withdrawals(place, "launch"),
    )
    share = [
        {"run_id": run_id, "stack": {"device_name": "abacus", "runs": ["a", "b", "c"]}, "handed_on": run_id in gone}
        for run_id in "abc"
    ]
    try:
        worker.train_share(share, witness)  # type: ignore[arg-type]
    finally:
        if worker._records is not None:
            worker._records.close()
    return noted


@pytest.mark.parametrize("deaths", range(DEATHS_ALLOWED))
def test_the_last_try_is_alone(tmp_path, deaths):
    """A stack that took its worker down twice is tried run by run: so one that kills is known by its name."""
    witness = Witness()
    train_three(tmp_path, witness, deaths=deaths)
    assert witness.asked == ([("a", "b", "c")] if deaths < DEATHS_ALLOWED - 1 else [("a",), ("b",), ("c",)])


def test_what_fails_together_is_tried_alone(tmp_path):
    """The stack raises after one of its runs ended: the other two train by themselves, with the memory that it held, and none
    is recorded as failed."""
    witness = Witness(stacks_fail=True)
    noted = train_three(tmp_path, witness)
    assert witness.asked == [("a", "b", "c"), ("b",), ("c",)]
    stops = [line for line in noted.lines if line[0] == "stop"]
    assert stops == [("stop", "b", "its stack failed"), ("stop", "c", "its stack failed")]


def test_what_is_no_longer_ours_keeps_its_place_only(tmp_path):
    """A run that was handed to a newer launch, and one that was withdrawn, aren't trained; the stack is one all the same."""
    (tmp_path / "launches/launch").mkdir(parents=True)
    withdraw(SweepFolder(tmp_path), "launch", ["c"])
    witness = Witness()
    train_three(tmp_path, witness, gone="a")
    assert witness.asked == [("b",)] and witness.stacked == [3]


@pytest.mark.parametrize(("gone", "asked"), [("b", [(), ("a", "c")]), ("abc", [()])])
def test_what_is_withdrawn_amid_training_is_let_go(tmp_path, monkeypatch, gone, asked):
    """The stack is interrupted; those that nobody withdrew go on together, if there are any."""
    (tmp_path / "launches/launch").mkdir(parents=True)
    monkeypatch.setattr("study.records.ledger.LOOK_EVERY_S", 0.0)
    witness = Witness()
    if gone:
        witness.withdraw = lambda: gone not in seen and (seen.append(gone), withdraw(SweepFolder(tmp_path), "launch", [*gone]))
    seen: list[str] = []
    noted = train_three(tmp_path, witness)
    assert witness.asked == asked
    assert [line[1] for line in noted.lines if line == ("stop", line[1], "withdrawn")] == ["a", "b", "c"]


def test_a_stack_that_is_over_is_passed_by(tmp_path):
    """All of it is somebody else's or withdrawn: nothing is trained, and the worker goes on."""
    (tmp_path / "launches/launch").mkdir(parents=True)
    withdraw(SweepFolder(tmp_path), "launch", ["c"])
    witness = Witness()
    train_three(tmp_path, witness, gone="ab")
    assert witness.asked == []


def test_a_record_that_cannot_be_written_is_no_runs_failure(tmp_path, monkeypatch):
    """A full disk ends the worker: no run is recorded as failed, none loses its checkpoints or is trained again by it."""
    witness = Witness()

    def refuse(_lines: Lines, _document: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Lines, "append", refuse)
    with pytest.raises(OSError, match="No space"):
        train_three(tmp_path, witness)
    assert witness.asked == [("a", "b", "c")]


# ---- A launch with stacks, killed and cancelled ------------------------------------------------------------------------


LONG: dict[str, Any] = {"epochs": 200, "text": SWEEP.replace("[convmixer, vit]", "[convmixer]")}


def launch(folder: Path, *, epochs: int, stacked: bool = True, text: str = SWEEP) -> Typed:
    """A launch by workers of one thread, to which the benchmark says that three runs at once pay."""
    runs = planned_runs(folder, epochs=epochs, text=text)
    place = SweepFolder(folder / "runs/sweep").benchmarks
    place.mkdir(parents=True, exist_ok=True)
    if stacked:
        write_whole(place / "20260102t101500-here.json", measured(runs, {3: 3.0}).model_dump_json())
    workers = f"--workers {len(os.sched_getaffinity(0))}"
    return typed(f"launch sweep.yaml --cluster local {workers}", folder=folder, environment=dict(os.environ))


def finished(folder: Path, *, epochs: int = 3, stacked: bool = True, text: str = SWEEP):
    """The table and the curves of a launch that has ended, and what it printed."""
    process = launch(folder, epochs=epochs, stacked=stacked, text=text)
    assert process.wait() == 0, process.printed
    return table_of(folder), load_curves(folder / "runs/sweep"), process.printed


def table_of(folder: Path):
    return load_table(folder / "runs/sweep")[OUTCOME].sort_values("run_id", ignore_index=True)


def said(folder: SweepFolder) -> dict[str, Any]:
    """What the worker says it is at."""
    texts = [path.read_text() for path in folder.progress.glob("*.json")]
    return json.loads(texts[-1]) if texts else {}


@pytest.mark.xdist_group("launch")
def test_a_launch_stacks_what_pays_and_comes_to_the_same(tmp_path):
    """Six runs in two stacks of three: told, recorded as such, and equal to six runs alone within rounding."""
    table, curves, printed = finished(tmp_path / "stacked")
    alone, alone_curves, quiet = finished(tmp_path / "alone", stacked=False)
    assert "6 of 6 runs train in 2 stacks" in printed and "stacks" not in quiet
    assert table["stacked"].eq(3).all() and alone["stacked"].eq(1).all() and table["status"].eq("done").all()
    assert table["run_id"].equals(alone["run_id"])
    for name in ("train_loss", "val_loss"):
        assert (curves[name] - alone_curves[name]).abs().max() < 1e-3
    assert not list((tmp_path / "stacked/runs/sweep/checkpoints").glob("*"))
    folder = SweepFolder(tmp_path / "stacked/runs/sweep")
    (launch_id,) = folder.launch_ids()
    shares = [read_share(folder, (launch_id, task)) for task in range(read_launch(folder, launch_id).tasks)]
    assert [len(stack) for share in shares for stack in stacks_of(share)] == [3, 3]


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """The table, the curves and the folder of one stack of three that nothing disturbed, and that is met amid training."""
    folder = tmp_path_factory.mktemp("twin")
    return *finished(folder, **LONG)[:2], folder


@pytest.mark.xdist_group("launch")
def test_a_killed_stack_ends_with_the_bits_of_its_twin(tmp_path, twin):
    """kill -9 in the middle of a stack: status had shown all three as running; the launch starts the worker again."""
    process, folder = launch(tmp_path, **LONG), SweepFolder(tmp_path / "runs/sweep")
    wait_until(lambda: said(folder).get("epoch", 0) > 1)
    running = running_now(folder, life_of(folder))
    assert len(running) == 3 and {each.epochs for each in running.values()} == {LONG["epochs"]}
    (worker,) = worker_processes(tmp_path)
    os.kill(worker, signal.SIGKILL)
    assert process.wait() == 0, process.printed
    assert table_of(tmp_path).equals(twin[0]) and load_curves(tmp_path / "runs/sweep").equals(twin[1])


@pytest.mark.xdist_group("launch")
def test_a_stack_whose_launch_was_killed_goes_on_as_it_was(tmp_path, twin):
    """Ctrl-C amid a stack, one of whose runs has its record: the next launch hands it out whole, and it ends as its twin."""
    process, folder = launch(tmp_path, **LONG), SweepFolder(tmp_path / "runs/sweep")
    wait_until(lambda: said(folder).get("epoch", 0) > 1)
    process.kill_group(signal.SIGINT)
    process.wait()
    wait_until(lambda: not life_of(folder).working)
    assert len(list(folder.checkpoints.glob("*.checkpoint"))) == 3
    (records,) = (twin[2] / "runs/sweep/records").glob("*.jsonl")
    (launch_id,) = folder.launch_ids()
    write_whole(folder.records / f"{launch_id}-0-7.jsonl", records.read_text().splitlines()[0] + "\n")
    again = launch(tmp_path, **LONG)
    assert again.wait() == 0, again.printed
    assert "2 to train, 1 recorded" in again.printed and "in 1 stack," in again.printed
    assert table_of(tmp_path).equals(twin[0]) and load_table(tmp_path / "runs/sweep")["exact"].all()
    assert not list(folder.checkpoints.glob("*.checkpoint"))


@pytest.mark.xdist_group("launch")
def test_cancelling_one_run_of_a_stack_leaves_the_others_their_bits(tmp_path, twin):
    """One of three is cancelled amid training: the worker lets go of it, and the others go on from where they were."""
    process, folder = launch(tmp_path, **LONG), SweepFolder(tmp_path / "runs/sweep")
    wait_until(lambda: said(folder).get("epoch", 0) > 1)
    cancel = typed("cancel sweep.yaml --where seed=1 --yes", folder=tmp_path, environment=dict(os.environ))
    assert cancel.wait() == 0, cancel.printed
    assert process.wait() == 0, process.printed
    found, expected = table_of(tmp_path), twin[0]
    gone = found["run_id"].str.contains("-s1-")
    assert found.loc[gone, "status"].tolist() == ["missing"] and found[~gone].equals(expected[~gone])
    assert load_table(tmp_path / "runs/sweep").loc[~gone, "exact"].all()

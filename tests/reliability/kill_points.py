"""Each command is killed, or loses its power, at each lasting call that it makes; then the same command is run again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from interposition import Call
from PIL import Image
from sandbox import PATIENCE_S, Command, Sandbox
from volatile_disk import VolatileDisk
from zygote import PAUSE

from study.analysis.report_tables import read_run_folder
from study.records.record import OUTCOMES

SWEEP = """\
question: does a killed sweep end as an undisturbed one?
device: cpu
data: {name: digits, train_images: 100, predictions: true}
backbone: vit
model: {depth: 1, dim: 8, heads: 1, patch_size: 4}
train: {epochs: 2, batch_size: 50, keep: last}
seeds: [0, 1]
"""
TUNED = SWEEP + "tune: {axes: {train.lr: [1e-3, 2e-3]}, seeds: [7], widen: false}\n"
IMAGES = """\
question: is a killed preparation finished?
device: cpu
data: {name: folder, root: images, cache: cache, image_size: 8}
backbone: vit
model: {depth: 1, dim: 8, heads: 1, patch_size: 4}
train: {epochs: 1, batch_size: 8}
seeds: [0]
"""
LAUNCH = "launch sweep.yaml --cluster local --workers 2 --threads 1"
SWEEP_RUNS = "runs/sweep"
OUTCOME = ["status", "val_accuracy", "val_loss", "test_accuracy", "test_top5", "test_loss", "baseline_accuracy"]

SANDBOX = re.compile(rb"/[^\"]*/sandbox\b")  # where a twin was made, in its files

Disturbance = Literal["kill", "power cut: contents", "power cut: names", "Ctrl-C"]
DISTURBANCES: tuple[Disturbance, ...] = ("kill", "power cut: contents", "power cut: names")


@dataclass(frozen=True)
class Kind:
    """Calls that differ only in ids and numbers: who makes them, what they do, to which kind of file."""

    by_worker: bool
    call: str
    file: str

    def __str__(self) -> str:
        return f"{'worker' if self.by_worker else 'command'}: {self.call} {self.file}"


def kind_of(call: Call, sandbox: Sandbox) -> Kind:
    name = call.path.removeprefix(f"{sandbox.folder}/")
    name = re.sub(r"code/(\.draft-)?[^/]+/.+", "code/*/*", name)
    name = re.sub(r"(?<=[.-])[\w-]*\d[\w-]*|[0-9a-f]{12,}|draft-\w+|\d[\w-]*", "*", name)
    return Kind(sandbox.is_worker(call), call.kind, re.sub(r"\*([.-]\*)+", "*", name))


@dataclass(frozen=True)
class Scenario:
    """A command in a state of a sweep; `prepare` makes the state, in an empty folder."""

    name: str
    words: str
    prepare: Callable[[Sandbox], None]
    judge: Callable[[Path, Path], Judgement]  # of the folder, held against the twin's
    by_workers: bool = False  # whether the calls of workers are the points, else those of the command
    files: str = ""  # only calls on files whose path has this part
    disturbances: tuple[Disturbance, ...] = DISTURBANCES
    beside: str = ""  # a command that has workers in training meanwhile
    finish: str = ""  # a command to end with, before the judgement

    def covers(self, kind: Kind) -> bool:
        return self.by_workers == kind.by_worker and self.files in kind.file

    def start_beside(self, sandbox: Sandbox) -> Command | None:
        """Start the command that is to have workers in training, and wait until they train."""
        if not self.beside:
            return None
        command = sandbox.start(self.beside, out=sandbox.base / "beside.txt", **{PAUSE: "0.7"})
        deadline = time.monotonic() + PATIENCE_S
        while not list(sandbox.folder.glob(f"{SWEEP_RUNS}/progress/[!.]*.json")):
            assert time.monotonic() < deadline, command.printed
            time.sleep(0.02)
        sandbox.ignored = command.process
        return command


@dataclass(frozen=True)
class Judgement:
    """How many runs were lost, trained twice or end otherwise than the twin's."""

    lost: int = 0
    doubled: int = 0
    differing: int = 0


@dataclass(frozen=True)
class Point:
    """The n-th call of a kind in a scenario, counted from 1, and what is done there."""

    scenario: str
    kind: Kind
    occurrence: int
    disturbance: Disturbance

    def __str__(self) -> str:
        return f"{self.scenario}, {self.disturbance}, {self.kind}, {self.occurrence}"


@dataclass
class Twin:
    """The undisturbed run of a scenario's command: what was there before and after, and the calls that it makes."""

    before: Path
    after: Path
    kinds: list[Kind] = field(default_factory=list)

    def points(self, scenario: Scenario) -> Iterator[Point]:
        seen: Counter[Kind] = Counter()
        for kind in self.kinds:
            seen[kind] += 1
            if scenario.covers(kind):
                for disturbance in scenario.disturbances:
                    yield Point(scenario.name, kind, seen[kind], disturbance)


def make_twin(sandbox: Sandbox, scenario: Scenario, *, place: Path) -> Twin:
    """The twin of a scenario in `place`, where it is kept: the scenario is run undisturbed unless it is there already."""
    twin, listed = Twin(place / "before", place / "after"), place / "kinds.json"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it
        if not listed.exists():
            for each in (twin.before, twin.after):
                shutil.rmtree(each, ignore_errors=True)
            _run_undisturbed(sandbox, scenario, twin)
            listed.write_text(json.dumps([vars(kind) for kind in twin.kinds]), encoding="utf-8")
    twin.kinds = [Kind(**each) for each in json.loads(listed.read_text(encoding="utf-8"))]
    return twin


def _run_undisturbed(sandbox: Sandbox, scenario: Scenario, twin: Twin) -> None:
    sandbox.fill(None)
    scenario.prepare(sandbox)
    shutil.copytree(sandbox.folder, twin.before)

    def record(call: Call) -> int:
        twin.kinds.append(kind_of(call, sandbox))
        return 0

    beside = scenario.start_beside(sandbox)
    with sandbox.answering(record):
        status, printed = sandbox.type(scenario.words)
    sandbox.wait_for_all()
    if beside is not None:
        beside.wait()
    assert status == 0, printed
    if scenario.finish:
        status, printed = sandbox.type(scenario.finish)
        assert status == 0, printed
    shutil.copytree(sandbox.folder, twin.after)


@dataclass
class Strike:
    """Answers calls until the point is reached, and disturbs there, once."""

    sandbox: Sandbox
    point: Point
    disk: VolatileDisk | None
    seen: int = 0
    struck: bool = False
    done: threading.Event = field(default_factory=threading.Event)  # nothing more will be killed

    def __call__(self, call: Call) -> int:
        if not self.struck and kind_of(call, self.sandbox) == self.point.kind:
            self.seen += 1
            if self.seen == self.point.occurrence:
                self.struck = True
                if self.point.disturbance == "Ctrl-C":
                    os.kill(call.owner, signal.SIGINT)
                    self.done.set()
                    return 0
                if call.kind == "write":
                    call.write_half()
                if self.disk is None:
                    os.kill(call.owner, signal.SIGKILL)
                else:
                    self.sandbox.kill_all()
                self.done.set()
                return 0
        if self.disk is not None and not self.struck:
            self.disk.observe(call)
        return 0


def run_point(sandbox: Sandbox, twins: Mapping[str, Twin], point: Point) -> dict[str, Any]:
    """Disturb the command at a point, run it again until nothing is left to do, and judge."""
    scenario, twin = next(each for each in SCENARIOS if each.name == point.scenario), twins[point.scenario]
    sandbox.fill(twin.before)
    saved = sandbox.base / "saved"
    shutil.rmtree(saved, ignore_errors=True)
    disk = VolatileDisk(saved) if point.disturbance.startswith("power") else None
    strike, texts = Strike(sandbox, point, disk), []
    beside = scenario.start_beside(sandbox)
    with sandbox.answering(strike):
        _, printed = sandbox.type(scenario.words)
        texts.append(printed)
        if disk is not None or point.occurrence % 2:  # else the command is run again while workers live
            sandbox.wait_for_all()
    if strike.struck:
        strike.done.wait()
    if disk is not None and strike.struck:
        disk.cut_power(names=point.disturbance.endswith("names"))
    judgement, status, repeats = Judgement(lost=-1), 1, 0
    while (status or judgement != Judgement()) and repeats < 3:
        repeats += 1
        status, printed = sandbox.type(scenario.words)
        texts.append(printed)
        sandbox.wait_for_all()
        if beside is not None:
            beside.wait()
            texts.append(beside.printed)
        if scenario.finish:
            status, printed = sandbox.type(scenario.finish)
            texts.append(printed)
        judgement = scenario.judge(sandbox.folder, twin.after) if status == 0 else judgement
    logs = [path.read_text(encoding="utf-8", errors="replace") for path in sandbox.folder.glob("**/jobs/*.err")]
    tracebacks = [text for text in (*texts, *logs) if "Traceback" in text]
    found = {**vars(judgement), "status": status, "repeats": repeats, "tracebacks": len(tracebacks), "reached": strike.struck}
    if bad := is_bad(found):
        found["printed"] = "\n".join([*texts, *tracebacks])[-4000:]
        keep = sandbox.base / "kept" / re.sub(r"\W+", "-", str(point))[:120]
        shutil.rmtree(keep, ignore_errors=True)
        shutil.copytree(sandbox.folder, keep)
    assert not sandbox.supervisor.faults, sandbox.supervisor.faults
    named = {"kind": "point", "scenario": point.scenario, "disturbance": point.disturbance, "call": str(point.kind)}
    return {**named, "bad": bad, **found}


def is_bad(found: dict[str, Any]) -> bool:
    return any(found[name] for name in ("lost", "doubled", "differing", "status", "tracebacks"))


# ---- Judgements --------------------------------------------------------------------------------------------------------


def judge_runs(folder: Path, twin: Path) -> Judgement:
    """Hold the run table, learning curves and correctness against the twin's: a report is drawn from these alone."""
    found, expected = read_run_folder(folder / SWEEP_RUNS), read_run_folder(twin / SWEEP_RUNS)
    lost = sum(status not in OUTCOMES for status in found.table["status"])
    lost += sum(len(getattr(expected, name)) - len(getattr(found, name)) for name in ("table", "trials"))
    files = (path.read_text(encoding="utf-8") for path in (folder / SWEEP_RUNS / "records").glob("*.jsonl"))
    lines = [json.loads(line) for text in files for line in text.split("\n")[:-1]]  # a torn last line has no end
    counts = Counter(line["run_id"] for line in lines if line["status"] in OUTCOMES)
    differing = 0
    if not lost:
        differing = _count_differing(found.table, expected.table, OUTCOME) + _count_differing(
            found.trials, expected.trials, OUTCOME
        )
        differing += int(not _sorted(found.curves).equals(_sorted(expected.curves)))
        differing += int(not _sorted(found.correctness).equals(_sorted(expected.correctness)))
        for name in ("weights", "predictions"):
            differing += abs(len(list((folder / SWEEP_RUNS / name).glob("[!.]*"))) < 1)
    return Judgement(max(lost, 0), counts.total() - len(counts), differing)


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    by = [name for name in ("run_id", "split", "epoch") if name in table]
    return table.sort_values(by, ignore_index=True) if by else table


def _count_differing(found: pd.DataFrame, expected: pd.DataFrame, columns: list[str]) -> int:
    if not len(expected):
        return 0
    pairs = [each.set_index("run_id").sort_index()[columns].astype("string").fillna("") for each in (found, expected)]
    return int((pairs[0] != pairs[1]).any(axis=1).sum()) if pairs[0].index.equals(pairs[1].index) else len(expected)


def judge_files(*places: str) -> Callable[[Path, Path], Judgement]:
    """The files under these folders must be the twin's, but for drafts of the process that was killed."""

    def judge(folder: Path, twin: Path) -> Judgement:
        def files(base: Path) -> dict[str, bytes]:
            found = (path for place in places for path in (base / place).rglob("*") if path.is_file())
            own = (path for path in found if not path.name.startswith("."))
            return {str(path.relative_to(base)): SANDBOX.sub(b"", path.read_bytes()) for path in own}

        own, expected = files(folder), files(twin)
        differing = [name for name in own if name in expected and own[name] != expected[name]]
        return Judgement(
            lost=len(expected.keys() - own.keys()), doubled=len(own.keys() - expected.keys()), differing=len(differing)
        )

    return judge


# ---- Scenarios ---------------------------------------------------------------------------------------------------------


def write_sweep(text: str) -> Callable[[Sandbox], None]:
    def prepare(sandbox: Sandbox) -> None:
        (sandbox.folder / "sweep.yaml").write_text(text, encoding="utf-8")

    return prepare


def launch_until(text: str, part: str) -> Callable[[Sandbox], None]:
    """A launch that ended just before it touched a file whose path has this part."""

    def prepare(sandbox: Sandbox) -> None:
        write_sweep(text)(sandbox)
        struck: list[str] = []

        def strike(call: Call) -> int:
            if part in call.path and not struck:
                struck.append(call.path)
                sandbox.kill_all()
            return 0

        with sandbox.answering(strike):
            sandbox.type(LAUNCH)
        assert struck, f"the launch touches no {part}"

    return prepare


def take_code(sandbox: Sandbox) -> None:
    """Nothing but the code snapshot of a launch, which alone makes hundreds of calls."""
    launch_until(SWEEP, "/shares/")(sandbox)
    for path in (sandbox.folder / SWEEP_RUNS).iterdir():
        if path.name != "code":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def finish_launch(sandbox: Sandbox) -> None:
    write_sweep(SWEEP)(sandbox)
    status, printed = sandbox.type(LAUNCH)
    assert status == 0, printed


def make_images(sandbox: Sandbox) -> None:
    """A folder of images in two classes."""
    write_sweep(IMAGES)(sandbox)
    generator = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 10)):
        for name in ("cat", "dog"):
            folder = sandbox.folder / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number:02}.png")


SCENARIOS = (
    Scenario("plan", "plan sweep.yaml", write_sweep(SWEEP), judge_files("runs")),
    Scenario("prepare", "prepare sweep.yaml", make_images, judge_files("cache"), disturbances=(*DISTURBANCES, "Ctrl-C")),
    Scenario("first launch", LAUNCH, write_sweep(SWEEP), judge_runs, files="code"),
    Scenario("launch", LAUNCH, take_code, judge_runs, disturbances=(*DISTURBANCES, "Ctrl-C")),
    Scenario("worker", LAUNCH, launch_until(SWEEP, "/shares/"), judge_runs, by_workers=True),
    Scenario("launch after trials", LAUNCH, launch_until(TUNED, "selection.json"), judge_runs),
    Scenario(
        "cancel",
        "cancel sweep.yaml --yes",
        launch_until(SWEEP, "/shares/"),
        judge_runs,
        disturbances=("kill",),
        beside=LAUNCH,
        finish=LAUNCH,
    ),
    Scenario(
        "report",
        "report sweep.yaml --formats svg",
        finish_launch,
        judge_files(f"{SWEEP_RUNS}/report"),
        disturbances=(*DISTURBANCES, "Ctrl-C"),
    ),
)


def choose_points(twins: dict[str, Twin], limit: int) -> list[Point]:
    """The first calls of every kind in all scenarios, then the second ones, and so on; mixed, so that any part is a sample."""
    points = {point for scenario in SCENARIOS if scenario.name in twins for point in twins[scenario.name].points(scenario)}
    return sorted(points, key=lambda point: (point.occurrence, mix(point)))[:limit]


def mix(item: object) -> str:
    """A key that sorts without any order, the same in each process."""
    return hashlib.sha256(str(item).encode()).hexdigest()

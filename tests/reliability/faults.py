"""What a disk, a clock, a terminal or a user does to a command: one screen, and the next command goes on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interposition import Call
from kill_points import LAUNCH, SCENARIOS, SWEEP_RUNS, Judgement, Kind, Scenario, Twin, kind_of, mix
from sandbox import REPOSITORY, Sandbox
from zygote import CLOCK

REFUSALS: Mapping[str, tuple[int, ...]] = {
    "create": (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE, errno.ENOTDIR, errno.EPERM, errno.EIO, errno.ENOENT),
    "write": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "fsync": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "rename": (errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS, errno.ESTALE),
    "mkdir": (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENOENT),
    "unlink": (errno.EIO, errno.EROFS, errno.EPERM),
    "rmdir": (errno.EIO,),
    "lock": (errno.ENOLCK, errno.ENOSYS, errno.EIO, errno.EINVAL),
}
SCREEN_LINES = 40
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
REPORT = "report sweep.yaml --formats svg"


@dataclass(frozen=True)
class Refusal:
    """The system refuses calls of one kind, or from the first of them on whatever changes a file, until the command ends."""

    scenario: str
    kind: Kind
    reason: int
    lasting: bool

    def __str__(self) -> str:
        scope = "the whole disk from " if self.lasting else ""
        return f"{self.scenario}, {errno.errorcode[self.reason]}, {scope}{self.kind}"


def choose_refusals(twins: Mapping[str, Twin], limit: int) -> list[Refusal]:
    """Every kind of file of every scenario with one of its calls, then with another; mixed, so that any part is a sample."""
    chosen: list[tuple[int, str, Refusal]] = []
    for name, twin in twins.items():
        scenario = BY_NAME[name]
        seen: Counter[str] = Counter()
        for kind in sorted({kind for kind in twin.kinds if scenario.covers(kind)}, key=mix):
            seen[kind.file] += 1
            draw = int(mix(f"{name}, {kind}")[:8], 16)
            reasons = REFUSALS[kind.call]
            chosen.append(
                (seen[kind.file], mix(kind), Refusal(name, kind, reasons[draw % len(reasons)], lasting=draw % 10 < 3))
            )
    return [refusal for _, _, refusal in sorted(chosen, key=lambda entry: entry[:2])][:limit]


def run_refusal(sandbox: Sandbox, twins: Mapping[str, Twin], case: Refusal) -> dict[str, Any]:
    """Run the command under the fault, then without."""
    scenario, twin = BY_NAME[case.scenario], twins[case.scenario]
    sandbox.fill(twin.before)
    met = 0

    def refuse(call: Call) -> int:
        nonlocal met
        matches = kind_of(call, sandbox) == case.kind
        met += matches
        by_command = case.kind.by_worker or not sandbox.is_worker(call)
        return case.reason if matches or (met and case.lasting and call.kind != "lock" and by_command) else 0

    beside = scenario.start_beside(sandbox)
    with sandbox.answering(refuse):
        status, printed = sandbox.type(scenario.words)
        sandbox.wait_for_all()
    if beside is not None:
        beside.wait()
    found: dict[str, Any] = {
        "kind": "fault",
        "reason": errno.errorcode[case.reason],
        "first_status": status,
        "reached": bool(met),
    }
    told = status == 0 or any(os.strerror(reason) in printed for reason in (case.reason, errno.ENOENT))
    return {**found, **_conclude(sandbox, scenario, twin, status=status, printed=printed, told=told, allowed=(0, 1))}


def _conclude(
    sandbox: Sandbox, scenario: Scenario, twin: Twin, *, status: int, printed: str, told: bool, allowed: tuple[int, ...]
) -> dict[str, Any]:
    """Repeat the command without the fault and judge both: the screen, the records, the outcome."""
    silent = status == 0 and not scenario.finish and scenario.judge(sandbox.folder, twin.after) != Judgement()
    texts, again, judgement, repeats = [printed], 1, Judgement(lost=-1), 0
    while (again or judgement != Judgement()) and repeats < 2:
        repeats += 1
        for words in filter(None, (scenario.words, scenario.finish)):
            again, text = sandbox.type(words)
            texts.append(text)
            sandbox.wait_for_all()
        judgement = scenario.judge(sandbox.folder, twin.after) if again == 0 else judgement
    found = {
        **vars(judgement),
        "status": again,
        "repeats": repeats,
        "tracebacks": sum("Traceback" in text for text in texts),
        "silent": silent,
        "untold": not told or status not in allowed,
        "long": len(printed.splitlines()) > SCREEN_LINES,
        "blamed": _count_failed(sandbox.folder / SWEEP_RUNS / "records"),
    }
    found["bad"] = any(value for name, value in found.items() if name != "repeats")
    if found["bad"]:
        found["printed"] = "\n----\n".join(texts)[-4000:]
    return found


def _count_failed(records: Path) -> int:
    lines = [line for path in records.glob("*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()]
    return sum('"status": "failed"' in line for line in lines)


# ---- Single cases ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Circumstance:
    """A command under other circumstances than a refused call; `state` is that before or after a scenario."""

    name: str
    words: str
    state: str = "before"
    scenario: str = "launch"
    environment: Mapping[str, str] = None  # type: ignore[assignment]
    refuse: int = 0  # whatever would change a file in runs/
    folders: bool = False  # only the fsync of folders
    out: str = ""  # where standard output goes
    real: bool = False  # a process that starts from nothing
    interrupt_after_s: float = 0.0
    status: tuple[int, ...] = (0,)

    def __str__(self) -> str:
        return f"{self.name}: {self.words}"


POSIX = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
LATIN = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}


def list_circumstances() -> Iterator[Circumstance]:
    for jump in ("+86400 25", "-86400 25", "+900000000 0", "0 0", "-900000000 60"):
        yield Circumstance(f"clock {jump}", LAUNCH, environment={CLOCK: jump})
        yield Circumstance(f"clock {jump}", REPORT, state="after", environment={CLOCK: jump})
    for words in ("plan sweep.yaml", "status sweep.yaml", f"{REPORT} --out elsewhere"):
        for reason in (errno.EROFS, errno.EACCES, errno.EPERM):
            yield Circumstance(f"nothing can be written ({errno.errorcode[reason]})", words, state="after", refuse=reason)
    for words, state in (("plan sweep.yaml", "before"), ("status sweep.yaml", "after"), (REPORT, "after"), (LAUNCH, "before")):
        yield Circumstance("standard output is full", words, state=state, out="/dev/full", status=(1,))
        yield Circumstance("ASCII output", words, state=state, environment=POSIX, real=True)
        yield Circumstance("Latin-1 output", words, state=state, environment=LATIN)
        bare = Circumstance(
            "without docstrings and asserts", words, state=state, environment={"PYTHONOPTIMIZE": "2"}, real=True
        )
        yield replace(bare, status=(2,)) if words == REPORT else bare  # Altair, which draws the page, needs docstrings
    yield Circumstance("folders can't be flushed (EINVAL)", LAUNCH, refuse=errno.EINVAL, folders=True)
    for step in range(1, 25):
        yield Circumstance(
            f"Ctrl-C after {0.25 * step:.2f} s", LAUNCH, real=True, interrupt_after_s=0.25 * step, status=(0, 130)
        )


def run_circumstance(sandbox: Sandbox, twins: Mapping[str, Twin], case: Circumstance) -> dict[str, Any]:
    twin, scenario = twins[case.scenario], BY_NAME[case.scenario]
    sandbox.fill(twin.before if case.state == "before" else twin.after)
    place = str(sandbox.folder / "runs")

    def refuse(call: Call) -> int:
        if case.folders:
            return case.refuse if call.kind == "fsync" and os.path.isdir(call.path) else 0
        return case.refuse if call.path.startswith(place) and call.kind != "lock" else 0

    errors = sandbox.base / "errors.txt"
    with sandbox.answering(refuse):
        if case.real:
            status, printed = _run_real(sandbox, case)
        else:
            command = sandbox.start(
                case.words, out=Path(case.out) if case.out else None, errors=errors, **(case.environment or {})
            )
            status = command.wait()
            printed = errors.read_text(encoding="utf-8") + ("" if case.out else command.printed)
        sandbox.wait_for_all()
    found = _conclude(
        sandbox,
        scenario,
        twin,
        status=status if case.words == LAUNCH else 1,
        printed=printed,
        told=True,
        allowed=(1, *case.status),
    )
    found |= {"kind": "circumstance", "group": case.name.partition(" after ")[0], "untold": status not in case.status}
    return {**found, "bad": found["bad"] or found["untold"], "first_status": status}


def _run_real(sandbox: Sandbox, case: Circumstance) -> tuple[int, str]:
    """A process that imports everything itself, as a user's does; Ctrl-C comes when it has used so much processor time."""
    name, *words = case.words.split()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **(case.environment or {})}
    out = sandbox.base / "printed.txt"
    with out.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", f"study.{name}", *words],
            cwd=sandbox.folder,
            env=environment,
            stdout=file,
            stderr=file,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        if case.interrupt_after_s:
            while process.poll() is None and _processor_seconds(process.pid) < case.interrupt_after_s:
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
        status = process.wait()
    return 130 if status == -signal.SIGINT else status, out.read_text(encoding="utf-8", errors="replace")


def _processor_seconds(process: int) -> float:
    with open(f"/proc/{process}/stat", encoding="utf-8") as file:
        words = file.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

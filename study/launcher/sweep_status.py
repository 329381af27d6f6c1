"""Where a sweep stands, as files and one squeue call say: every planned run is in exactly one group. Reading changes nothing.

A run without a record that nobody alive owns is missing, whatever Slurm calls its job; and what became of the worker that
held it last is told with it.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.launcher.liveness import Life
from study.launcher.slurm.client import Job
from study.records.journal import FINISHED, Entry, Word
from study.records.ledger import Launch, Worker, holders, read_launches, withdrawn
from study.records.rank_failures import failures
from study.records.record import Attempts, read_records
from study.records.sweep_folder import SweepFolder, Writer


@dataclass(frozen=True)
class Running:
    """A worker's latest word on the run that it trains; figures are None until it has said them."""

    run_id: str
    worker: Worker
    epoch: int | None
    epochs: int | None
    val_accuracy: float | None
    images_per_second: float | None
    eta_seconds: float | None
    age_seconds: float  # of this word
    job: str
    node: str
    log: str


@dataclass(frozen=True)
class Gap:
    """Missing runs that one worker held last, and what became of it."""

    runs: tuple[str, ...]
    reason: str
    log: str


@dataclass(frozen=True)
class Standing:
    """Every planned run in exactly one group."""

    done: tuple[str, ...]
    diverged: tuple[str, ...]
    failed: tuple[Attempts, ...]
    running: tuple[Running, ...]
    queued: tuple[str, ...]  # owned by a worker that lives or waits, not begun
    settling: tuple[str, ...]  # their worker ended a moment ago, and its files may show late
    gaps: tuple[Gap, ...]
    pending: Mapping[str, int]  # jobs that wait in Slurm's queue, by Slurm's reason
    final_follows: bool  # a job waits that launches the final runs

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(run_id for gap in self.gaps for run_id in gap.runs)

    @property
    def total(self) -> int:
        groups = (self.done, self.diverged, self.failed, self.running, self.queued, self.settling, self.missing)
        return sum(map(len, groups))

    @property
    def under_way(self) -> bool:
        return bool(self.running or self.queued or self.settling)


def standing(folder: SweepFolder, planned: Sequence[str], life: Life) -> Standing:
    """The state of the planned runs."""
    recorded = {run_id: attempts for run_id, attempts in read_records(folder.records).items() if run_id in set(planned)}
    by_status: dict[str, list[str]] = {"done": [], "diverged": [], "failed": []}
    for run_id in planned:
        if run_id in recorded:
            by_status[recorded[run_id].record.status].append(run_id)
    owned = life.owners(folder)
    open_ = [run_id for run_id in planned if run_id not in recorded]
    waiting = [job for job in life.jobs if job.queued]
    running = running_now(folder, life)
    return Standing(
        done=tuple(by_status["done"]),
        diverged=tuple(by_status["diverged"]),
        failed=tuple(recorded[run_id] for run_id in by_status["failed"]),
        running=tuple(running[run_id] for run_id in open_ if run_id in running),
        queued=tuple(run_id for run_id in open_ if owned.get(run_id) in life.working and run_id not in running),
        settling=tuple(run_id for run_id in open_ if owned.get(run_id) in life.settling),
        gaps=gaps(folder, [run_id for run_id in open_ if run_id not in owned and run_id not in running], life),
        pending=Counter(job.why_queued for job in waiting),
        final_follows=any(name.endswith(".final") for name in life.followers),
    )


# ---- What live workers are at -----------------------------------------------------------------------------------------


def running_now(folder: SweepFolder, life: Life) -> dict[str, Running]:
    """By run id, what live workers last said; of a worker's several lives the newest counts."""
    jobs = jobs_of_workers(life.jobs, read_launches(folder))
    said = progress(folder)
    running: dict[str, Running] = {}
    for worker, word in life.words.items():
        job = jobs.get(worker)
        if worker in life.working and not (job and job.queued):
            running |= {run_id: _running(run_id, word.entry, said=said.get(worker), job=job) for run_id in word.open}
    return running


def progress(folder: SweepFolder) -> dict[Worker, dict[str, Any]]:
    """Each worker's newest progress file."""
    newest: dict[Worker, Writer] = {}
    for path in folder.progress.glob("*.json"):
        writer = Writer.parse(path.stem)
        if writer.worker not in newest or newest[writer.worker].restart < writer.restart:
            newest[writer.worker] = writer
    texts = {worker: (folder.progress / f"{writer}.json").read_text(encoding="utf-8") for worker, writer in newest.items()}
    return {worker: json.loads(text) for worker, text in texts.items()}


def jobs_of_workers(jobs: Sequence[Job], launches: Sequence[Launch]) -> dict[Worker, Job]:
    """The job that each worker of a Slurm launch is, was or will be in."""
    by_id = {launch.id: launch for launch in launches}
    return {worker: job for job in jobs for worker in by_id[job.launch].workers_of(job.index)}


def _running(run_id: str, last: Entry, *, said: Mapping[str, Any] | None, job: Job | None) -> Running:
    told: Mapping[str, Any] = {"time": last.time}
    if said and said["run_id"] == run_id:
        told = said
    return Running(
        run_id=run_id,
        worker=last.worker,
        epoch=told.get("epoch"),
        epochs=told.get("epochs"),
        val_accuracy=told.get("val_accuracy"),
        images_per_second=told.get("images_per_second"),
        eta_seconds=told.get("eta_seconds"),
        age_seconds=time.time() - told["time"],
        job=job.id if job else "",
        node=job.node if job else "",
        log=last.log,
    )


# ---- What became of workers that are gone ------------------------------------------------------------------------------


def gaps(folder: SweepFolder, missing: Sequence[str], life: Life) -> tuple[Gap, ...]:
    """Missing runs by the worker that held them last, in plan order."""
    launches = read_launches(folder)
    last: dict[str, Worker] = {}
    for launch in launches:
        last |= holders(folder, launch.id)
    jobs, by_id = jobs_of_workers(life.jobs, launches), {launch.id: launch for launch in launches}
    taken = {launch.id: withdrawn(folder, launch.id) for launch in launches}
    noted = failures(folder, set(missing))
    runs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for run_id in missing:
        worker = last.get(run_id)
        if worker is None:
            fate = ("not launched yet", "")
        elif run_id in taken[worker[0]]:
            fate = ("cancelled", "")
        elif run_id in noted:
            fate = (f"{noted[run_id].told}; the next launch records it", noted[run_id].log)
        else:
            here = by_id[worker[0]].cluster == "local"
            fate = _fate(folder, worker, life.words.get(worker), jobs.get(worker), here=here)
        runs[fate].append(run_id)
    return tuple(Gap(tuple(ids), reason, log) for (reason, log), ids in runs.items())


def _fate(folder: SweepFolder, worker: Worker, word: Word | None, job: Job | None, *, here: bool) -> tuple[str, str]:
    """What became of a worker that is gone, and the place of its log; `here` for a process of a local launch."""
    slurms = f"; Slurm calls its job {job.id} {job.state}" if job else ""
    if word is None and here:
        return "the launch ended before its worker had begun", ""
    if word is None and not list((folder.launches / worker[0] / "submissions").glob("*.json")):
        return "its worker was never submitted", ""
    if word is None:
        log = folder.launches / worker[0] / "jobs" / f"{job.id}_0_log.err" if job else None
        return f"its worker never started{slurms}", str(log) if log and log.exists() else ""
    last = word.entry
    if last.event == "refused":
        return f"its worker refused: {last.reason}", last.log
    if last.event == "exit" and last.reason == FINISHED:
        return f"its worker finished without recording it{slurms}", last.log
    if last.event == "exit":
        return f"its worker saved and was ended by {last.reason}{slurms}", last.log
    if word.open:
        return f"its worker died while training {', '.join(word.open)}{slurms}", last.log
    return f"its worker died outside of a run{slurms}", last.log


def last_lines(log: str, count: int) -> list[str]:
    """The end of a log, or nothing where it is gone."""
    try:
        return Path(log).read_text(encoding="utf-8", errors="replace").splitlines()[-count:] if log else []
    except OSError:
        return []

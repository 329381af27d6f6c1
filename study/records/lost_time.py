"""Device-seconds lost to failed attempts and to crashes, computed from journals and progress files.

The journal says when a run began and how that ended. A worker that crashes writes nothing, but its progress file says how far
it had come, and the next attempt from which step it resumed: only the steps in between were lost. Not counted are the
start-up of processes and the time between the last progress and the crash (1 s on this machine, 15 s on Slurm).
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from study.records.journal import JournalLine, read_journals
from study.records.progress_file import read_progress
from study.records.record import Attempts
from study.records.sweep_folder import SweepFolder, Writer


@dataclass
class _Attempt:
    """One try at a run: the journal's `begin`, and its `end` or `stop` if the worker didn't crash."""

    begin: JournalLine
    end: JournalLine | None = None


def compute_lost_seconds(folder: SweepFolder, recorded: Mapping[str, Attempts]) -> dict[str, float]:
    """The seconds lost, by run id; only of runs that were ever begun."""
    lost = {}
    for run_id, attempts in _read_attempts(folder).items():
        seconds = 0.0
        for attempt, following in zip(attempts, [*attempts[1:], None], strict=True):
            if attempt.end is not None:
                seconds += attempt.end.time - attempt.begin.time if attempt.end.reason == "failed" else 0.0
            elif following is not None:
                seconds += _crash_loss(folder, attempt.begin, saved_step=following.begin.step)
            elif run_id in recorded and recorded[run_id].record.status == "failed":  # otherwise it may still be running
                seconds += _crash_loss(folder, attempt.begin, saved_step=attempt.begin.step)
        lost[run_id] = seconds
    return lost


def _read_attempts(folder: SweepFolder) -> dict[str, list[_Attempt]]:
    attempts: dict[str, list[_Attempt]] = defaultdict(list)
    current: dict[tuple[Writer, str], _Attempt] = {}
    for entry in read_journals(folder):
        if entry.event == "begin":
            current[entry.writer, entry.run_id] = _Attempt(entry)
            attempts[entry.run_id].append(current[entry.writer, entry.run_id])
        elif entry.event in ("end", "stop") and (attempt := current.pop((entry.writer, entry.run_id), None)):
            attempt.end = entry
    return attempts


def _crash_loss(folder: SweepFolder, begin: JournalLine, *, saved_step: int) -> float:
    """The time that a crashed attempt spent on the steps after `saved_step`."""
    last = read_progress(folder, begin.writer)
    if last is None or last.run_id != begin.run_id or last.step <= begin.step:  # it crashed before its first progress
        return 0.0
    unsaved = (last.step - saved_step) / (last.step - begin.step)
    return (last.time - begin.time) * min(1.0, max(0.0, unsaved))

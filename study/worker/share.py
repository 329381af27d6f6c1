"""A worker's way through its share: what is recorded or withdrawn is skipped, the rest trained; what fails stops nothing."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from study.records.journal import DEATHS_ALLOWED, Journal
from study.records.ledger import Withdrawals
from study.records.rank_failures import RankFailure, forget_failures
from study.records.record import OUTCOMES, Attempts, Record, Status
from study.records.sweep_folder import Lines, SweepFolder, Writer
from study.worker.signals import Stop

if TYPE_CHECKING:
    from study.worker.runner import Trainer


@dataclass
class Worker:
    """Goes through a share: skips what is recorded or withdrawn, trains the rest, never stops for a run that fails."""

    folder: SweepFolder
    writer: Writer
    journal: Journal
    stop: Stop
    log: str
    recorded: Mapping[str, Attempts]
    deaths: Mapping[str, int]  # in a row, without progress
    failures: Mapping[str, RankFailure]  # of earlier lives
    withdrawals: Withdrawals
    _records: Lines | None = None

    def train_share(self, share: list[dict[str, Any]], trainer: Trainer) -> None:
        for stack in stacks_of(share):
            if self.stop():
                return
            left = [planned for planned in stack if not (self._gone(planned) or self._over(planned, trainer))]
            if not left:
                continue
            deaths = max(self.deaths[planned["run_id"]] for planned in left)
            together = len(stack) > 1 and trainer.can_stack(stack, left)
            if together and deaths < DEATHS_ALLOWED - 1:  # the last try is alone: it tells which of them it is
                self._train(stack, left, trainer)
            else:
                self._train_alone(left, trainer)

    def _gone(self, planned: Mapping[str, Any]) -> bool:
        """Whether a run is no longer this worker's: handed to a newer launch, or withdrawn. In a stack it keeps its place."""
        return planned["handed_on"] or self.withdrawals.include(planned["run_id"])

    def _over(self, planned: dict[str, Any], trainer: Trainer) -> bool:
        """Whether a run has its record; it gets it here where it was its worker's end."""
        run_id, deaths = planned["run_id"], self.deaths[planned["run_id"]]
        if self._settled(planned):
            trainer.forget(run_id)  # a checkpoint left by a death between record and removal
        elif failure := self.failures.get(run_id):
            self._record(trainer.failure(planned, reason=failure.told, log=failure.log))
            trainer.forget(run_id)
            forget_failures(self.folder, run_id)
        elif deaths >= DEATHS_ALLOWED:
            reason = f"took its worker down {deaths} times without getting further"
            self._record(trainer.failure(planned, reason=reason, log=self.log))
        else:
            return False
        return True

    def _settled(self, planned: Mapping[str, Any]) -> bool:
        """Whether a record says how the run ended; of one that is tried again no failure before this launch does."""
        attempts = self.recorded.get(planned["run_id"])
        if attempts is None or attempts.record.status in OUTCOMES:
            return attempts is not None
        return not planned.get("retry") or attempts.record.provenance.get("launch") == self.writer.launch

    def _train_alone(self, runs: Sequence[dict[str, Any]], trainer: Trainer) -> None:
        for planned in runs:
            if not self.stop():
                self._train([planned], [planned], trainer)

    def _train(self, stack: Sequence[dict[str, Any]], left: Sequence[dict[str, Any]], trainer: Trainer) -> None:
        """Train what is `left` of a stack, most often the one run that there is, until all are recorded or withdrawn."""
        step = trainer.saved_step([planned["run_id"] for planned in left])
        begun = {planned["run_id"]: planned for planned in left if self._begin(planned, step)}
        if not begun:
            return
        unwritten: list[Exception] = []

        def ended(record: Record) -> None:
            try:
                self._record(record)
                trainer.forget(record.run_id)
                self.journal.note("end", run_id=record.run_id, reason=record.status)
            except Exception as error:
                unwritten.append(error)
                raise
            del begun[record.run_id]

        def stop() -> bool:
            return self.stop() or any(self.withdrawals.include(run_id) for run_id in begun)

        failure = None
        try:
            trainer.train(stack, begun=tuple(begun), stop=stop, log=self.log, ended=ended)
        except Exception as error:  # a run that fails is a result; the share goes on
            if unwritten:  # no run's fault: the worker ends, and what has no record is trained by the next
                raise
            traceback.print_exc()
            failure = trainer.reason(error)
        # Outside the except block, where the error's traceback would still hold what didn't fit into memory.
        if failure is not None and len(stack) == 1:
            ended(trainer.failure(stack[0], reason=failure, log=self.log))
        elif failure is not None:
            self._note_stop(begun, "its stack failed")
            trainer.release()
            self._train_alone(tuple(begun.values()), trainer)
        else:
            self._note_stop(begun, "signal" if self.stop() else "withdrawn")
            stayed = [planned for run_id, planned in begun.items() if not self.withdrawals.include(run_id)]
            if 0 < len(stayed) < len(begun) and not self.stop():  # others of the stack were withdrawn, and these go on
                self._train(stack, stayed, trainer)

    def _begin(self, planned: Mapping[str, Any], step: int) -> bool:
        """Notes that a run begins; False where it was withdrawn, which is looked up after that, so that one sees the other."""
        run_id = planned["run_id"]
        self.journal.note("begin", run_id=run_id, step=step)
        withdrawn = self.withdrawals.include(run_id, now=True)
        if withdrawn:
            self.journal.note("stop", run_id=run_id, reason="withdrawn")
        return not withdrawn

    def _note_stop(self, begun: Iterable[str], reason: str) -> None:
        for run_id in begun:
            self.journal.note("stop", run_id=run_id, reason=reason)

    def _record(self, record: Record) -> None:
        if self._records is None:
            self._records = Lines(self.folder.records / f"{self.writer}.jsonl")
        self._records.append(record.to_json())
        print(f"{record.run_id}: {_told(record.status, record)}", flush=True)


def stacks_of(share: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """A share's runs by the stack that each was launched in; one that trains by itself is a stack of one."""
    found: dict[str, list[dict[str, Any]]] = {}
    for planned in share:
        found.setdefault(stack_of(planned)[0], []).append(planned)
    return list(found.values())


def stack_of(planned: Mapping[str, Any]) -> list[str]:
    """The runs that one of a share was launched to train with, itself among them."""
    stack = planned.get("stack")
    return list(stack["runs"]) if stack else [planned["run_id"]]


def _told(status: Status, record: Record) -> str:
    return record.figures() if status == "done" else f"{status}: {record.reason}"

"""Who trains a run: one process, or the ranks of a worker that is a job of many processes.

Of several ranks the first is the worker: it alone holds the share, the journal, the records and the checkpoints, and tells the
others what to train (`study.worker.nonzero_rank`). They meet at a store on the first node; its address and port all know from
Slurm and the launch. A rank that fails notes why (`study.records.rank_failures`) and ends; Slurm then ends the others, wherever
they wait, and the job goes back into the queue. A rank that was killed leaves no note: the worker has died, as others do.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, Protocol

import torch
from torch import distributed

from study.errors import Problem, UserError
from study.records.rank_failures import RankFailure, note_failure
from study.records.sweep_folder import SweepFolder, Writer
from study.training.device import DeviceChoice
from study.training.distributed import SINGLE_RANK, MultipleRanks, PeerLost, Ranks, require_peers
from study.worker.signals import Stop

EXIT_RANK = 5  # a rank failed, or lost another one
PORTS = range(10_000, 20_000)  # below those that kernels hand out by themselves
MEETING_S = 3900  # until all are there: the worker may wait an hour for the sweep's lock
PATIENCE_S = 600  # a rank that doesn't answer for so long is lost: longer than a step, a checkpoint or an evaluation


class Crew(Protocol):
    """Who trains, as each process of a worker sees it."""

    def opening(self) -> AbstractContextManager[None]:
        """Inside, device and data are made ready; what one rank refuses, all do."""
        ...

    def join(self, device: DeviceChoice) -> None:
        """Connects the ranks."""
        ...

    def training(self, planned: Mapping[str, Any], *, reason: Callable[[Exception], str]) -> AbstractContextManager[Ranks]:
        """Inside, a run is trained by all ranks together. `reason` puts an exception into words."""
        ...

    def dismiss(self) -> None:
        """Nothing is left to train."""
        ...


class Solo:
    """One process."""

    def opening(self) -> AbstractContextManager[None]:
        return nullcontext()

    def join(self, device: DeviceChoice) -> None:
        pass

    def training(self, planned: Mapping[str, Any], *, reason: Callable[[Exception], str]) -> AbstractContextManager[Ranks]:
        return nullcontext(SINGLE_RANK)

    def dismiss(self) -> None:
        pass


SOLO = Solo()


@dataclass(frozen=True)
class Seat:
    """Which rank a process is, and where all of them meet."""

    rank: int
    size: int
    address: str
    port: int


def seat(environment: Mapping[str, str], *, meeting: str) -> Seat:
    """This process's seat, by what Slurm tells it. `meeting` names this life of the worker, the same on all ranks."""
    return Seat(
        rank=int(environment["SLURM_PROCID"]),
        size=int(environment["SLURM_NTASKS"]),
        address=environment["SLURM_LAUNCH_NODE_IPADDR"],  # srun was started on the first node, which has rank 0
        port=PORTS[zlib.crc32(meeting.encode()) % len(PORTS)],
    )


def own_gpu(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable that leaves a rank the one GPU that is its own, where its node's ranks were given several."""
    visible = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return {"CUDA_VISIBLE_DEVICES": visible[int(environment["SLURM_LOCALID"])]} if len(visible) > 1 else {}


@dataclass
class Company:
    """The ranks of one worker, as one of them sees them."""

    seat: Seat
    store: Any  # torch's
    folder: SweepFolder
    log: str
    stop: Stop
    writer: Writer  # of the worker, on all ranks
    share: list[dict[str, Any]]
    _device: torch.device | None = None  # both from `join` on
    _side: Any = None  # a gloo group of all ranks, for what concerns the hosts

    @contextmanager
    def opening(self) -> Iterator[None]:
        refused = None
        try:
            yield
        except UserError as error:
            refused = error
        self.store.set(f"opened {self.seat.rank}", refused.summary() if refused else "")
        told = [self.store.get(f"opened {rank}").decode() for rank in range(self.seat.size)]
        if refused:
            raise refused
        if others := [f"rank {rank} of {self.seat.size}: {text}" for rank, text in enumerate(told) if text]:
            raise UserError(Problem(others[0]))

    def join(self, device: DeviceChoice) -> None:
        patience = timedelta(seconds=PATIENCE_S)
        distributed.init_process_group(
            "nccl" if device.kind == "cuda" else "gloo",
            store=self.store,
            rank=self.seat.rank,
            world_size=self.seat.size,
            timeout=patience,
        )
        self._side = distributed.new_group(backend="gloo", timeout=patience)
        self._device = device.device

    @contextmanager
    def training(self, planned: Mapping[str, Any], *, reason: Callable[[Exception], str]) -> Iterator[Ranks]:
        ranks = self._ranks()
        signals: list[int | None] = [None] * self.seat.size
        try:
            if self.seat.rank == 0:
                ranks.broadcast(planned)
            yield ranks
            with require_peers():
                distributed.all_gather_object(signals, self.stop.signal, group=self._side)
        except Exception as error:
            traceback.print_exc()
            try:
                if not isinstance(error, PeerLost | distributed.DistError):
                    note_failure(self.folder, self.writer, self._failure(planned["run_id"], reason(error)))
            finally:
                end_at_once()
        for number in signals:
            self.stop.hear(number)

    def dismiss(self) -> None:
        with suppress(PeerLost):  # who was ended by now has heard enough
            if self.seat.rank == 0:
                self._ranks().broadcast(None)
            with require_peers():
                distributed.barrier(group=self._side)
        distributed.destroy_process_group()

    def next(self) -> dict[str, Any] | None:
        """What the worker trains next, as it tells the others; None where nothing is left."""
        planned: dict[str, Any] | None = self._ranks().broadcast(None)
        return planned

    def _ranks(self) -> MultipleRanks:
        assert self._device is not None, "ranks join before they train"
        return MultipleRanks(self.seat.rank, self.seat.size, device=self._device, host_group=self._side)

    def _failure(self, run_id: str, reason: str) -> RankFailure:
        host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        return RankFailure(run_id, self.seat.rank, self.seat.size, host=host, reason=reason, log=self.log, time=time.time())


def lead(
    folder: SweepFolder, writer: Writer, *, share: list[dict[str, Any]], environment: Mapping[str, str], log: str, stop: Stop
) -> Company:
    """The ranks as the worker sees them, when all are there and can know the share."""
    here = taken_seat(writer.launch, writer.task, environment=environment)
    store = meet(here)
    store.set("share", json.dumps([str(writer), share]))
    return Company(seat=here, store=store, folder=folder, log=log, stop=stop, writer=writer, share=share)


def join_worker(
    folder: SweepFolder, worker: tuple[str, int], *, environment: Mapping[str, str], log: str, stop: Stop
) -> Company:
    """The ranks as one of them sees them that isn't the worker."""
    here = taken_seat(*worker, environment=environment)
    store = meet(here)
    writer, share = json.loads(store.get("share"))
    return Company(seat=here, store=store, folder=folder, log=log, stop=stop, writer=Writer.parse(writer), share=share)


def taken_seat(launch: str, task: int, *, environment: Mapping[str, str]) -> Seat:
    """This process's seat; from here on it sees its own GPU alone."""
    os.environ.update(own_gpu(environment))
    return seat(environment, meeting=f"{launch} {task} {environment.get('SLURM_RESTART_COUNT', '0')}")


def meet(here: Seat) -> Any:
    """The store that rank 0 holds, when all have come."""
    patience = timedelta(seconds=MEETING_S)
    try:
        return distributed.TCPStore(  # type: ignore[attr-defined]
            here.address, here.port, here.size, is_master=here.rank == 0, timeout=patience
        )
    except distributed.DistError as error:
        told = str(error).splitlines()[0]
        raise UserError(Problem(f"the ranks could not meet at {here.address}, port {here.port}: {told}")) from None


def end_at_once() -> NoReturn:
    """Ends this process without waiting for exchanges under way, as an orderly end would."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_RANK)

"""The processes of a worker: one, or several ranks that train each run together.

Rank 0 is the worker: it alone has the share, writes journal, records and checkpoints, and sends the other ranks what to
train. The ranks rendezvous at a store on the first node: Slurm gives its address, and
its port is derived from the launch.
"""

import json
import os
import socket
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
from torch import distributed

from study.errors import Problem, UserError
from study.records.ledger import ShareEntry, WorkerId
from study.records.rank_failures import RankFailure, write_rank_failure
from study.records.sweep_folder import SweepFolder, Writer
from study.training.device import DeviceChoice
from study.training.distributed import SINGLE_RANK, MultipleRanks, PeerLost, Ranks, require_peers
from study.worker.signals import EXIT_HALTED, Stop

EXIT_RANK = 5  # a rank failed, or lost another one
REFUSED = "refused"  # the store's key for what the system refused a rank
PORTS = range(10_000, 20_000)  # below the ephemeral ports of common kernels
RENDEZVOUS_TIMEOUT_S = 3900  # rank 0 may wait an hour for the sweep's lock before it comes
EXCHANGE_TIMEOUT_S = 600  # longer than a step, a checkpoint or an evaluation: a rank that takes longer is lost


class ProcessGroup:
    """The processes of a worker, as each of them sees the group: here, one process."""

    def setup(self) -> AbstractContextManager[None]:
        """A context for loading device and data. A UserError of one rank is raised on all."""
        return nullcontext()

    def connect(self, device: DeviceChoice) -> None:
        """Create the communicators between the ranks."""

    def training(self, entry: ShareEntry, *, describe: Callable[[Exception], str]) -> AbstractContextManager[Ranks]:
        """A context for training one run on all ranks. `describe` turns an exception into a line for the record."""
        return nullcontext(SINGLE_RANK)

    def shut_down(self) -> None:
        """End the group after the last run."""

    def halt(self) -> NoReturn:
        """End this process, which the system refused a file."""
        sys.exit(EXIT_HALTED)


@dataclass(frozen=True)
class RankInfo:
    """The rank of this process, and where the group's ranks rendezvous."""

    rank: int
    size: int
    address: str
    port: int

    @staticmethod
    def from_slurm(environment: Mapping[str, str], *, job_key: str) -> "RankInfo":
        """Read Slurm's variables. `job_key` is equal on all ranks of one process of the worker, and on no others."""
        return RankInfo(
            rank=int(environment["SLURM_PROCID"]),
            size=int(environment["SLURM_NTASKS"]),
            address=environment["SLURM_LAUNCH_NODE_IPADDR"],  # srun was started on the first node, which has rank 0
            port=PORTS[zlib.crc32(job_key.encode()) % len(PORTS)],
        )


def select_own_gpu(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable that limits a rank to one GPU, where Slurm shows all ranks of a node all of its GPUs."""
    visible = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return {"CUDA_VISIBLE_DEVICES": visible[int(environment["SLURM_LOCALID"])]} if len(visible) > 1 else {}


@dataclass
class MultiProcess(ProcessGroup):
    """A group of several ranks, as one of them sees it. `writer` and `share` are those of rank 0."""

    info: RankInfo
    store: Any  # a torch.distributed.Store
    folder: SweepFolder
    log: str
    stop: Stop
    writer: Writer
    share: Sequence[ShareEntry]
    _device: torch.device | None = None  # set by `connect`, like the next one
    _host_group: Any = None  # gloo, for exchanges between the hosts, which no GPU has to wait for

    @contextmanager
    def setup(self) -> Iterator[None]:
        refusal = None
        try:
            yield
        except UserError as error:
            refusal = error
        self.store.set(f"setup {self.info.rank}", refusal.summary() if refusal else "")
        refusals = [self.store.get(f"setup {rank}").decode() for rank in range(self.info.size)]
        if refusal:
            raise refusal
        for rank, text in enumerate(refusals):
            if text:
                raise UserError(Problem(f"rank {rank} of {self.info.size}: {text}"))

    def connect(self, device: DeviceChoice) -> None:
        timeout = timedelta(seconds=EXCHANGE_TIMEOUT_S)
        distributed.init_process_group(
            "nccl" if device.kind == "cuda" else "gloo",
            store=self.store,
            rank=self.info.rank,
            world_size=self.info.size,
            timeout=timeout,
        )
        self._host_group = distributed.new_group(backend="gloo", timeout=timeout)
        self._device = device.device

    @contextmanager
    def training(self, entry: ShareEntry, *, describe: Callable[[Exception], str]) -> Iterator[Ranks]:
        ranks = self._ranks()
        signals: list[int | None] = [None] * self.info.size
        try:
            if self.info.rank == 0:
                ranks.broadcast(entry.to_json())
            yield ranks
            with require_peers():
                distributed.all_gather_object(signals, self.stop.signal, group=self._host_group)
        except Exception as error:
            traceback.print_exc()
            host, info = os.environ.get("SLURMD_NODENAME") or socket.gethostname(), self.info
            if isinstance(error, OSError):  # no outcome of the run, and no crash: rank 0 says so in its journal
                if info.rank == 0:
                    raise
                with suppress(RuntimeError):  # rank 0, which serves the store, has ended
                    place = f"{error.filename} (rank {info.rank} of {info.size}, on {host})"
                    self.store.set(REFUSED, json.dumps([error.errno, error.strerror or str(error), place]))
            if info.rank == 0 and self.store.check([REFUSED]):
                raise OSError(*json.loads(self.store.get(REFUSED))) from None
            try:
                # A rank that lost another one is not the cause. A killed rank leaves no file: the worker has crashed.
                if not isinstance(error, PeerLost | distributed.DistError | OSError):
                    reason, now = describe(error), time.time()
                    failure = RankFailure(entry.run_id, info.rank, info.size, host=host, reason=reason, log=self.log, time=now)
                    write_rank_failure(self.folder, self.writer, failure)
            finally:
                leave_at_once(EXIT_RANK)  # Slurm then ends the other ranks and requeues the job
        for number in signals:
            self.stop.receive(number)

    def shut_down(self) -> None:
        with suppress(PeerLost):  # a rank that has ended already needs no message
            if self.info.rank == 0:
                self._ranks().broadcast(None)
            with require_peers():
                distributed.barrier(group=self._host_group)
        distributed.destroy_process_group()

    def halt(self) -> NoReturn:
        leave_at_once(EXIT_HALTED)

    def receive_next(self) -> ShareEntry | None:
        """On a nonzero rank, wait for the next run that rank 0 trains; None after the last one."""
        document = self._ranks().broadcast(None)
        return None if document is None else ShareEntry.from_json(document)

    def _ranks(self) -> MultipleRanks:
        assert self._device is not None, "ranks connect before they train"
        return MultipleRanks(self.info.rank, self.info.size, device=self._device, host_group=self._host_group)


def leave_at_once(status: int) -> NoReturn:
    """End this process without waiting for an exchange with other ranks, as an orderly exit does."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def join_group(
    folder: SweepFolder,
    worker: WorkerId,
    *,
    environment: Mapping[str, str],
    log: str,
    stop: Stop,
    sent: tuple[Writer, Sequence[ShareEntry]] | None = None,
) -> MultiProcess:
    """Wait for the other ranks. Rank 0 sends them itself and its share."""
    info, store = _rendezvous(worker, environment)
    if sent is not None:
        store.set("share", json.dumps([str(sent[0]), [entry.to_json() for entry in sent[1]]]))
    name, documents = json.loads(store.get("share"))
    writer, share = Writer.parse(name), [ShareEntry.from_json(document) for document in documents]
    return MultiProcess(info, store=store, folder=folder, log=log, stop=stop, writer=writer, share=share)


def _rendezvous(worker: WorkerId, environment: Mapping[str, str]) -> tuple[RankInfo, Any]:
    """Wait at the store that rank 0 serves until all ranks are there. From here on, this process sees its own GPU alone."""
    os.environ.update(select_own_gpu(environment))
    launch, task = worker
    info = RankInfo.from_slurm(environment, job_key=f"{launch} {task} {environment.get('SLURM_RESTART_COUNT', '0')}")
    timeout = timedelta(seconds=RENDEZVOUS_TIMEOUT_S)
    try:
        store = distributed.TCPStore(  # type: ignore[attr-defined]
            info.address, info.port, info.size, is_master=info.rank == 0, timeout=timeout
        )
    except distributed.DistError as error:
        reason = str(error).splitlines()[0]
        raise UserError(Problem(f"rendezvous of the ranks failed at {info.address}, port {info.port}: {reason}")) from None
    return info, store

"""One training by several processes, its ranks: each takes an equal part of every batch, and all take the same step.

`Ranks` is a training by one process, `MultipleRanks` one by torch's default process group. Random numbers are keyed by seed,
epoch and image, and parts are equal, so the number of ranks changes a training by rounding only. Gradients are averaged by
torch's DistributedDataParallel while the backward pass goes on.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

Item = TypeVar("Item")

COMMUNICATION_FAULT = re.compile("gloo|nccl|timed out|connection", re.IGNORECASE)
"""What torch says where an exchange between ranks failed; with gloo it raises a bare RuntimeError."""


class PeerLost(Exception):
    """Another rank has ended or doesn't answer. The reason is known there, not here."""


@dataclass
class Ranks:
    """The processes of one training, as one of them sees them; here: a single one. Rank 0 leads: it alone writes files."""

    rank: int = 0
    size: int = 1

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module to call in training: its backward pass leaves the gradient's mean over all ranks in `model`."""
        return model

    def accumulate_locally(self, module: nn.Module) -> AbstractContextManager[None]:
        """Inside, forward and backward passes of a wrapped module add to the gradient of this rank alone."""
        return nullcontext()

    def combine_metrics(self, *, loss: Tensor, hits: Tensor) -> None:
        """In place: `loss` (one number) becomes the mean over all ranks, `hits` the sum."""

    def split_batches(self, batches: Tensor) -> Tensor:
        """This rank's columns of batches `n b`: `n b/size`."""
        return batches

    def split_items(self, items: Sequence[Item]) -> Sequence[Item]:
        """This rank's stretch of items that each need processing once."""
        return items

    def gather(self, parts: Sequence[Tensor]) -> Tensor:
        """All ranks' tensors in the order of ranks, concatenated, exactly."""
        return torch.cat(list(parts))

    def any_rank(self, *requests: bool) -> tuple[bool, ...]:
        """Which of these any rank has requested; the same answer on all ranks, perhaps a step late."""
        return requests

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0."""
        return value


SINGLE_RANK = Ranks()


@dataclass
class MultipleRanks(Ranks):
    """The ranks of torch's default process group. What the host must know goes over `host_group`, a gloo group of the same
    ranks on the CPU, so that no GPU is waited for."""

    device: torch.device = field(kw_only=True)
    host_group: Any = field(kw_only=True)
    _pending: tuple[Tensor, Any] | None = field(default=None, init=False)  # the last step's requests, and their exchange

    def wrap(self, model: nn.Module) -> nn.Module:
        # DDP rebuilds its buckets after the first step, in the order in which gradients became ready. The first step after a
        # resume would then add up in another order than an uninterrupted training's, and with three ranks or more the last
        # bits may differ. With find_unused_parameters the buckets stay as they were built, a function of the model alone.
        # (torch then notes once, on stderr, that it found no unused parameter.)
        with require_peers(computes=True), warnings.catch_warnings():
            # Its successor `forward_sync_buffers` is missing in torch 2.11. Norms keep equal buffers on all ranks themselves.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(
                model, broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True
            )

    def accumulate_locally(self, module: nn.Module) -> AbstractContextManager[None]:
        assert isinstance(module, DistributedDataParallel)
        return module.no_sync()

    def combine_metrics(self, *, loss: Tensor, hits: Tensor) -> None:
        both = torch.stack([loss / self.size, hits])
        with require_peers():
            distributed.all_reduce(both)
        loss.copy_(both[0])
        hits.copy_(both[1])

    def split_batches(self, batches: Tensor) -> Tensor:
        assert batches.shape[1] % self.size == 0, "the launch refuses batches that can't be cut evenly"
        return batches.chunk(self.size, dim=1)[self.rank]

    def split_items(self, items: Sequence[Item]) -> Sequence[Item]:
        return items[len(items) * self.rank // self.size : len(items) * (self.rank + 1) // self.size]

    def gather(self, parts: Sequence[Tensor]) -> Tensor:
        # Logits of a large test set stay on the devices: pickled through the hosts they would slow down every evaluation.
        own = torch.cat(list(parts)) if parts else None
        found: list[tuple[torch.Size, torch.dtype] | None] = [None] * self.size
        with require_peers():
            distributed.all_gather_object(found, None if own is None else (own.shape, own.dtype), group=self.host_group)
        shape, dtype = next(each for each in found if each is not None)
        ends = list(accumulate((each[0][0] if each else 0 for each in found), initial=0))
        whole = torch.zeros(ends[-1], *shape[1:], dtype=dtype, device=self.device)
        if own is not None:
            whole[ends[self.rank] : ends[self.rank + 1]] = own
        with require_peers():
            distributed.all_reduce(whole)  # each row is nonzero on one rank only, so nothing is rounded
        return whole

    def any_rank(self, *requests: bool) -> tuple[bool, ...]:
        """A step late, as the exchange runs during the next step. A request that is under way is not made again."""
        before, exchange = self._pending or (torch.zeros(len(requests), dtype=torch.uint8), None)
        mine = torch.tensor(requests, dtype=torch.uint8)
        with require_peers():
            if exchange is not None:
                exchange.wait()
            answer = tuple(bool(request) for request in before)
            mine[before.bool()] = 0
            self._pending = mine, distributed.all_reduce(mine, distributed.ReduceOp.MAX, group=self.host_group, async_op=True)
        return answer

    def broadcast(self, value: Any) -> Any:
        box = [value]
        with require_peers():
            distributed.broadcast_object_list(box, src=0, group=self.host_group)
        return box[0]


@contextmanager
def require_peers(*, computes: bool = False) -> Iterator[None]:
    """Raise PeerLost where an exchange between ranks fails; with `computes`, errors of this rank alone pass as they are."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if computes and not isinstance(error, distributed.DistError) and not COMMUNICATION_FAULT.search(str(error)):
            raise
        raise PeerLost(str(error).splitlines()[0]) from error

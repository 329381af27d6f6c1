"""One training by several processes, its ranks: each takes its part of every batch, and all make the same step.

What a training asks of its ranks is the protocol `Ranks`. `Alone` is a training by one process, where each answer is at hand;
`Several` asks the others. Random numbers are keyed by seed, epoch and image, and parts are equal, so the number of ranks
changes a training by rounding only. Gradients are added up in pieces that are the same from the first step to the last: a
resumed training has the bits of an uninterrupted one with as many ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed, nn

PIECE = 2**23  # gradients that are added up in one go: 32 MiB in fp32

Item = TypeVar("Item")


class PeerLost(Exception):
    """Another rank has ended or doesn't answer. Why is known there, not here."""


class Ranks(Protocol):
    """The processes of one training, as one of them sees them. The first one, of rank 0, leads: it alone writes files."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def part(self, batches: Tensor) -> Tensor:
        """This rank's columns of batches `n b`: `n b/size`."""
        ...

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This rank's stretch of what all do once together."""
        ...

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """All ranks' tensors in the order of ranks, concatenated, exactly."""
        ...

    def combine(self, model: nn.Module, *, loss: Tensor, hits: Tensor) -> None:
        """In place: gradients and `loss` (one number) become the means over all ranks, `hits` the sum."""
        ...

    def agreed(self, *wishes: bool) -> tuple[bool, ...]:
        """Which of these any rank has wished for; the same answer on all ranks, perhaps a step late."""
        ...

    def same(self, state: Any) -> Any:
        """The leader's state."""
        ...


@dataclass(frozen=True)
class Alone:
    """A training by one process."""

    rank: int = 0
    size: int = 1

    def part(self, batches: Tensor) -> Tensor:
        return batches

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        return items

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts))

    def combine(self, model: nn.Module, *, loss: Tensor, hits: Tensor) -> None:
        pass

    def agreed(self, *wishes: bool) -> tuple[bool, ...]:
        return wishes

    def same(self, state: Any) -> Any:
        return state


ALONE = Alone()


@dataclass
class Several:
    """One run's training by the ranks of torch's default process group. `side` is a gloo group of the same ranks.

    What the host must know goes over the side group, on the CPU, so that no GPU is waited for.
    """

    rank: int
    size: int
    device: torch.device
    side: Any
    _wished: tuple[Tensor, Any] | None = field(default=None, init=False)  # at the step before, and its exchange under way

    def part(self, batches: Tensor) -> Tensor:
        assert batches.shape[1] % self.size == 0, "the launch refuses batches that can't be cut evenly"
        return batches.chunk(self.size, dim=1)[self.rank]

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        return items[len(items) * self.rank // self.size : len(items) * (self.rank + 1) // self.size]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        mine = torch.cat(list(parts)) if parts else None
        found: list[tuple[torch.Size, torch.dtype] | None] = [None] * self.size
        with others_needed():
            distributed.all_gather_object(found, None if mine is None else (mine.shape, mine.dtype), group=self.side)
        shape, dtype = next(each for each in found if each is not None)
        ends = list(accumulate((each[0][0] if each else 0 for each in found), initial=0))
        whole = torch.zeros(ends[-1], *shape[1:], dtype=dtype, device=self.device)
        if mine is not None:
            whole[ends[self.rank] : ends[self.rank + 1]] = mine
        with others_needed():
            distributed.all_reduce(whole)  # every row is one rank's, and zero elsewhere: nothing is rounded
        return whole

    def combine(self, model: nn.Module, *, loss: Tensor, hits: Tensor) -> None:
        gradients = [each.grad for each in model.parameters() if each.grad is not None]
        under_way = []
        for piece in pieces([*gradients, loss, hits]):
            flat = torch.cat([each.flatten() for each in piece])
            with others_needed():
                under_way.append((piece, flat, distributed.all_reduce(flat, async_op=True)))
        for piece, flat, exchange in under_way:
            with others_needed():
                exchange.wait()
            for each, total in zip(piece, torch.split(flat, [each.numel() for each in piece]), strict=True):
                each.copy_(total.view(each.shape))
        torch._foreach_div_([*gradients, loss], self.size)

    def agreed(self, *wishes: bool) -> tuple[bool, ...]:
        """A step late: the exchange goes on behind the step. A wish that is under way is not made again."""
        before, exchange = self._wished or (torch.zeros(len(wishes), dtype=torch.uint8), None)
        mine = torch.tensor(wishes, dtype=torch.uint8)
        if exchange is not None:
            with others_needed():
                exchange.wait()
        answer = tuple(bool(wish) for wish in before)
        mine[before.bool()] = 0
        with others_needed():
            under_way = distributed.all_reduce(mine, distributed.ReduceOp.MAX, group=self.side, async_op=True)
        self._wished = mine, under_way
        return answer

    def same(self, state: Any) -> Any:
        box = [state]
        with others_needed():
            distributed.broadcast_object_list(box, src=0, group=self.side)
        return box[0]


@contextmanager
def others_needed() -> Iterator[None]:
    """What is done inside takes all ranks: PeerLost where torch says that it failed."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(str(error).splitlines()[0]) from error


def pieces(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours with about PIECE entries together: a function of the sizes alone."""
    ends = accumulate(each.numel() for each in tensors)
    for _, group in groupby(zip(tensors, ends, strict=True), key=lambda one: one[1] // PIECE):
        yield [tensor for tensor, _ in group]

"""Batches of uint8 images on the training device, by position in a split, with the same bits resident or streamed.

A set that fits is kept on the GPU and a batch is one gather there: no host work, no synchronization. A larger one, and
every set on a CPU, is gathered from the memory map; for a GPU a thread gathers the next batch into pinned memory
while the device works on this one.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from study.data.splits import Split

_RESIDENT_FRACTION = 0.25  # of a GPU's free memory that images may take; the rest is for weights and activations
_SENT_ROWS = 4096  # at a time, so that the host doesn't hold a second copy of a large split


def can_fit_on_device(split: Split, device: torch.device) -> bool:
    """Whether a split's images should be kept on the device: on a GPU with room for them; a CPU has the memory map."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return len(split) * split.stored[:1].nbytes <= _RESIDENT_FRACTION * free


class BatchLoader:
    """Loads a split's images uint8 `b c h w` and labels int64 `b` on `device`, `resident` there or streamed."""

    def __init__(self, split: Split, device: torch.device, *, resident: bool):
        self.device = device
        self.resident = resident
        self.split = split
        if resident:
            self.images = torch.empty((len(split), *split.stored.shape[1:]), dtype=torch.uint8, device=device)
            for rows, part in zip(*(torch.split(each, _SENT_ROWS) for each in (split.rows, self.images)), strict=True):
                part.copy_(split.stored[rows])
            self.labels = split.labels.to(device)

    def load_batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The images and labels at `positions` int64 `b` (on any device; resident data synchronizes unless on its own)."""
        if self.resident:
            rows = positions.to(self.device, non_blocking=True)
            return self.images.index_select(0, rows), self.labels.index_select(0, rows)
        return self._send(self._gather(positions))

    def load_batches(self, positions: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """`load_batch` of each, in order; where streamed to a GPU, the next is gathered while this one is used."""
        if self.resident or self.device.type == "cpu":
            yield from map(self.load_batch, positions)
            return
        with ThreadPoolExecutor(1) as thread:
            ahead: Future[tuple[Tensor, Tensor]] | None = None
            for each in positions:
                ready, ahead = ahead, thread.submit(self._gather, each)
                if ready is not None:
                    yield self._send(ready.result())
            if ahead is not None:
                yield self._send(ahead.result())

    def _gather(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        at, pinned = positions.cpu(), self.device.type == "cuda"
        images = torch.empty((len(at), *self.split.stored.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        labels = torch.empty(len(at), dtype=torch.int64, pin_memory=pinned)
        torch.index_select(self.split.stored, 0, self.split.rows[at], out=images)
        torch.index_select(self.split.labels, 0, at, out=labels)
        return images, labels

    def _send(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        # Pinned memory returns to torch's pool only when the copy from it is done, so it can't be overwritten early.
        images, labels = batch
        return images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

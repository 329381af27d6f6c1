"""Batches of uint8 images on the device that trains, by position in a split, with the same bits either way.

A set that fits lives on the GPU and a batch is one gather there: no host work, no synchronisation. A larger one, and
every set on a CPU, is gathered from the memory map; for a GPU a thread gathers the next batch into pinned memory
while the device works on this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from study.data.splits import Split

RESIDENT_SHARE = 0.25  # of a GPU's free memory that images may take; the rest is for weights and activations


def can_fit_on_device(split: Split, device: torch.device) -> bool:
    """Whether a split's images should live on the device: on a GPU with room for them; a CPU has the memory map."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return split.images.nbytes <= RESIDENT_SHARE * free


class BatchLoader:
    """Hands out a split's images uint8 `b c h w` and labels int64 `b` on `device`, `resident` there or streamed."""

    def __init__(self, split: Split, device: torch.device, *, resident: bool):
        self.device = device
        self.resident = resident
        self.images = split.images.to(device) if resident else split.images
        self.labels = split.labels.to(device) if resident else split.labels

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The images and labels at `positions` int64 `b` (on any device; on this one if resident, or it waits)."""
        if self.resident:
            at = positions.to(self.device, non_blocking=True)
            return self.images.index_select(0, at), self.labels.index_select(0, at)
        return self._sent(self._gathered(positions))

    def batches(self, positions: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """`batch` of each, in order; where streamed to a GPU, the next is gathered while this one is used."""
        if self.resident or self.device.type == "cpu":
            yield from map(self.batch, positions)
            return
        with ThreadPoolExecutor(1) as thread:
            ahead: Future[tuple[Tensor, Tensor]] | None = None
            for each in positions:
                ready, ahead = ahead, thread.submit(self._gathered, each)
                if ready is not None:
                    yield self._sent(ready.result())
            if ahead is not None:
                yield self._sent(ahead.result())

    def _gathered(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        at = positions.cpu()
        pinned = self.device.type == "cuda"
        images = torch.empty((len(at), *self.images.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        labels = torch.empty(len(at), dtype=torch.int64, pin_memory=pinned)
        torch.index_select(self.images, 0, at, out=images)
        torch.index_select(self.labels, 0, at, out=labels)
        return images, labels

    def _sent(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        # Pinned memory goes back to torch's pool only when the copy from it is done, so it can't be overwritten early.
        images, labels = batch
        return images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

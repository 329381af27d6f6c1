"""Laws of loading: a batch is the images at its positions, with the same bits whether resident or streamed."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from study.data.batch_loader import BatchLoader, can_fit_on_device
from study.data.splits import Split

DEVICES = [torch.device(name) for name in (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])]


def split(images: int = 40) -> Split:
    """Some rows of a larger array, in another order."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(images + 9)[:images]
    pixels = rng.integers(0, 256, (images + 9, 3, 5, 5), dtype=np.uint8)
    return Split(*map(torch.from_numpy, (pixels, rows, rows % 7, rows)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("resident", [True, False])
def test_batches_are_the_images_at_their_positions_in_order(device: torch.device, resident: bool) -> None:
    """Both equal numpy's indexing, for repeated positions and a short last batch too."""
    whole = split()
    positions = [torch.tensor([3, 1, 3]), torch.arange(40), torch.tensor([39])]
    fed = list(BatchLoader(whole, device, resident=resident).load_batches(iter(positions)))
    assert len(fed) == len(positions)
    for at, (images, labels) in zip(positions, fed, strict=True):
        assert images.device.type == labels.device.type == device.type
        assert np.array_equal(images.cpu().numpy(), whole.stored.numpy()[whole.rows.numpy()][at.numpy()])
        assert np.array_equal(labels.cpu().numpy(), whole.labels.numpy()[at.numpy()])


def test_a_batch_is_a_copy() -> None:
    """Changing a batch in place leaves the data set as it was."""
    whole = split()
    before = whole.stored.clone()
    images, _ = BatchLoader(whole, torch.device("cpu"), resident=False).load_batch(torch.arange(4))
    images.zero_()
    assert torch.equal(whole.stored, before)


def test_a_cpu_keeps_the_memory_map() -> None:
    """A CPU needs no second copy of a memory map."""
    assert not can_fit_on_device(split(), torch.device("cpu"))


def test_streaming_gathers_one_batch_ahead_and_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a batch is used only the next one is gathered; a consumer may stop early."""
    loader = BatchLoader(split(), torch.device("cpu"), resident=False)
    monkeypatch.setattr(loader, "device", torch.device("meta"))  # a device to which everything is sent, without one
    asked: list[int] = []
    threads = threading.active_count()

    def positions():  # type: ignore[no-untyped-def]
        for k in range(10):
            asked.append(k)
            yield torch.tensor([k])

    batches = loader.load_batches(positions())
    next(batches)
    assert asked == [0, 1]
    next(batches)
    assert asked == [0, 1, 2]
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads

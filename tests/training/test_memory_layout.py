"""Laws of memory layouts: a model is given images in its own layout, strides and all."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from toy_runs import FACTS, SIZE, splits, toy_run

from study.backbones import build
from study.data.splits import Split, Splits
from study.training.batches import EvaluationBatches, TrainingBatches
from study.training.memory_layout import to_memory_format

LAYOUT_NAMES = (torch.contiguous_format, torch.channels_last)
CPU = torch.device("cpu")


def with_channels(count: int) -> Splits:
    """The toy images with their first channels alone."""
    found = splits()
    parts = {name: getattr(found, name) for name in ("train", "val", "test", "train_and_val")}
    cut = {name: Split.whole(part.images[:, :count], part.labels) for name, part in parts.items()}
    return Splits(**cut, info=dataclasses.replace(FACTS, channels=count, mean=(0.3,) * count, std=(0.2,) * count))


def batches(channels: int, layout: torch.memory_format, augment: dict[str, float]) -> Iterator[torch.Tensor]:
    """What a run trains on and what it's judged by."""
    given, run = with_channels(channels), toy_run(augment=augment)
    yield from (images for images, _ in TrainingBatches(run, given, device=CPU, layout=layout).epoch(0))
    yield from (images for images, _ in EvaluationBatches(given.val, facts=given.info, device=CPU, layout=layout))


@pytest.mark.parametrize("augment", [{}, {"mixup": 0.3}, {"cutmix": 1.0, "flip": True}, {"erasing": 0.5, "crop": 1}])
@pytest.mark.parametrize("layout", LAYOUT_NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_have_the_strides_of_the_layout(channels, layout, augment):
    """Also those of one-channel images, of which torch calls every layout contiguous."""
    expected = torch.empty(1, channels, SIZE, SIZE).to(memory_format=layout)
    wanted = (channels * SIZE**2, 1, channels * SIZE, channels) if layout is torch.channels_last else expected.stride()
    assert {images.stride() for images in batches(channels, layout, augment)} == {wanted}


def test_a_grid_stays_in_channels_last_from_the_first_convolution_on():
    """Every grid inside a ConvMixer that is given mixed images of one channel lies in channels_last."""
    model = build("convmixer", image_size=SIZE, in_channels=1, num_classes=6, patch_size=1, dim=8, depth=1, kernel_size=3)
    model.to(memory_format=torch.channels_last)
    found = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, __, grid, name=name: found.update({name: grid}))
    model(next(batches(1, torch.channels_last, {"mixup": 0.3})))
    grids = {name: grid for name, grid in found.items() if grid.ndim == 4}
    assert "stem.patch_embedding" in grids
    assert not [name for name, grid in grids.items() if not grid.is_contiguous(memory_format=torch.channels_last)]


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_images_that_lie_right_are_not_copied(layout):
    """The same memory, hence the same numbers; images of another layout are copied, number by number."""
    images = torch.randn(4, 3, 5, 6).contiguous(memory_format=layout)
    assert to_memory_format(images, layout).data_ptr() == images.data_ptr()
    for other in LAYOUT_NAMES:
        assert torch.equal(to_memory_format(images, other), images)

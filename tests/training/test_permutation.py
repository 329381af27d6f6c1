"""Permuted inputs: what moves, what stays, and that models without locality lose nothing by it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy_runs import FACTS, splits, toy_run

from study.backbones import build
from study.config.options import DataOptions
from study.data.permutation import find_permutation, permute_positions
from study.training.batches import EvaluationBatches, TrainingBatches, find_input_permutation

PIXELS, PATCHES = DataOptions(name="digits", permute_pixels=True), DataOptions(name="digits", permute_patches=True)
SMALL = {"image_size": 6, "in_channels": 2, "num_classes": 3, "patch_size": 1, "dim": 8, "depth": 2}


def test_nothing_is_permuted_unless_asked_for() -> None:
    """The neutral default leaves images as they are."""
    assert find_permutation(DataOptions(name="digits"), image_size=8, patch_size=2) is None


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_patches_move_whole(patch_size: int) -> None:
    """Every patch of the image is found, unchanged, at another place; permuted pixels keep no patch."""
    image = torch.arange(64.0).view(1, 1, 8, 8)

    def patches(moved: torch.Tensor) -> list[tuple[float, ...]]:
        cut = moved.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
        return [tuple(patch.flatten().tolist()) for patch in cut.flatten(0, 3)]

    source = find_permutation(PATCHES, image_size=8, patch_size=patch_size)
    assert source is not None and sorted(source.tolist()) == list(range(64))
    moved = permute_positions(image, source)
    assert sorted(patches(moved)) == sorted(patches(image)) and patches(moved) != patches(image)
    scattered = permute_positions(image, find_permutation(PIXELS, image_size=8, patch_size=patch_size))
    assert sorted(scattered.flatten().tolist()) == image.flatten().tolist()
    assert patch_size == 1 or not set(patches(scattered)) & set(patches(image))


@pytest.mark.parametrize("name", ["vit", "mlp_mixer"])
def test_single_pixels_without_locality_lose_nothing(name: str) -> None:
    """At patch size 1 a ViT with learned positions and an MLP-Mixer give the same logits, with their weights reordered."""
    model = build(name, **SMALL).double()
    images = torch.rand(2, 2, 6, 6, dtype=torch.double)
    before = model(images)
    source = find_permutation(PIXELS, image_size=6, patch_size=1)
    permuted = permute_positions(images, source)
    assert not torch.allclose(model(permuted), before)
    with torch.no_grad():
        if name == "vit":
            model.stem.positions.table.copy_(model.stem.positions.table[:, source])
        for block in model.blocks if name == "mlp_mixer" else []:
            expand, reduce = block.token_mixing.mixer.mlp.expand, block.token_mixing.mixer.mlp.reduce
            expand.weight.copy_(expand.weight[:, source])
            reduce.weight.copy_(reduce.weight[source])
            reduce.bias.copy_(reduce.bias[source])
    torch.testing.assert_close(model(permuted), before)


def test_a_convolution_loses_its_neighborhood() -> None:
    """No order of a depthwise kernel's weights undoes the permutation: a pixel's neighbors are other pixels."""
    model = build("convmixer", **SMALL, kernel_size=3).double().eval()
    image = torch.rand(1, 2, 6, 6, dtype=torch.double, requires_grad=True)
    source = find_permutation(PIXELS, image_size=6, patch_size=1)
    model.blocks[0].token_mixing(model.stem(permute_positions(image, source)))[0, :, 2, 2].sum().backward()
    seen = image.grad.abs().sum(dim=(0, 1)).flatten().nonzero().flatten().tolist()
    near = [2 * 6 + 2 + 6 * down + right for down in (-1, 0, 1) for right in (-1, 0, 1)]
    assert sorted(seen) == sorted(source[near].tolist()) != sorted(near)


@pytest.mark.parametrize("option", ["permute_pixels", "permute_patches"])
def test_training_and_evaluation_are_permuted_alike(option: str) -> None:
    """Batches are those of the run without the control, augmented and mixed, with their pixels permuted afterwards."""
    plain = toy_run(augment={"crop": 2, "erasing": 0.5, "cutmix": 0.5})
    control = replace(plain, data=plain.data.model_copy(update={option: True}))
    assert control.run_id != plain.run_id
    source = find_input_permutation(control, torch.device("cpu"))
    kwargs = {"device": torch.device("cpu"), "layout": torch.contiguous_format}
    trained = [[images for images, _ in TrainingBatches(run, splits(), **kwargs).epoch(0)] for run in (plain, control)]
    evaluated = [
        [images for images, _ in EvaluationBatches(splits().val, facts=FACTS, permutation=permutation, **kwargs)]
        for permutation in (None, source)
    ]
    for without, with_control in zip(trained[0] + evaluated[0], trained[1] + evaluated[1], strict=True):
        assert not torch.equal(without, with_control)
        assert torch.equal(permute_positions(without, source), with_control)

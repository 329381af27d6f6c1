"""The kernels in whole models: installed where they are faster, named, and checked before use."""

from __future__ import annotations

import copy
import dataclasses
import os

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from study.backbones import build
from study.backbones.token_mixers import DepthwiseConv2d
from study.cpu_kernels.compiler import KernelsUnavailable
from study.cpu_kernels.extension import (
    NO_KERNELS,
    install_kernels,
    is_convolution_correct,
    is_gelu_norm_correct,
    load_extension,
)
from study.cpu_kernels.gelu_norm import GeluBatchNorm2d

SETTINGS = {"image_size": 8, "in_channels": 3, "num_classes": 5, "patch_size": 1, "dim": 20, "depth": 2}


@pytest.fixture(scope="module")
def extension():
    try:
        return load_extension(os.environ)
    except KernelsUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def counted(extension):
    """The extension, and a list with one entry per call of its kernels."""
    calls: list[str] = []

    def counting(name, function):
        def call(*arguments):
            calls.append(name)
            return function(*arguments)

        return call

    gelu_norm = dataclasses.replace(extension.gelu_norm, forward=counting("norm", extension.gelu_norm.forward))
    convolution = counting("convolution", extension.convolution)
    return dataclasses.replace(extension, convolution=convolution, gelu_norm=gelu_norm), calls


MODELS = {
    "ConvMixer": ("convmixer", {"kernel_size": 5}, {"convolution": 2, "norm": 5}),
    "ConvMixer, k = 3": ("convmixer", {"kernel_size": 3}, {"norm": 5}),
    "ConvMixer, LayerNorm": ("convmixer", {"kernel_size": 7, "norm": "layer"}, {"convolution": 2}),
    "ConvMixer, ReLU": ("convmixer", {"kernel_size": 7, "activation": "relu"}, {"convolution": 2}),
    "ConvNeXt": ("convnext", {"kernel_size": 7}, {"convolution": 2}),
    "MetaFormer": ("metaformer", {"token_mixer": "depthwise_conv", "kernel_size": 5}, {"convolution": 2}),
    "ViT": ("vit", {"heads": 4}, {}),
    "MLP-Mixer": ("mlp_mixer", {}, {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_with_the_kernels_computes_the_same(counted, name):
    """Losses, gradients and statistics agree with the plain model's; each kernel is called as often as it was installed."""
    extension, calls = counted
    backbone, extra, expected = MODELS[name]
    model = build(backbone, **SETTINGS, **extra).to(memory_format=torch.channels_last)
    twin = copy.deepcopy(model)
    assert install_kernels(model, extension) == (extension.name if expected else NO_KERNELS)
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)
    losses = [F.cross_entropy(each(images), torch.arange(6) % 5) for each in (model, twin)]
    for loss in losses:
        loss.backward()
    assert {kind: calls.count(kind) for kind in dict.fromkeys(calls)} == expected or not expected
    assert len(calls) == sum(expected.values())
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    for (ours, mine), (theirs, other) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert ours == theirs
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=2e-5, msg=ours)
    for (ours, mine), (theirs, other) in zip(model.named_buffers(), twin.named_buffers(), strict=True):
        assert ours == theirs
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6, msg=ours)


def test_a_copy_uses_the_kernels(counted):
    """Averaged weights are kept in a deep copy of the model."""
    extension, calls = counted
    model = build("convmixer", kernel_size=5, **SETTINGS).to(memory_format=torch.channels_last)
    install_kernels(model, extension)
    twin = copy.deepcopy(model)
    twin(torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last))
    assert calls.count("convolution") == 2 and calls.count("norm") == 5
    assert {id(parameter) for parameter in twin.parameters()}.isdisjoint(map(id, model.parameters()))


def test_evaluation_has_the_plain_models_bits(extension):
    """Weights trained with the kernels give the same predictions with them and without."""
    model = build("convmixer", kernel_size=5, **SETTINGS).to(memory_format=torch.channels_last).eval()
    images = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        plain = model(images)
        install_kernels(model, extension)
        assert any(isinstance(module, GeluBatchNorm2d) for module in model.modules())
        assert any(isinstance(m, DepthwiseConv2d) and m.convolution for m in model.modules())
        assert torch.equal(model(images), plain)


def test_without_an_extension_nothing_changes():
    """The model's modules are unchanged."""
    model = build("convmixer", kernel_size=5, **SETTINGS)
    before = [type(module) for module in model.modules()]
    assert install_kernels(model, None) == NO_KERNELS
    assert [type(module) for module in model.modules()] == before and nn.GELU in before


def test_wrong_kernels_are_detected(extension):
    """The checks on loading compare every result: a missing flip, zeros, a wrong bias and NaN all fail."""

    def spoilt(function, at, change):
        def call(*arguments):
            found = list(function(*arguments))
            found[at] = change(found[at])
            return tuple(found)

        return call

    backward = extension.convolution.__closure__[0].cell_contents
    assert is_convolution_correct(backward, 5)
    assert not is_convolution_correct(spoilt(backward, 0, lambda tensor: tensor.flip(2, 3)), 5)
    assert not is_convolution_correct(spoilt(backward, 1, torch.zeros_like), 5)
    assert not is_convolution_correct(spoilt(backward, 2, lambda tensor: tensor * 1.001), 5)
    kernel = extension.gelu_norm
    assert is_gelu_norm_correct(kernel)
    for at in range(3):
        wrong = dataclasses.replace(kernel, backward=spoilt(kernel.backward, at, lambda tensor: tensor * 1.001))
        assert not is_gelu_norm_correct(wrong)
    lost = dataclasses.replace(kernel, forward=spoilt(kernel.forward, 0, lambda tensor: tensor * float("nan")))
    assert not is_gelu_norm_correct(lost)

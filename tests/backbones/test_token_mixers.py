"""Each token mixer computes what its paper says: timm, scipy or the formula written out is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import scipy.signal
import torch
from timm.layers import GatedMlp
from timm.layers.pos_embed_rel import RelPosBias
from timm.models.mlp_mixer import SpatialGatingUnit
from torch import Tensor, nn

from study.backbones import build_backbone, specify
from study.backbones.attention import LocalAttention, SelfAttention
from study.backbones.fourier import FourierMixing, GlobalFilter
from study.backbones.specification import BackboneSpec
from study.backbones.token_mixers import TOKEN_MIXERS, SpatialGating
from study.errors import UserError

SMALL = {"image_size": 10, "in_channels": 3, "num_classes": 5, "patch_size": 2, "dim": 12, "depth": 1, "heads": 3}


def mixer_of(name: str, **options: object) -> tuple[BackboneSpec, nn.Module]:
    """A specification with this mixer, and the mixer with random weights, in double precision."""
    spec = specify("metaformer", SMALL | {"token_mixer": name, "kernel_size": 3} | options)
    mixer = build_backbone(spec).blocks[0].token_mixing.mixer.double()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in mixer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return spec, mixer


def assert_equal_with_gradients(
    ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], shape: tuple[int, ...], *leaves: Tensor
) -> None:
    """Outputs are equal, and so are the gradients by the input and by `leaves`, the weights that both use."""
    inputs = torch.randn(shape, dtype=torch.double, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights = torch.randn(shape, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    found = []
    for mix in (ours, theirs):
        output = mix(inputs)
        found.append((output, *torch.autograd.grad((output * weights).sum(), [inputs, *leaves])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def attend(mixer: SelfAttention | LocalAttention, tokens: Tensor, bias: Tensor) -> Tensor:
    """Attention head by head from the definition, with `bias` (h n n) added to the scores."""
    b, n, d = tokens.shape
    q, k, v = mixer.qkv(tokens).view(b, n, 3, mixer.heads, d // mixer.heads).unbind(2)
    heads = []
    for head in range(mixer.heads):
        scores = q[:, :, head] @ k[:, :, head].transpose(1, 2) / (d // mixer.heads) ** 0.5 + bias[head]
        heads.append(scores.exp() / scores.exp().sum(dim=-1, keepdim=True) @ v[:, :, head])
    return mixer.out(torch.cat(heads, dim=-1))


@pytest.mark.parametrize("pooling", ["mean", "class_token"])
def test_relative_bias_is_timms(pooling: str) -> None:
    """Scores get the bias of timm's (Swin's) table, none to and from a class token."""
    spec, mixer = mixer_of("relative_attention", pooling=pooling)
    timms = RelPosBias((5, 5), num_heads=3).double()

    def oracle(tokens: Tensor) -> Tensor:
        index = timms.relative_position_index
        bias = torch.zeros(3, spec.sequence, spec.sequence, dtype=torch.double)
        bias[:, spec.sequence - 25 :, spec.sequence - 25 :] = mixer.relative.relative_bias[:, index].view(3, 25, 25)
        return attend(mixer, tokens, bias)

    assert_equal_with_gradients(mixer, oracle, (2, spec.sequence, 12), *mixer.parameters())


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 9])
def test_local_attention_is_attention_to_near_positions(kernel_size: int) -> None:
    """It equals attention over all positions of which those further than half a kernel are masked."""
    _, mixer = mixer_of("local_attention", kernel_size=kernel_size)
    y, x = torch.arange(25) // 5, torch.arange(25) % 5
    distance = torch.maximum((y[:, None] - y).abs(), (x[:, None] - x).abs())
    bias = torch.where(distance <= kernel_size // 2, 0.0, -torch.inf).double().expand(3, -1, -1)
    assert_equal_with_gradients(mixer, partial(attend, mixer, bias=bias), (2, 25, 12), *mixer.parameters())


@pytest.mark.parametrize("pooling", ["mean", "class_token"])
def test_gating_is_gmlps(pooling: str) -> None:
    """Outputs and gradients are those of timm's gated MLP with a spatial gating unit."""
    spec, mixer = mixer_of("gating", pooling=pooling)
    unit = partial(SpatialGatingUnit, seq_len=spec.sequence, norm_layer=partial(nn.LayerNorm, eps=1e-6))
    theirs = GatedMlp(12, 24, gate_layer=unit).double()
    names = {"fc1": "expand", "gate.norm": "norm", "gate.proj": "spatial_gate", "fc2": "reduce"}
    for name, own in names.items():
        module = theirs.get_submodule(name)
        module.weight, module.bias = mixer.get_submodule(own).weight, mixer.get_submodule(own).bias
    assert_equal_with_gradients(mixer, theirs, (2, spec.sequence, 12), *mixer.parameters())


def test_a_gate_begins_open() -> None:
    """At first the gate multiplies by one: the output is that of the layer without mixing."""
    spec = specify("metaformer", SMALL | {"token_mixer": "gating"})
    mixer = build_backbone(spec).blocks[0].token_mixing.mixer
    assert isinstance(mixer, SpatialGating)
    tokens = torch.randn(2, 25, 12)
    ungated = mixer.reduce(mixer.activation(mixer.expand(tokens))[..., :12])
    torch.testing.assert_close(mixer(tokens), ungated, rtol=0, atol=1e-4)


def test_fourier_mixing_is_fnets() -> None:
    """The real part of scipy's transform over positions and features, and the products with matrices of cosines and sines."""
    tokens = torch.randn(2, 25, 12, dtype=torch.double)
    expected = scipy.fft.fft2(tokens.numpy(), axes=(1, 2), norm="ortho").real
    np.testing.assert_allclose(FourierMixing()(tokens).numpy(), expected, atol=1e-12)

    def matrices(values: Tensor) -> Tensor:
        positions, features = (2 * torch.pi * torch.arange(n).outer(torch.arange(n)).double() / n for n in (25, 12))
        return (positions.cos() @ values @ features.cos() - positions.sin() @ values @ features.sin()) / (25 * 12) ** 0.5

    assert_equal_with_gradients(FourierMixing(), matrices, (2, 25, 12))


@pytest.mark.parametrize("image_size", [10, 8])
def test_a_global_filter_is_a_circular_convolution(image_size: int) -> None:
    """scipy's convolution that wraps around the borders, with the kernel whose transform the filter is."""
    spec = specify("metaformer", SMALL | {"token_mixer": "global_filter", "image_size": image_size})
    mixer, g = GlobalFilter(spec).double(), spec.grid
    kernels = np.random.default_rng(0).standard_normal((12, g, g))
    spectrum = scipy.fft.rfft2(kernels)
    with torch.no_grad():
        mixer.frequency_filter.copy_(torch.view_as_real(torch.from_numpy(spectrum)))
    grid = torch.randn(1, 12, g, g, dtype=torch.double)
    for image, kernel, filtered in zip(grid[0], kernels, mixer(grid)[0], strict=True):
        full = sum(kernel[y, x] * np.roll(image, (y, x), axis=(0, 1)) for y in range(g) for x in range(g))
        np.testing.assert_allclose(filtered.detach().numpy(), full, atol=1e-12)


@pytest.mark.parametrize(("name", "groups"), [("conv", 1), ("grouped_conv", 3), ("grouped_conv", 12)])
def test_convolutions_sum_over_their_group(name: str, groups: int) -> None:
    """Each output is the sum of scipy's correlations with the features of its group; `grouped_conv` has a group per head."""
    _, mixer = mixer_of(name, heads=groups)
    tokens = torch.randn(1, 25, 12, dtype=torch.double)
    grid, mixed = (values[0].T.reshape(12, 5, 5).detach().numpy() for values in (tokens, mixer(tokens)))
    weight, bias = mixer.inner.weight.detach().numpy(), mixer.inner.bias.detach().numpy()
    for output in range(12):
        first = output // (12 // groups) * (12 // groups)
        planes = zip(grid[first : first + 12 // groups], weight[output], strict=True)
        expected = sum(scipy.signal.correlate2d(plane, kernel, mode="same") for plane, kernel in planes) + bias[output]
        np.testing.assert_allclose(mixed[output], expected, atol=1e-12)


def test_a_linear_mixer_is_one_matrix_over_positions() -> None:
    """Every feature is multiplied by the same matrix."""
    _, mixer = mixer_of("linear")

    def oracle(tokens: Tensor) -> Tensor:
        return torch.einsum("bnd,mn->bmd", tokens, mixer.linear.weight) + mixer.linear.bias[:, None]

    assert_equal_with_gradients(mixer, oracle, (2, 25, 12), *mixer.parameters())


@pytest.mark.parametrize(("name", "macs", "params"), [("fourier", 3_086, 0), ("global_filter", 4_224, 2 * 12 * 15)])
def test_fourier_transforms_have_their_convention(name: str, macs: int, params: int) -> None:
    """5/4 N log2 N: 3,086 for 25 x 12 numbers; 146 for 25 positions, for each of 12 features and both ways, and 4 x 12 x 15."""
    cost = TOKEN_MIXERS[name].cost(specify("metaformer", SMALL | {"token_mixer": name}))
    assert (cost.macs, cost.params) == (macs, params)


def test_half_precision_tokens_come_back_in_it() -> None:
    """Fourier mixers compute in float32 and return what they were given."""
    for name in ("fourier", "global_filter"):
        mixer = build_backbone(specify("metaformer", SMALL | {"token_mixer": name})).blocks[0].token_mixing.mixer
        assert mixer(torch.randn(1, 25, 12, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_blocks_have_the_mixers_that_are_listed() -> None:
    """A list and counts name the same model; each block is that of a body with its mixer throughout, weights included."""
    settings = SMALL | {"depth": 3, "kernel_size": 3}
    listed = specify("metaformer", settings | {"token_mixer": ["conv", "conv", "attention"]})
    assert listed == specify("metaformer", settings | {"token_mixer": {"conv": 2, "attention": 1}})
    assert type(listed).model_validate_json(listed.model_dump_json()) == listed
    hybrid = build_backbone(listed)
    for number, mixer in enumerate(["conv", "conv", "attention"]):
        pure = build_backbone(specify("metaformer", settings | {"token_mixer": mixer}))
        own, other = hybrid.blocks[number].state_dict(), pure.blocks[number].state_dict()
        assert own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


def test_one_mixer_throughout_has_one_spelling() -> None:
    """A list of equal mixers is that mixer, so that the run keeps its identity; a trace has each mixer of a list once."""
    settings = SMALL | {"depth": 2, "kernel_size": 3}
    assert specify("metaformer", settings | {"token_mixer": {"conv": 2}}) == specify(
        "metaformer", settings | {"token_mixer": "conv"}
    )
    mixed = specify("metaformer", settings | {"depth": 7, "token_mixer": {"conv": 4, "attention": 3}}).at_depth_of_trace()
    assert mixed.model_dump()["token_mixer"] == ("conv", "attention")


WRONG = [
    ({"conv": 3}, "depth is 2, and token_mixer names the mixers of 3 blocks"),
    (["conv"], "names the mixers of 1 blocks"),
    ({"conv": 0, "attention": 2}, "a number of blocks each, 1 to 1,000"),
    ({"conv": 10**12}, "a number of blocks each, 1 to 1,000"),
    ({}, "a number of blocks each"),
    (["conv", "convv"], "'depthwise_conv'"),
    ([], "'depthwise_conv'"),
    (3, "'depthwise_conv'"),
]


@pytest.mark.parametrize(("value", "rule"), WRONG)
def test_mixers_by_depth_are_checked(value: object, rule: str) -> None:
    """The rule is named at the option."""
    with pytest.raises(UserError) as refusal:
        specify("metaformer", SMALL | {"depth": 2, "token_mixer": value})
    assert [problem.key for problem in refusal.value.problems] == ["token_mixer"]
    assert rule in refusal.value.problems[0].rule

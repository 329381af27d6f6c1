"""The closed form equals fvcore's count and torch's count, for every backbone with every option."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from study.backbones import BACKBONES, build_backbone, names, specify
from study.backbones.closed_form import count_pairs_within
from study.backbones.specification import BackboneSpec
from study.backbones.token_mixers import TOKEN_MIXERS
from study.errors import UserError
from study.planning.traced_cost import count_cost

SMALL = {"image_size": 8, "in_channels": 3, "num_classes": 5, "patch_size": 2, "dim": 32, "depth": 2}

SEQUENCE_OPTIONS: dict[str, st.SearchStrategy[object]] = {
    "registers": st.sampled_from([0, 0, 2]),
    "channel_mixer": st.sampled_from(["mlp", "swiglu"]),
    "bias": st.booleans(),
}
OWN_OPTIONS: dict[str, dict[str, st.SearchStrategy[object]]] = {
    "convmixer": {
        "kernel_size": st.sampled_from([1, 3, 5, 7]),
        "residual": st.sampled_from(["depthwise", "pointwise", "both", "none"]),
    },
    "vit": {
        "heads": st.sampled_from([1, 2, 4]),
        "mlp_dim": st.integers(1, 40),
        "position_embedding": st.sampled_from(["learned", "none", "rope", "learned_rope", "relative"]),
        "qk_norm": st.booleans(),
    }
    | SEQUENCE_OPTIONS,
    "mlp_mixer": {"token_dim": st.integers(1, 20), "channel_dim": st.integers(1, 40)} | SEQUENCE_OPTIONS,
    "convnext": {"kernel_size": st.sampled_from([1, 3, 5, 7]), "mlp_dim": st.integers(1, 40)},
    "metaformer": {
        "token_mixer": st.one_of(
            st.sampled_from(list(TOKEN_MIXERS)), st.lists(st.sampled_from(list(TOKEN_MIXERS)), min_size=1, max_size=2)
        ),
        "kernel_size": st.sampled_from([1, 3, 5, 7]),
        "heads": st.sampled_from([1, 2, 4]),
        "token_dim": st.integers(1, 20),
        "mlp_dim": st.integers(1, 40),
        "qk_norm": st.booleans(),
    }
    | SEQUENCE_OPTIONS,
}


@st.composite
def specs(draw: st.DrawFn) -> BackboneSpec:
    """Any backbone that can be built, at sizes that are traced in milliseconds."""
    name = draw(st.sampled_from(names()))
    patch_size = draw(st.sampled_from([1, 2, 3, 4]))
    shared = {
        "image_size": patch_size * draw(st.integers(1, 5)),
        "in_channels": draw(st.integers(1, 4)),
        "num_classes": draw(st.integers(1, 7)),
        "patch_size": patch_size,
        "dim": 4 * draw(st.integers(2, 6)),
        "depth": draw(st.integers(1, 2)),
        "stem": draw(st.sampled_from(["patchify", "overlap", "conv", "spt", "conv_pool"])),
        "position_embedding": draw(st.sampled_from(["learned", "sincos", "none"])),
        "pooling": draw(st.sampled_from(["mean", "class_token", "attention"])),
        "norm": draw(st.sampled_from(["batch", "layer", "rms"])),
        "layer_scale": draw(st.sampled_from([None, 1e-4])),
        "activation": draw(st.sampled_from(["gelu", "relu"])),
    }
    own = {option: draw(values) for option, values in OWN_OPTIONS[name].items()}
    try:
        return specify(name, shared | own)
    except UserError:  # these options don't go together
        assume(False)
        raise


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])
@given(spec=specs())
def test_fvcore_counts_the_closed_form(spec: BackboneSpec) -> None:
    """The traced count and the closed form are equal in every part and every number."""
    cost = count_cost(build_backbone(spec), image_size=spec.image_size, in_channels=spec.in_channels)
    assert cost == spec.closed_form()


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])
@given(spec=specs())
def test_torch_counts_the_same_on_the_meta_device(spec: BackboneSpec) -> None:
    """FlopCounterMode, which sees operators and not a trace, counts two operations per MAC, but no Fourier transforms."""
    assume("fourier" not in repr(spec) and "global_filter" not in repr(spec))
    with torch.device("meta"):
        model, images = (BACKBONES[spec.backbone].construct(spec), torch.zeros(1, spec.in_channels, *[spec.image_size] * 2))
    with FlopCounterMode(display=False) as counter:
        model.eval()(images)
    assert counter.get_total_flops() == spec.closed_form().flops


def unfused_attention(q: Tensor, k: Tensor, v: Tensor, bias: None) -> Tensor:
    """The fused kernel's result, as two products."""
    return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v


@pytest.mark.parametrize("pooling", ["mean", "class_token"])
@pytest.mark.parametrize("name", ["vit", "metaformer"])
def test_attention_costs_the_same_however_it_is_executed(name: str, pooling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention written out as two products costs as much as the fused operator."""
    model = build_backbone(specify(name, SMALL | {"heads": 4, "pooling": pooling}))
    fused = count_cost(model, image_size=8, in_channels=3)
    monkeypatch.setattr(functional, "scaled_dot_product_attention", unfused_attention)
    assert count_cost(model, image_size=8, in_channels=3) == fused == model.spec.closed_form()


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_integer_padding_costs_the_same(kernel_size: int) -> None:
    """A depthwise convolution padded by a number costs as much as one with padding="same"."""
    model = build_backbone(specify("convmixer", SMALL | {"kernel_size": kernel_size}))
    for block in model.blocks:
        convolution = block.token_mixing.inner.convolution
        assert convolution.padding == "same"
        convolution.padding = (kernel_size // 2, kernel_size // 2)
    assert count_cost(model, image_size=8, in_channels=3) == model.spec.closed_form()


@given(grid=st.integers(1, 12), reach=st.integers(0, 15))
@settings(deadline=None)
def test_pairs_within_are_counted(grid: int, reach: int) -> None:
    """The formula for a kernel row's taps on real inputs agrees with counting them."""
    assert count_pairs_within(grid, reach) == sum(abs(i - j) <= reach for i in range(grid) for j in range(grid))


def test_a_random_mixer_is_frozen_but_not_free() -> None:
    """Its matrix is no trainable parameter, and its products are counted."""
    random, identity = (specify("metaformer", SMALL | {"token_mixer": name}).closed_form() for name in ("random", "identity"))
    assert random.params == identity.params
    assert random.frozen_params == 2 * 16**2
    assert random.macs - identity.macs == 2 * 16**2 * 32

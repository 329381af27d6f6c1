"""Laws of the cost account: sums, published figures, and every operator charged what it multiplies."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from study.backbones import build, specify
from study.backbones.closed_form import MODEL_PARTS
from study.data.torchvision_schema import declare_missing_operators
from study.errors import UserError
from study.planning.traced_cost import count_cost

PUBLISHED = {  # (patch size, kernel size): params, MACs of ConvMixer-256/8 on 32 x 32 pixels with 10 classes
    (1, 5): (591_882, 590_088_704),
    (2, 5): (594_186, 148_113_920),
    (4, 5): (603_402, 37_620_224),
    (2, 7): (643_338, 160_696_832),
    (1, 9): (706_570, 707_529_216),
    (2, 9): (708_874, 177_474_048),
}


@pytest.mark.parametrize(("patch_size", "kernel_size"), PUBLISHED)
def test_convmixer_256_8_costs_what_is_published(patch_size: int, kernel_size: int) -> None:
    """Parameters and MACs of the CIFAR-10 models, to the last digit."""
    spec = specify("convmixer_256_8", {"patch_size": patch_size, "kernel_size": kernel_size})
    cost = spec.closed_form()
    assert (cost.params, cost.macs) == PUBLISHED[patch_size, kernel_size]


def test_totals_are_the_sums_of_the_parts() -> None:
    """Four parts, whose sums are the totals; FLOPs are two and training three times the MACs."""
    model = build("vit", image_size=8, in_channels=1, num_classes=10, patch_size=2, dim=16, depth=2)
    cost = count_cost(model, image_size=8, in_channels=1)
    assert tuple(cost.parts) == MODEL_PARTS
    assert cost.params == sum(parameter.numel() for parameter in model.parameters())
    assert cost.macs == sum(part.macs for part in cost.parts.values())
    assert (cost.flops, cost.training_macs) == (2 * cost.macs, 3 * cost.macs)


class OneOperator(nn.Module):
    """Applies one function to an image and a weight."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.ones(shape))

    def forward(self, image: Tensor) -> Tensor:
        return self.function(image, self.weight)


OPERATORS = {  # on an image of 1 x 2 x 6 x 6: weight shape, function, MACs
    "padding same": ((4, 2, 3, 3), lambda x, w: functional.conv2d(x, w, padding="same"), 36 * 4 * 2 * 9),
    "padding 1": ((4, 2, 3, 3), lambda x, w: functional.conv2d(x, w, padding=1), 36 * 4 * 2 * 9),
    "valid": ((4, 2, 3, 3), lambda x, w: functional.conv2d(x, w, padding="valid"), 16 * 4 * 2 * 9),
    "stride 2": ((4, 2, 3, 3), lambda x, w: functional.conv2d(x, w, stride=2), 4 * 4 * 2 * 9),
    "depthwise": ((2, 1, 3, 3), lambda x, w: functional.conv2d(x, w, padding="same", groups=2), 36 * 2 * 9),
    "transposed": ((2, 4, 2, 2), lambda x, w: functional.conv_transpose2d(x, w, stride=2), 36 * 2 * 4 * 4),
    "matmul broadcast on the left": ((5, 6), lambda x, w: w @ x, 2 * 5 * 6 * 6),
    "matmul broadcast on the right": ((6, 5), lambda x, w: x @ w, 2 * 6 * 6 * 5),
    "linear": ((5, 6), functional.linear, 2 * 6 * 6 * 5),
    "einsum": ((5, 6), lambda x, w: torch.einsum("bchw,ow->bcho", x, w), 2 * 6 * 6 * 5),
    "einsum without product": ((5, 6), lambda x, w: torch.einsum("bchw->bcwh", x), 0),
    "bmm": ((2, 6, 5), lambda x, w: torch.bmm(x[0], w), 2 * 6 * 6 * 5),
    "baddbmm": ((2, 6, 5), lambda x, w: torch.baddbmm(w, x[0], w), 2 * 6 * 6 * 5),
    "addbmm": ((2, 6, 5), lambda x, w: torch.addbmm(w[0], x[0], w), 2 * 6 * 6 * 5),
    "addmm": ((6, 5), lambda x, w: torch.addmm(w, x[0, 0], w), 6 * 6 * 5),
    "mv": ((6,), lambda x, w: torch.mv(x[0, 0], w), 6 * 6),
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_handler_counts_multiplications(operator: str) -> None:
    """Each operator is charged one MAC per multiplication that is summed, counted here by hand."""
    shape, function, macs = OPERATORS[operator]
    cost = count_cost(OneOperator(function, shape), image_size=6, in_channels=2)
    assert cost.macs == macs
    assert cost.params == math.prod(shape)


UNKNOWN = {
    "aten::cdist": lambda x, w: torch.cdist(x, w),
    "aten::bilinear": lambda x, w: functional.bilinear(x, x, w.expand(3, 6, 6)),
    "aten::cumsum": lambda x, w: torch.cumsum(x * w, dim=-1),
}


@pytest.mark.parametrize("operator", UNKNOWN)
def test_an_operator_without_a_count_is_an_error_that_names_it(operator: str) -> None:
    """What could carry MACs and is not counted is refused, never charged nothing."""
    with pytest.raises(UserError, match=operator):
        count_cost(OneOperator(UNKNOWN[operator], (6, 6)), image_size=6, in_channels=2)


def test_counting_leaves_the_model_as_it_was() -> None:
    """Modes, weights and running statistics are untouched, and torch's generator too."""
    model = build("convmixer", image_size=8, in_channels=1, num_classes=3, patch_size=2, dim=8, depth=1, kernel_size=3)
    model.blocks.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.random.get_rng_state()
    count_cost(model, image_size=8, in_channels=1)
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


class SelfAttention(nn.Module):
    """torch's own attention over the pixels, then operators that multiply nothing."""

    def __init__(self, *, weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.others = nn.Sequential(nn.Hardtanh(), nn.Hardsigmoid(), nn.RMSNorm(8), nn.Hardswish(), nn.ELU(), nn.GLU())
        self.weights = weights

    def forward(self, image: Tensor) -> Tensor:
        tokens = image.flatten(2).transpose(1, 2)
        attended: Tensor = self.attention(tokens, tokens, tokens, need_weights=self.weights)[0]
        return self.others(attended)


@pytest.mark.parametrize("weights", [True, False])
def test_torchs_own_attention_is_counted(weights: bool) -> None:
    """By arithmetic: four projections and two products over 16 tokens of width 8; the fast path is on again afterwards."""
    cost = count_cost(SelfAttention(weights=weights), image_size=4, in_channels=8)
    assert cost.macs == 16 * 4 * 8 * 8 + 2 * 16 * 16 * 8
    assert torch.backends.mha.get_fastpath_enabled()


def test_torchvisions_vit_is_counted() -> None:
    """By arithmetic: 16 patches of 8 x 8 and a class token, one block of width 16 and 32, five classes."""
    declare_missing_operators()
    from torchvision.models import VisionTransformer

    tokens, dim = 17, 16
    block = tokens * 4 * dim**2 + 2 * tokens**2 * dim + 2 * tokens * dim * 32
    model = VisionTransformer(32, 8, 1, 2, dim, 32, num_classes=5)
    assert count_cost(model, image_size=32, in_channels=3).macs == 16 * 3 * 64 * dim + block + 5 * dim

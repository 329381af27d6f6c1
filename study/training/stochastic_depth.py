"""Stochastic depth: in training, residual branches are dropped per image, the later in the network the more often.

Huang et al., "Deep networks with stochastic depth", ECCV 2016, with the rates of timm's recipes: block l of L drops its
branches with probability rate x l / (L - 1), l counted from 0, and a branch that is kept is scaled up by 1 / (1 - that), so
that nothing changes in evaluation. Which are dropped is keyed by (seed, epoch) and the image's position in the epoch's order.
"""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from study.backbones.base import Backbone, PreNormResidual, WholeBackbone
from study.backbones.convmixer import Residual
from study.backbones.convnext import ConvNeXtBlock
from study.errors import Problem, UserError
from study.rng import stream

BRANCHES: Mapping[type[nn.Module], str] = {PreNormResidual: "mixer", Residual: "inner", ConvNeXtBlock: "channel_mixing"}
"""Residual modules, and the name of the submodule that computes what is added to the input."""


class StochasticDepth:
    """Hooks on the residual branches of `model` that scale what they add, per image; `images` take part in an epoch."""

    def __init__(self, model: Backbone, *, rate: float, seed: int, images: int, device: torch.device):
        if isinstance(model, WholeBackbone):
            raise UserError(Problem(f"{model.spec.backbone} has no blocks to drop", key="train.stochastic_depth", value=rate))
        found = list(find_residual_branches(model))
        last = max(len(model.blocks) - 1, 1)
        self._rates = torch.tensor([rate * block / last for block, _ in found])
        self._seed, self._images, self._device = seed, images, device
        self._epoch = -1
        self._scales = self._selected = torch.empty(0)
        for column, (_, branch) in enumerate(found):
            branch.register_forward_hook(partial(self._scale_branch, column))

    def select(self, *, epoch: int, first: int, count: int) -> None:
        """Select the images at positions `first`, ..., `first + count - 1` of the epoch's order for the next forward passes."""
        if epoch != self._epoch:
            draws = stream(self._seed, "stochastic depth", epoch).random((self._images, len(self._rates)), dtype="float32")
            # The factor of each branch for each image, `n branches`: 0, or the inverse of the probability to be kept.
            scales = (torch.from_numpy(draws) >= self._rates) / (1 - self._rates)
            self._epoch, self._scales = epoch, scales.to(self._device)
        self._selected = self._scales[first : first + count]

    def _scale_branch(self, column: int, branch: nn.Module, _inputs: tuple[Tensor, ...], added: Tensor) -> Tensor:
        if not branch.training:
            return added
        scale = self._selected[:, column].to(added.dtype)
        return added * scale.view(-1, *[1] * (added.ndim - 1))


def find_residual_branches(model: Backbone) -> Iterator[tuple[int, nn.Module]]:
    """The modules whose output is added to a residual's input, first to last, each with its block's number."""
    for number, block in enumerate(model.blocks):
        for module in block.modules():
            if type(module) in BRANCHES:
                yield number, getattr(module, BRANCHES[type(module)])

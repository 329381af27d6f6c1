"""Several runs of one architecture as one model: their weights with a leading axis over runs, one call in place of k.

Small models spend their time on calls, not on arithmetic. The images of all k runs stand one run after the other,
`(k b) c h w`, so what has no weights works as it is; linear maps become batched products, and what treats each feature for
itself (depthwise convolutions, batch norms) works on the k x d features of all runs at once. The runs' own models remain, as
views: their weights and gradients lie in those of the stack, so that each is updated, judged and saved as if it were alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.backbones.layers import GridLayerNorm
from study.backbones.position_embedding import LearnedPositions
from study.backbones.token_mixers import RandomMixing
from study.cpu_kernels.gelu_norm import GeluBatchNorm2d

ACTIVATIONS = (nn.GELU, nn.ReLU, nn.Identity)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, GeluBatchNorm2d)
WIDTHS = ("num_features", "in_channels", "out_channels", "groups")


class Unstackable(Exception):
    """A model with a part that has no stacked form; the message names it."""


class Stack:
    """The `models` of several runs as one, `(k b) c h w -> (k b) classes`; they are of one architecture, on one device.

    From here on their weights, gradients and statistics are views of its own. Raises Unstackable before any is touched.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        check(models[0])
        self.size = len(models)
        self.model = stacked(models)
        self._gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]

    def forget_gradients(self) -> None:
        """Set all to zero where they are, as each run's own gradients are views of them."""
        torch._foreach_zero_(self._gradients)

    def apart(self, values: Tensor) -> Tensor:
        """(k b) ... -> k b ..."""
        return parted(values, 0, (self.size, -1))


def check(module: nn.Module) -> None:
    """Raises Unstackable where a part of the module holds weights and has no stacked form."""
    if form_of(module) is not None:
        return
    for name, held in [*module._parameters.items(), *module._buffers.items()]:
        if held is not None and name not in module._non_persistent_buffers_set:
            raise Unstackable(f"{type(module).__name__}.{name} has no stacked form")
    for child in module.children():
        check(child)


def stacked(modules: Sequence[nn.Module]) -> nn.Module:
    """The modules as one, `(k b) ... -> (k b) ...`."""
    first = modules[0]
    if form := form_of(first):
        return form(modules)
    whole = copy.copy(first)
    children = [list(module.children()) for module in modules]
    if type(first) is nn.Sequential:
        whole._modules = {str(at): each for at, each in enumerate(in_sequence(list(zip(*children, strict=True))))}
    else:
        named = [name for name, child in first._modules.items() if child is not None]
        whole._modules = dict(first._modules) | {
            name: stacked(parts) for name, parts in zip(named, zip(*children, strict=True), strict=True)
        }
    return whole


def form_of(module: nn.Module) -> Callable[[Sequence[Any]], nn.Module] | None:
    """What makes the stacked form of a module that holds weights itself; None where it has none."""
    if isinstance(module, nn.Conv2d) and cuts(module):
        return StackedPatches
    if feature_wise(module):
        return lambda modules: FeatureWise([modules])
    return FORMS.get(type(module))


def in_sequence(steps: Sequence[Sequence[nn.Module]]) -> Iterator[nn.Module]:
    """The stacked forms of modules that follow each other; neighbours that treat each feature for itself stay together."""
    for alike, group in groupby(steps, key=lambda step: feature_wise(step[0]) or type(step[0]) in ACTIVATIONS):
        found = list(group)
        if alike and any(feature_wise(step[0]) for step in found):
            yield FeatureWise(found)
        else:
            yield from map(stacked, found)


def cuts(module: nn.Conv2d) -> bool:
    """Whether a convolution takes each pixel once, as those into patches and those of one pixel do."""
    return module.kernel_size == module.stride and module.padding in ((0, 0), "valid") and module.groups == 1


def feature_wise(module: nn.Module) -> bool:
    """Whether a module with weights can work on the features of all runs side by side: norms over the batch, and
    convolutions, as groups of their own."""
    return type(module) in NORMS or (isinstance(module, nn.Conv2d) and not cuts(module))


def together(parts: Sequence[Tensor]) -> nn.Parameter:
    """One parameter `k ...` of the runs' own, which become views of it, as do their gradients."""
    whole = nn.Parameter(torch.stack([part.detach().contiguous() for part in parts]), requires_grad=parts[0].requires_grad)
    whole.grad = torch.zeros_like(whole) if whole.requires_grad else None
    for number, part in enumerate(parts):
        part.data = whole.detach()[number]
        part.grad = None if whole.grad is None else whole.grad[number]
    return whole


class StackedLinear(nn.Module):
    """(k b) ... i -> (k b) ... o, each run by its own matrix."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.weight, self.bias = weights_of(layers)

    def forward(self, features: Tensor) -> Tensor:
        rows = mapped(features.reshape(len(self.weight), -1, features.shape[-1]), self.weight, self.bias)
        return rows.view(*features.shape[:-1], -1)


class StackedPatches(nn.Module):
    """A convolution that takes each pixel once, as a batched product: (k b) c (h p) (w p) -> (k b) d h w in channels_last."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.weight, self.bias = weights_of(layers)

    def forward(self, images: Tensor) -> Tensor:
        p, q = self.weight.shape[-2:]
        cut = parted(parted(images, 3, (-1, q)), 2, (-1, p)).permute(0, 2, 4, 1, 3, 5)  # (k b) h w c p p
        rows = cut.reshape(len(self.weight), -1, cut.shape[3:].numel())
        return mapped(rows, self.weight.flatten(2), self.bias).view(*cut.shape[:3], -1).permute(0, 3, 1, 2)


def parted(tensor: Tensor, axis: int, sizes: tuple[int, int]) -> Tensor:
    """The tensor with one axis as two."""
    found: Tensor = tensor.unflatten(axis, sizes)  # type: ignore[no-untyped-call]
    return found


def mapped(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """k m i -> k m o by weights k o i and biases k o."""
    if bias is None:
        return torch.bmm(rows, weight.transpose(1, 2))
    return torch.baddbmm(bias[:, None], rows, weight.transpose(1, 2))


class StackedLayerNorm(nn.Module):
    """Layer norm over the last axis, each run with its own scale and shift: (k b) ... d -> (k b) ... d."""

    def __init__(self, layers: Sequence[nn.LayerNorm]) -> None:
        super().__init__()
        self.eps = layers[0].eps
        self.weight = together([layer.weight for layer in layers])
        self.bias = together([layer.bias for layer in layers])

    def forward(self, tokens: Tensor) -> Tensor:
        (k, d), shape = self.weight.shape, tokens.shape
        rows = functional.layer_norm(tokens, (d,), eps=self.eps).reshape(k, -1, d)
        return torch.addcmul(self.bias[:, None], rows, self.weight[:, None]).view(shape)


class StackedGridLayerNorm(StackedLayerNorm):
    """The same over the features of a grid: (k b) d h w -> (k b) d h w."""

    def forward(self, grid: Tensor) -> Tensor:
        return super().forward(grid.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class StackedPositions(nn.Module):
    """Each run's own learned positions: (k b) n d -> (k b) n d."""

    def __init__(self, layers: Sequence[LearnedPositions]) -> None:
        super().__init__()
        self.table = together([layer.table for layer in layers])  # k 1 n d

    def forward(self, tokens: Tensor) -> Tensor:
        return (parted(tokens, 0, (len(self.table), -1)) + self.table).flatten(0, 1)


class StackedRandomMixing(nn.Module):
    """Each run's own frozen matrix over positions: (k b) n d -> (k b) n d."""

    def __init__(self, layers: Sequence[RandomMixing]) -> None:
        super().__init__()
        self.mixing = together([layer.mixing for layer in layers])  # k n n

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.mixing[:, None] @ parted(tokens, 0, (len(self.mixing), -1))).flatten(0, 1)


class FeatureWise(nn.Module):
    """Modules that treat each feature for itself, one after the other, on the features of all runs side by side.

    (k b) d ... -> (k b) d ...; inside b ... (k d), with the features last in memory.
    """

    def __init__(self, steps: Sequence[Sequence[nn.Module]]) -> None:
        super().__init__()
        self.size = len(steps[0])
        self.inner = nn.Sequential(*map(widened, steps))

    def forward(self, features: Tensor) -> Tensor:
        apart = parted(features.movedim(1, -1), 0, (self.size, -1))  # k b ... d
        found: Tensor = self.inner(apart.movedim(0, -2).flatten(-2).movedim(-1, 1))
        return parted(found.movedim(1, -1), -1, (self.size, -1)).movedim(-2, 0).flatten(0, 1).movedim(-1, 1)


def widened(modules: Sequence[nn.Module]) -> nn.Module:
    """One module of k x d features made of k of d, whose weights and statistics become views of its own."""
    whole = copy.copy(modules[0])
    for name in WIDTHS:
        if hasattr(whole, name):
            setattr(whole, name, len(modules) * getattr(whole, name))
    parts = {name: [module._parameters[name] for module in modules] for name in whole._parameters}
    whole._parameters = {name: side_by_side([each for each in found if each is not None]) for name, found in parts.items()}
    whole._buffers = dict(whole._buffers)
    for name, buffer in modules[0].named_buffers(recurse=False):
        if buffer.ndim == 0:  # a norm's counter, the same for all
            views = [buffer] * len(modules)
        else:
            whole._buffers[name] = torch.cat([module.get_buffer(name) for module in modules])
            views = list(whole.get_buffer(name).chunk(len(modules)))
        for module, view in zip(modules, views, strict=True):
            module._buffers[name] = view
    return whole


def side_by_side(parts: Sequence[nn.Parameter]) -> nn.Parameter | None:
    """One parameter `(k d) ...` of those `d ...`; None where there are none."""
    if not parts:
        return None
    apart = together(parts)
    whole = nn.Parameter(apart.detach().flatten(0, 1), requires_grad=apart.requires_grad)
    whole.grad = None if apart.grad is None else apart.grad.flatten(0, 1)
    return whole


def weights_of(layers: Sequence[Any]) -> tuple[nn.Parameter, nn.Parameter | None]:
    """The weights and biases of all runs' layers."""
    biases = None if layers[0].bias is None else together([layer.bias for layer in layers])
    return together([layer.weight for layer in layers]), biases


FORMS: Mapping[type[nn.Module], Callable[[Sequence[Any]], nn.Module]] = {
    nn.Linear: StackedLinear,
    nn.LayerNorm: StackedLayerNorm,
    GridLayerNorm: StackedGridLayerNorm,
    LearnedPositions: StackedPositions,
    RandomMixing: StackedRandomMixing,
}

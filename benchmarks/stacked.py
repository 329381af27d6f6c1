"""Several runs of one architecture as one model, for `benchmarks.stacking` alone: the engine trains run by run.

By hand is the best case: weights with a leading axis over runs, batched matrix products, depthwise convolutions and norms over
k x d features; the engine's compiled kernels; one update over all weights, with a learning rate for each run. By vmap is what
torch.func makes of the model as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from study.backbones.body import Backbone
from study.backbones.layers import LAYER_NORM_EPS
from study.backbones.specification import BackboneSpec
from study.backbones.vit import ViTSpec
from study.config.options import TrainOptions
from study.kernels.depthwise import SIZES, plain
from study.kernels.extension import Extension
from study.kernels.gelu_norm import GeluBatchNorm2d
from study.training.augmentation import Target
from study.training.optimizer import decays

Weights = Mapping[str, Tensor]  # by the model's own names, each `k ...`
Forward = Callable[[Weights, Tensor], Tensor]  # weights, images `k b c h w` -> logits `k b classes`


class Stack:
    """The weights of `models` and what moves them. Those that decay alike lie in one matrix `k n`: an update is 2 k vectors."""

    def __init__(self, models: Sequence[Backbone], train: TrainOptions, *, learning_rate: float) -> None:
        self.weights: dict[str, Tensor] = {}
        self._gradients: list[tuple[list[str], Tensor]] = []
        named, constant = ([dict(getattr(m, f"named_{kind}")()) for m in models] for kind in ("parameters", "buffers"))
        self.buffers = {name: torch.stack([each[name] for each in constant]) for name in constant[0]}
        groups = []
        for decayed in sorted({decays(name, weight, train) for name, weight in named[0].items()}):
            names = [name for name, weight in named[0].items() if decays(name, weight, train) == decayed]
            matrix = torch.stack([torch.cat([weights[name].detach().flatten() for name in names]) for weights in named])
            sizes = [named[0][name].numel() for name in names]
            for name, part in zip(names, torch.split(matrix, sizes, dim=1), strict=True):
                self.weights[name] = part.view(len(models), *named[0][name].shape).requires_grad_()
            gradient = torch.zeros_like(matrix)
            self._gradients.append((names, gradient))
            for row, slope in zip(matrix, gradient, strict=True):
                vector = nn.Parameter(row, requires_grad=False)
                vector.grad = slope
                groups.append({"params": [vector], "weight_decay": train.weight_decay if decayed else 0.0})
        rates = [{"lr": torch.tensor(learning_rate), **group} for group in groups]
        self._optimizer = torch.optim.AdamW(rates, lr=torch.tensor(learning_rate), betas=train.betas, eps=train.eps, fused=True)

    def update(self) -> None:
        """Move the weights by their gradients, which are forgotten."""
        for names, gradient in self._gradients:
            torch.cat([self.weights[name].grad.flatten(1) for name in names], dim=1, out=gradient)  # type: ignore[union-attr]
        for weight in self.weights.values():
            weight.grad = None
        self._optimizer.step()


def losses(logits: Tensor, target: Target, *, label_smoothing: float) -> Tensor:
    """The mean loss of each run, `k`, of logits `k b classes` and a target of all its images, `(k b)`."""
    flat = logits.flatten(0, 1)
    own = F.cross_entropy(flat, target.labels, label_smoothing=label_smoothing, reduction="none")
    if target.partners is not None and target.weight is not None:
        partner = F.cross_entropy(flat, target.partners, label_smoothing=label_smoothing, reduction="none")
        own = target.weight * own + (1 - target.weight) * partner
    return own.view(len(logits), -1).mean(dim=1)


def vmapped(model: Backbone, stack: Stack) -> Forward:
    """The forward pass as torch.func makes it."""
    skeleton = copy.deepcopy(model).to("meta")

    def one(weights: Weights, buffers: Weights, images: Tensor) -> Tensor:
        logits: Tensor = functional_call(skeleton, {**weights, **buffers}, (images,))
        return logits

    mapped = vmap(one)
    return lambda weights, images: mapped(weights, stack.buffers, images)


def by_hand(model: Backbone, stack: Stack, extension: Extension | None) -> Forward:
    """The forward pass of a ConvMixer, ViT or MLP-Mixer whose patches are cut and whose positions are waves or none."""
    spec = model.spec
    if spec.backbone == "convmixer":
        return ConvMixer(spec, stack.buffers, extension)
    mix, positions = attention if spec.backbone == "vit" else token_mlp, stack.buffers.get("stem.positions.table")
    return lambda weights, images: sequence_logits(weights, images, spec, positions=positions, mix=mix)


def linear(weights: Weights, name: str, rows: Tensor) -> Tensor:
    """k m i -> k m o."""
    return torch.baddbmm(weights[f"{name}.bias"][:, None], rows, weights[f"{name}.weight"].flatten(2).transpose(1, 2))


def normed(weights: Weights, name: str, tokens: Tensor) -> Tensor:
    """Layer norm over the last axis: k b n d -> k b n d."""
    scale, shift = (weights[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
    return torch.addcmul(shift, F.layer_norm(tokens, tokens.shape[-1:], eps=LAYER_NORM_EPS), scale)


def embedded(weights: Weights, images: Tensor, p: int) -> Tensor:
    """Patches as one batched product: k b c (h p) (w p) -> k (b h w) d."""
    k, b, c, size, _ = images.shape
    side = size // p
    cut = images.view(k, b, c, side, p, side, p).permute(0, 1, 3, 5, 2, 4, 6).reshape(k, b * side**2, c * p * p)
    kernel, bias = (weights[f"stem.patch_embedding.projection.{part}"] for part in ("weight", "bias"))
    return torch.baddbmm(bias[:, None], cut, kernel.flatten(2).transpose(1, 2))


def mlp(weights: Weights, name: str, features: Tensor) -> Tensor:
    """Over the last axis: k b m i -> k b m i."""
    hidden = F.gelu(linear(weights, f"{name}.expand", features.flatten(1, 2)))
    return linear(weights, f"{name}.reduce", hidden).view(features.shape)


def attention(weights: Weights, name: str, tokens: Tensor, spec: ViTSpec) -> Tensor:
    """k b n d -> k b n d; runs are more images to it."""
    k, b, n, d = tokens.shape
    parts = linear(weights, f"{name}.qkv", tokens.flatten(1, 2)).view(k * b, n, 3 * d).chunk(3, dim=2)
    q, k_, v = (part.view(k * b, n, spec.heads, d // spec.heads).transpose(1, 2) for part in parts)
    gathered = F.scaled_dot_product_attention(q, k_, v).transpose(1, 2)
    return linear(weights, f"{name}.out", gathered.reshape(k, b * n, d)).view(k, b, n, d)


def token_mlp(weights: Weights, name: str, tokens: Tensor, spec: BackboneSpec) -> Tensor:
    """k b n d -> k b n d."""
    return mlp(weights, f"{name}.mlp", tokens.transpose(2, 3)).transpose(2, 3)


def sequence_logits(
    weights: Weights, images: Tensor, spec: BackboneSpec, *, positions: Tensor | None, mix: Callable[..., Tensor]
) -> Tensor:
    """ViT and MLP-Mixer."""
    tokens = embedded(weights, images, spec.patch_size).view(*images.shape[:2], spec.tokens, spec.dim)
    if positions is not None:
        tokens = tokens + positions
    for number in range(spec.depth):
        over_tokens, over_features = (f"blocks.{number}.{part}_mixing" for part in ("token", "channel"))
        tokens = tokens + mix(weights, f"{over_tokens}.mixer", normed(weights, f"{over_tokens}.norm", tokens), spec)
        tokens = tokens + mlp(weights, f"{over_features}.mixer", normed(weights, f"{over_features}.norm", tokens))
    return linear(weights, "head.classifier", normed(weights, "head.norm", tokens).mean(dim=2))


class ConvMixer:
    """Grids `b (k d) h w` in channels_last: what works feature by feature needn't know of the runs."""

    def __init__(self, spec: BackboneSpec, buffers: Weights, extension: Extension | None) -> None:
        self.spec, self.extension = spec, extension
        self.positions = buffers.get("stem.positions.inner.table")
        means = {name.removesuffix(".running_mean"): mean for name, mean in buffers.items() if name.endswith("running_mean")}
        self.norms = {name: nn.BatchNorm2d(mean.numel()) for name, mean in means.items()}
        if extension is not None:
            self.norms = {name: GeluBatchNorm2d(norm, extension.gelu_norm) for name, norm in self.norms.items()}

    def __call__(self, weights: Weights, images: Tensor) -> Tensor:
        k, d = len(images), self.spec.dim
        grid = self.normed(weights, "stem.norm", self.joined(embedded(weights, images, self.spec.patch_size)))
        if self.positions is not None:
            grid = grid + self.joined(self.positions.flatten(1, 2))
        for number in range(self.spec.depth):
            over_tokens, over_features = f"blocks.{number}.token_mixing.inner", f"blocks.{number}.channel_mixing"
            mixed = self.convolved(weights, f"{over_tokens}.convolution", grid)
            grid = grid + self.normed(weights, f"{over_tokens}.norm", mixed)
            rows = grid.permute(0, 2, 3, 1).view(-1, k, d).transpose(0, 1)
            mixed = self.joined(linear(weights, f"{over_features}.convolution", rows))
            grid = self.normed(weights, f"{over_features}.norm", mixed)
        return linear(weights, "head.classifier", grid.mean(dim=(2, 3)).view(-1, k, d).transpose(0, 1))

    def joined(self, rows: Tensor) -> Tensor:
        """k (b h w) d -> b (k d) h w."""
        side = self.spec.grid
        return rows.transpose(0, 1).reshape(-1, side, side, rows.shape[0] * rows.shape[2]).permute(0, 3, 1, 2)

    def convolved(self, weights: Weights, name: str, grid: Tensor) -> Tensor:
        """The depthwise convolution."""
        kernel, bias = (weights[f"{name}.{part}"].flatten(0, 1) for part in ("weight", "bias"))
        compiled = self.extension is not None and kernel.shape[-1] in SIZES
        return self.extension.convolution(grid, kernel, bias) if compiled else plain(grid, kernel, bias)  # type: ignore[union-attr]

    def normed(self, weights: Weights, name: str, grid: Tensor) -> Tensor:
        """BatchNorm of GELU."""
        norm = self.norms[name]
        norm._parameters.update({part: weights[f"{name}.{part}"].flatten() for part in ("weight", "bias")})  # type: ignore[misc]
        found: Tensor = norm(grid if self.extension is not None else F.gelu(grid))
        return found

"""How far attention reaches, and how evenly: by layer and head, over images.

Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, figure 7 (right): the mean distance in the image between a token
and those that it attends to, weighted by its attention. A mixer takes part that has `attention_weights`: b n d -> b h n n.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from study.backbones.base import Backbone
from study.backbones.specification import BackboneSpec
from study.probing.kept_network import Measured

_WEIGHTS = 2**24  # attention weights at a time


@dataclass(frozen=True, eq=False)
class AttentionOfLayer:
    """Means over images and over the queries on the grid, by head; `distance` in pixels, `entropy` in nats."""

    layer: int  # from 1
    distance: Measured  # h
    entropy: Measured  # h


def find_attention(model: Backbone) -> dict[int, nn.Module]:
    """By layer, counted from 1, the module that attends; layers without one are left out."""
    found = {}
    for number, block in enumerate(model.blocks, start=1):
        attending = next((module for module in block.modules() if hasattr(module, "attention_weights")), None)
        if attending is not None:
            found[number] = attending
    return found


def compute_attention(model: Backbone, images: Tensor) -> dict[int, Tensor]:
    """By layer, the attention weights b h n n over images `b c h w`; all tokens, class token and registers first."""
    weights: dict[int, Tensor] = {}

    def listen(layer: int, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def weigh(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            weights[layer] = module.attention_weights(inputs[0])  # type: ignore[operator]

        return module.register_forward_pre_hook(weigh)

    hooks = [listen(layer, module) for layer, module in find_attention(model).items()]
    try:
        with torch.inference_mode():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return weights


def measure_attention(model: Backbone, images: Tensor) -> list[AttentionOfLayer]:
    """Distance and entropy of every layer that attends, over images `b c h w`; none for a network without attention."""
    attending = find_attention(model)
    if not attending:
        return []
    sums: dict[int, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in attending}
    spec = model.spec
    distances = compute_distances(spec).to(images.device)
    for batch in torch.split(images, max(1, _WEIGHTS // (8 * len(attending) * spec.sequence**2))):
        for layer, weights in compute_attention(model, batch).items():
            sums[layer].append(summarize_attention(weights, distances))
    found = []
    for layer, parts in sums.items():
        distance, entropy = (torch.cat(own).double().mean(dim=0).cpu().numpy() for own in zip(*parts, strict=True))
        found.append(AttentionOfLayer(layer, distance, entropy))
    return found


def summarize_attention(weights: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Per image and head `b h`, the mean over the grid's queries of distance and entropy, from weights b h n n.

    `distances` `(h w) (h w)` are those of the grid. Tokens off the grid (class token, registers) have no place: as keys they
    count for the entropy alone.
    """
    extra = weights.shape[-1] - len(distances)
    queries = weights[:, :, extra:]
    entropy = torch.special.entr(queries).sum(dim=-1).mean(dim=-1)
    on_grid = queries[..., extra:]
    mass = on_grid.sum(dim=-1)
    distance = (on_grid * distances).sum(dim=-1) / mass.clamp(min=torch.finfo(mass.dtype).tiny)
    return distance.mean(dim=-1), entropy


def compute_distances(spec: BackboneSpec) -> Tensor:
    """Distances in pixels between the centers of all patches: (h w) (h w)."""
    y, x = torch.arange(spec.grid).repeat_interleave(spec.grid), torch.arange(spec.grid).repeat(spec.grid)
    return spec.patch_size * torch.hypot((y[:, None] - y).float(), (x[:, None] - x).float())


def average_maps(model: Backbone, images: Tensor) -> dict[int, Measured]:
    """By layer, what the class token, or else the central token, attends to in each image: `n g g`, a mean over heads."""
    spec = model.spec
    query = 0 if spec.pooling == "class_token" else spec.extra_tokens + (spec.grid // 2) * spec.grid + spec.grid // 2
    found = {}
    for layer, weights in compute_attention(model, images).items():
        row = weights[:, :, query, spec.extra_tokens :].mean(dim=1)
        found[layer] = row.reshape(len(images), spec.grid, spec.grid).double().cpu().numpy()
    return found

"""Dropout of attention weights, in MLPs and before the classifier, keyed by (seed, epoch) and the image's position.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014: each number is zero with the
given probability, and scaled up by 1 / (1 - that) otherwise; in evaluation nothing is. Where, is as in timm's ViT: attention
weights after their softmax; in every MLP, of channels or of tokens, what enters and what leaves its last linear layer; and the
pooled features that enter the classifier. Masks are keyed by the position in the epoch's order, so they are the same for any
micro-batches and ranks, and a resumed run needs no generator's state. A probability is rounded to multiples of 2^-16.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from study import rng
from study.backbones.attention import Attention
from study.backbones.base import Backbone, GridHead, SequenceHead
from study.backbones.layers import Mlp, SwiGlu
from study.config.options import TrainOptions
from study.training.keyed_bits import VALUES, draw_keys, hash_keys


class Dropout:
    """Drops what passes the sites of `model` in training; `images` take part in an epoch."""

    def __init__(self, model: Backbone, train: TrainOptions, *, seed: int, images: int, device: torch.device):
        self._seed, self._images, self._device = seed, images, device
        self._epoch = -1
        self._keys = self._selected = torch.empty(0)
        for name, module in model.named_modules():
            if isinstance(module, Attention) and train.attention_dropout:
                module.drop_weights = self._make_site(name, module, train.attention_dropout)
            elif isinstance(module, Mlp | SwiGlu) and train.mlp_dropout:
                _drop_input(module.reduce, self._make_site(f"{name} in", module, train.mlp_dropout))
                _drop_output(module.reduce, self._make_site(f"{name} out", module, train.mlp_dropout))
            elif isinstance(module, SequenceHead | GridHead) and train.head_dropout:
                _drop_input(module.classifier, self._make_site(name, module, train.head_dropout))

    def select(self, *, epoch: int, first: int, count: int) -> None:
        """Select the images at positions `first`, ..., `first + count - 1` of the epoch's order for the next forward passes."""
        if epoch != self._epoch:
            keys = draw_keys(rng.stream(self._seed, "dropout", epoch), self._images)
            self._epoch, self._keys = epoch, keys.to(self._device)
        self._selected = self._keys[first : first + count]

    def _make_site(self, name: str, module: nn.Module, probability: float) -> Callable[[Tensor], Tensor]:
        """What drops numbers of the selected images, `b ...`, with keys of its own."""
        values = round(probability * VALUES)
        salt = draw_keys(rng.stream("dropout", name), 1).to(self._device)

        def drop(features: Tensor) -> Tensor:
            if not module.training:
                return features
            drawn = hash_keys(self._selected ^ salt, features[0].numel()).reshape(features.shape)
            return features.masked_fill(drawn < values - VALUES // 2, 0.0) / (1 - values / VALUES)

        return drop


def _drop_input(module: nn.Module, site: Callable[[Tensor], Tensor]) -> None:
    module.register_forward_pre_hook(lambda _module, inputs: (site(inputs[0]),))


def _drop_output(module: nn.Module, site: Callable[[Tensor], Tensor]) -> None:
    module.register_forward_hook(lambda _module, _inputs, output: site(output))

"""A trained network from its kept weights, the outputs of its layers, and the images that it is probed with.

What is measured follows the seams that every backbone has, the stem and the blocks, so that a backbone of a user's own needs
nothing more. Layer 0 is the stem's output, layer l that of block l.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from study.backbones import build_backbone
from study.backbones.base import Backbone
from study.backbones.specification import BackboneSpec
from study.backbones.weight_files import load_weights, read_weights_file
from study.config.run import Run
from study.data.permutation import permute_positions
from study.data.splits import Split, Splits
from study.errors import Problem, UserError
from study.rng import stream
from study.training.augmentation import Normalization
from study.training.batches import find_input_permutation
from study.training.saved_weights import read_saved_weights

Measured = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KeptNetwork:
    """A run's network in evaluation mode, in float32, with weights that need no gradients. `digest`: SHA-256 of its file."""

    run: Run
    model: Backbone
    device: torch.device
    digest: str

    @staticmethod
    def read(path: Path, device: torch.device) -> "KeptNetwork":
        """From a file that `train.keep: last` has left. UserError where it is another's or damaged."""
        saved = read_saved_weights(path)
        if saved is None:
            raise UserError(Problem("not the weights of a run that were kept with train.keep: last", place=str(path)))
        model = build_backbone(saved.run.model)
        file = read_weights_file(path)
        model.load_state_dict(load_weights(file, saved.run.model).state)
        return KeptNetwork(saved.run, model.to(device).eval().requires_grad_(False), device, file.sha256)

    def prepare(self, splits: Splits, pixels: Tensor) -> Tensor:
        """Images uint8 `b c h w` as the network's input: normalized, and permuted where its training permuted them."""
        normalize = Normalization(splits.info, device=self.device, layout=torch.contiguous_format)
        return normalize(permute_positions(pixels.to(self.device), find_input_permutation(self.run, self.device)))


def sample_images(split: Split, count: int) -> Tensor:
    """At most so many of a split's images uint8 `n c h w`, drawn once for all runs, in stored order."""
    order = stream("probe", "images").permutation(len(split))[:count]
    order.sort()
    return split.stored[split.rows[torch.from_numpy(order)]]


@contextmanager
def record_outputs(model: Backbone) -> Iterator[list[Tensor]]:
    """Inside, each forward pass appends the output of the stem and of every block."""
    outputs: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        for module in (model.stem, *model.blocks)
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def grid_tokens(output: Tensor, spec: BackboneSpec) -> Tensor:
    """A layer's tokens at the positions of the grid, row by row, without class token and registers: b n d."""
    if output.ndim == 4:  # b d h w
        return output.flatten(2).transpose(1, 2)
    return output[:, spec.extra_tokens :]

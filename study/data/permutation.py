"""Fixed permutations of pixels or patches: controls that take an image's locality away and keep everything else.

The permutation is the same for all images, channels, seeds and splits of a size, and is applied to the network's input, after
augmentation. Permuted pixels leave patches and convolutions no neighborhood to use; permuted patches keep what is inside a
patch and take away where it is. A model that treats positions alike up to its weights (at patch size 1 an MLP-Mixer, or
a ViT with learned positions) loses nothing by either, up to the order of its weights.
"""

import numpy as np
import torch
from torch import Tensor

from study.config.options import DataOptions
from study.rng import stream


def find_permutation(data: DataOptions, *, image_size: int, patch_size: int) -> Tensor | None:
    """For each pixel in row-major order the pixel that takes its place, int64 `(h w)`; None where nothing is permuted.

    What is permuted are blocks: single pixels with `permute_pixels`, patches with `permute_patches`.
    """
    if not (data.permute_pixels or data.permute_patches):
        return None
    block = patch_size if data.permute_patches else 1
    grid = image_size // block
    order = stream("permutation", grid).permutation(grid**2)
    pixels = np.arange(image_size**2).reshape(grid, block, grid, block).swapaxes(1, 2)  # block rows, block columns, inside
    permuted = pixels.reshape(grid**2, block, block)[order].reshape(grid, grid, block, block)
    return torch.from_numpy(permuted.swapaxes(1, 2).reshape(-1).copy())


def permute_positions(images: Tensor, source: Tensor | None) -> Tensor:
    """Images `b c h w` whose pixel k (row-major) is their own pixel `source[k]`; as they are without a source."""
    return images if source is None else images.flatten(2)[:, :, source].view(images.shape)

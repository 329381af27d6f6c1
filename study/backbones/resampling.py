"""Weights for another grid of tokens or another patch size: what depends on positions or on pixels is resampled."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def count_grid(table: Tensor, *, extra: int) -> int:
    """Tokens along one side of the grid that position embeddings `1 n d` are of, after `extra` tokens; 0 if of no square."""
    tokens = table.shape[1] - extra if table.ndim == 3 else 0
    grid = math.isqrt(max(0, tokens))
    return grid if grid**2 == tokens else 0


def resample_positions(table: Tensor, grid: int, *, extra: int) -> Tensor:
    """Position embeddings `1 n d` at `grid` x `grid` tokens, by bicubic interpolation with antialiasing; `extra` tokens stay.

    Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, section 3.2; with antialiasing, as timm does it.
    """
    side = count_grid(table, extra=extra)
    image = table[:, extra:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    image = functional.interpolate(image, size=(grid, grid), mode="bicubic", antialias=True)
    return torch.cat([table[:, :extra], image.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)], dim=1)


def resample_patch_embedding(weight: Tensor, patch_size: int) -> Tensor:
    """A patch embedding's weight `d c p p` at another patch size.

    Beyer et al., "FlexiViT: one model for all patch sizes", CVPR 2023, equation 4: with B the bicubic resizing (antialiased, as
    in timm) of a patch, pinv(B^T) w. Where patches grow, a resized patch then has the embedding that the patch had.
    """
    pixels = weight.shape[2] * weight.shape[3]
    basis = torch.eye(pixels, dtype=torch.float64).view(pixels, 1, *weight.shape[2:])
    resized = functional.interpolate(basis, size=(patch_size, patch_size), mode="bicubic", antialias=True)  # B^T, row by row
    found = weight.to(torch.float64).flatten(2) @ torch.linalg.pinv(resized.flatten(1)).T
    return found.view(*weight.shape[:2], patch_size, patch_size).to(weight.dtype)

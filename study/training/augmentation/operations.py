"""The operations that policies draw from, on a batch in which each image has its own, with Pillow's pixels.

A policy of few magnitudes has few variants of its operations, each a pair of operation and signed strength. What a variant
does to positions is read off Pillow once, by transforming an image of pixel numbers (nearest neighbor, black outside); what
it does to values is a table of 256 entries, fixed or (contrast, autocontrast, equalize) made from the image; color and
sharpness blend with a changed copy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from study.training.augmentation.pixels import (
    blend,
    change_selected,
    compute_mean_level,
    make_autocontrast_table,
    make_equalize_table,
    move_pixels,
    smooth,
    to_gray,
)

MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDS = ("brightness", "color", "contrast", "sharpness")
TABLES = ("brightness", "posterize", "solarize", "contrast", "autocontrast", "equalize", "invert", "solarize_add")
OPERATIONS = ("identity", *MOVES, *BLENDS, "posterize", "solarize", "autocontrast", "equalize", "invert", "solarize_add")
SIGNS = (1, -1)

Rows = Tensor | slice


@dataclass(frozen=True)
class Variants:
    """Pairs of operation and strength, which `make_variants` numbers."""

    sources: Tensor  # int64 `moves (h w)`: where each pixel comes from, -1 for outside
    move: Tensor  # int64 `variants`: the row of `sources`
    tables: Tensor  # uint8 `variants 256`
    factors: Tensor  # float32 `variants`: of blending
    operation: Tensor  # int64 `variants`

    def to(self, device: torch.device) -> "Variants":
        return Variants(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __call__(self, images: Tensor, variant: Tensor) -> Tensor:
        """One variant on each of `images` uint8 `b c h w`; `variant` is int64 `b`."""
        return apply_operations(
            images,
            self.operation[variant],
            self.factors[variant],
            move=lambda selected, at: move_pixels(selected, self.sources[self.move[variant[at]]]),
            tabulate=lambda at: self.tables[variant[at]],
        )


def apply_operations(
    images: Tensor,
    operation: Tensor,
    factor: Tensor,
    *,
    move: Callable[[Tensor, Rows], Tensor],
    tabulate: Callable[[Rows], Tensor],
) -> Tensor:
    """One operation on each of `images` uint8 `b c h w`: its number int64 `b`, and its factor of blending float32 `b`.

    `move` is given images and their rows, `tabulate` rows alone, for which it returns tables uint8 `b 256`.
    """

    def change(operations: tuple[str, ...], by: Callable[[Tensor, Rows], Tensor]) -> Tensor:
        return change_selected(_is_any_of(operation, operations), images, lambda at: by(images[at], at))

    images = change(MOVES, move)
    images = change(TABLES, lambda selected, at: _look_up(selected, operation[at], factor[at], tabulate(at)))
    images = change(("color",), lambda selected, at: blend(to_gray(selected), selected, factor[at]))
    return change(("sharpness",), lambda selected, at: blend(smooth(selected), selected, factor[at]))


def _look_up(images: Tensor, operation: Tensor, factor: Tensor, tables: Tensor) -> Tensor:
    """Images with each value v replaced by entry v of a table: theirs in `tables`, or one that is made from the image."""
    values = torch.arange(256, dtype=torch.uint8, device=images.device).expand(1, 1, 1, -1)
    tables = tables[:, None].repeat(1, images.shape[1], 1)

    def blend_with_mean(at: Rows) -> Tensor:
        mean = compute_mean_level(to_gray(images[at]))
        return blend(mean, values, factor[at])[:, 0].expand_as(tables[at])

    tables = change_selected(_is_any_of(operation, ("contrast",)), tables, blend_with_mean)
    tables = change_selected(_is_any_of(operation, ("autocontrast",)), tables, lambda at: make_autocontrast_table(images[at]))
    tables = change_selected(_is_any_of(operation, ("equalize",)), tables, lambda at: make_equalize_table(images[at]))
    return tables.gather(2, images.flatten(2).long()).view_as(images)


def _is_any_of(operation: Tensor, names: tuple[str, ...]) -> Tensor:
    """Which of the operation numbers `b` are those of `names`."""
    return torch.stack([operation == OPERATIONS.index(name) for name in names]).any(dim=0)


def make_variants(pairs: Sequence[tuple[str, float]], image_size: int) -> Variants:
    """The variants of these operations and signed strengths, in this order; strengths of translations are in pixels."""
    moves = [(name, strength) for name, strength in pairs if name in MOVES] or [("identity", 0.0)]
    return Variants(
        sources=torch.from_numpy(np.stack([_find_sources(name, strength, image_size) for name, strength in moves])),
        move=torch.tensor([moves.index(pair) if pair in moves else 0 for pair in pairs]),
        tables=torch.from_numpy(np.stack([_make_table(name, strength) for name, strength in pairs])),
        factors=torch.tensor([1.0 + strength for _, strength in pairs], dtype=torch.float32),
        operation=torch.tensor([OPERATIONS.index(name) for name, _ in pairs]),
    )


def _find_sources(name: str, strength: float, size: int) -> npt.NDArray[np.int64]:
    """Where each pixel of an image comes from, int64 `(h w)`: its number, or -1 for outside."""
    numbered = Image.fromarray(np.arange(1, size * size + 1, dtype=np.int32).reshape(size, size))
    inverse = {
        "shear_x": (1.0, strength, 0.0, 0.0, 1.0, 0.0),
        "shear_y": (1.0, 0.0, 0.0, strength, 1.0, 0.0),
        "translate_x": (1.0, 0.0, -float(int(strength)), 0.0, 1.0, 0.0),
        "translate_y": (1.0, 0.0, 0.0, 0.0, 1.0, -float(int(strength))),
    }
    if name == "rotate":
        numbered = numbered.rotate(strength, resample=Image.Resampling.NEAREST)
    elif name in inverse:
        numbered = numbered.transform((size, size), Image.Transform.AFFINE, inverse[name], resample=Image.Resampling.NEAREST)
    return np.asarray(numbered).astype(np.int64).ravel() - 1


def _make_table(name: str, strength: float) -> npt.NDArray[np.uint8]:
    """What each value 0..255 becomes under an operation whose table is fixed; itself under others."""
    values: npt.NDArray[np.int64] = np.arange(256)
    if name == "brightness":
        return np.asarray(np.clip(np.float32(1.0 + strength) * values.astype(np.float32), 0, 255), dtype=np.uint8)
    if name == "posterize":
        return (values & ~((1 << (8 - round(abs(strength)))) - 1)).astype(np.uint8)
    if name == "solarize":
        return np.where(values < abs(strength), values, 255 - values).astype(np.uint8)
    return (255 - values if name == "invert" else values).astype(np.uint8)

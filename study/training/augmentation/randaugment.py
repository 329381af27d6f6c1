"""RandAugment: n operations per image, each drawn from fourteen, at one magnitude for the whole run.

Cubuk et al., "RandAugment", 2019, with the operations and magnitudes of torchvision's `transforms.RandAugment` (31
magnitude bins, nearest-neighbour interpolation, black outside) and Pillow's pixels: the published CIFAR-10 recipe for
ConvMixer runs that on Pillow images. An image gets the same pixels here as there for the same operations.

As the magnitude is fixed, an operation has at most two variants, one per sign. What a variant does to positions is
read off Pillow once, by transforming an image of pixel numbers; what it does to values is a table of 256 entries,
fixed or (contrast, autocontrast, equalize) made from the image; color and sharpness blend with a changed copy.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from study.training.augmentation.draws import Draws
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

MAGNITUDES = {
    "identity": (0.0, 0.0),
    "shear_x": (0.0, 0.3),
    "shear_y": (0.0, 0.3),
    "translate_x": (0.0, 150.0 / 331.0),
    "translate_y": (0.0, 150.0 / 331.0),
    "rotate": (0.0, 30.0),
    "brightness": (0.0, 0.9),
    "color": (0.0, 0.9),
    "contrast": (0.0, 0.9),
    "sharpness": (0.0, 0.9),
    "posterize": (8.0, 4.0),
    "solarize": (255.0, 0.0),
    "autocontrast": (0.0, 0.0),
    "equalize": (0.0, 0.0),
}
"""torchvision's magnitudes at the first and the last bin, before their sign; of translations in units of the image's size."""
OPERATIONS = tuple(MAGNITUDES)
MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
TABLES = ("brightness", "posterize", "solarize", "contrast", "autocontrast", "equalize")
BINS = 31
SIGNS = (1, -1)


@dataclass(frozen=True)
class RandAugment:
    """The variants at one magnitude; variant 2 k + s is operation k with the s-th sign."""

    sources: Tensor  # int64 `variants (h w)`: where each pixel comes from, -1 for outside
    tables: Tensor  # uint8 `variants 256`
    factors: Tensor  # float32 `variants`: of blending
    operation: Tensor  # int64 `variants`

    def to(self, device: torch.device) -> "RandAugment":
        return RandAugment(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __call__(self, images: Tensor, variant: Tensor) -> Tensor:
        """One operation on each of `images` uint8 `b c h w`; `variant` is int64 `b`."""
        chosen = self.operation[variant]
        factor = self.factors[variant]

        def change(operations: tuple[str, ...], by: Callable[[Tensor, Tensor | slice], Tensor]) -> Tensor:
            return change_selected(is_any_of(chosen, operations), images, lambda at: by(images[at], at))

        images = change(MOVES, lambda selected, at: move_pixels(selected, self.sources[variant[at]]))
        images = change(TABLES, lambda selected, at: self._look_up(selected, variant[at]))
        images = change(("color",), lambda selected, at: blend(to_gray(selected), selected, factor[at]))
        return change(("sharpness",), lambda selected, at: blend(smooth(selected), selected, factor[at]))

    def _look_up(self, images: Tensor, variant: Tensor) -> Tensor:
        """Images with each value v replaced by `tables[:, :, v]`, in the tables uint8 `b c 256` of their variants."""
        chosen, factor = self.operation[variant], self.factors[variant]
        values = torch.arange(256, dtype=torch.uint8, device=images.device).expand(1, 1, 1, -1)
        tables = self.tables[variant][:, None].repeat(1, images.shape[1], 1)

        def blend_with_mean(at: Tensor | slice) -> Tensor:
            mean = compute_mean_level(to_gray(images[at]))
            return blend(mean, values, factor[at])[:, 0].expand_as(tables[at])

        tables = change_selected(is_any_of(chosen, ("contrast",)), tables, blend_with_mean)
        tables = change_selected(is_any_of(chosen, ("autocontrast",)), tables, lambda at: make_autocontrast_table(images[at]))
        tables = change_selected(is_any_of(chosen, ("equalize",)), tables, lambda at: make_equalize_table(images[at]))
        return tables.gather(2, images.flatten(2).long()).view_as(images)


def is_any_of(chosen: Tensor, operations: tuple[str, ...]) -> Tensor:
    """Which of the operation numbers `chosen` `b` belong to `operations`."""
    return torch.stack([chosen == OPERATIONS.index(name) for name in operations]).any(dim=0)


def draw_variants(draws: Draws, layers: int) -> npt.NDArray[np.int64]:
    """Each image's variant in each layer, int64 `n layers`: an operation uniform over fourteen, a sign uniform over two."""
    numbers = [draws.below(f"randaugment {layer}", len(OPERATIONS), len(SIGNS)) for layer in range(layers)]
    return np.stack([drawn[:, 0] * len(SIGNS) + drawn[:, 1] for drawn in numbers], axis=1)


def make_randaugment(magnitude: int, image_size: int) -> RandAugment:
    """The variants of all operations at bin `magnitude` of 0..30."""
    variants = []
    for name, (first, last) in MAGNITUDES.items():
        end = last * image_size if name.startswith("translate") else last
        strength = float(torch.linspace(first, end, BINS)[magnitude])
        variants += [(name, sign * strength) for sign in SIGNS]
    sources = np.stack([_find_sources(name, strength, image_size) for name, strength in variants])
    tables = np.stack([_make_table(name, strength) for name, strength in variants])
    return RandAugment(
        sources=torch.from_numpy(sources),
        tables=torch.from_numpy(tables),
        factors=torch.tensor([1.0 + strength for _, strength in variants], dtype=torch.float32),
        operation=torch.arange(len(variants)) // len(SIGNS),
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
    return values.astype(np.uint8)

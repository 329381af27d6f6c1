"""timm's RandAugment as most recipes for vision transformers use it: `rand-m9-mstd0.5-inc1`.

Wightman, pytorch-image-models, `timm.data.auto_augment`: two operations, each uniform over fifteen and applied with probability
1/2, at a magnitude from a normal distribution around 9 with deviation 0.5, cut to 0..10, which makes all of them stronger as it
rises (`inc1`). Moves interpolate, by a bilinear or a bicubic filter of equal chances, and fill with the data set's mean. Given
the same operation, magnitude, sign and filter, an image gets timm's pixels.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from study.data import DatasetInfo
from study.training.augmentation.affine import map_affine
from study.training.augmentation.draws import Draws
from study.training.augmentation.operations import BLENDS, MOVES, OPERATIONS, Rows, apply_operations

LAYERS, MAGNITUDE, DEVIATION, MOST, PROBABILITY = 2, 9.0, 0.5, 10.0, 0.5
CHOICES = OPERATIONS[1:]
_FARTHEST = {"shear_x": 0.3, "shear_y": 0.3, "translate_x": 0.45, "translate_y": 0.45, "rotate": 30.0}
_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


class TimmRandAugment:
    """The policy for a data set's images."""

    def __init__(self, facts: DatasetInfo) -> None:
        self.fill = torch.tensor([round(255 * mean) for mean in facts.mean], dtype=torch.uint8)

    def draw(self, draws: Draws) -> "DrawnOperations":
        layers = []
        for layer in range(LAYERS):
            applied, choice, sign, bicubic = draws.uniform(f"rand-m9 {layer}", 4).T
            magnitude = np.clip(MAGNITUDE + DEVIATION * draws.normal(f"rand-m9 magnitude {layer}"), 0, MOST)
            operation = np.where(applied < PROBABILITY, 1 + np.floor(choice * len(CHOICES)), 0).astype(np.int64)
            strength, level = find_arguments(operation, magnitude, np.where(sign < 0.5, -1.0, 1.0))
            matrix = find_matrices(operation, strength, draws.size)
            layers.append((operation, level, strength.astype(np.float32), matrix, bicubic < 0.5))
        columns = (torch.from_numpy(np.stack(parts, axis=1)) for parts in zip(*layers, strict=True))
        return DrawnOperations(self.fill, *columns)


@dataclass(frozen=True)
class DrawnOperations:
    """The operations of each image in each layer, and what they need."""

    fill: Tensor  # uint8 `c`
    operation: Tensor  # int64 `n layers`
    level: Tensor  # int64 `n layers`: bits that posterize keeps, threshold of solarize, what solarize_add adds
    factor: Tensor  # float32 `n layers`: of blending
    matrix: Tensor  # float64 `n layers 6`: of moves
    bicubic: Tensor  # bool `n layers`

    def to(self, device: torch.device) -> "DrawnOperations":
        return DrawnOperations(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        """Images uint8 `b c h w` after the operations in the rows `b`."""
        columns = self.operation, self.level, self.factor, self.matrix, self.bicubic
        for layer in zip(*(column[rows].unbind(1) for column in columns), strict=True):
            images = self._apply(images, *layer)
        return images

    def _apply(
        self, images: Tensor, operation: Tensor, level: Tensor, factor: Tensor, matrix: Tensor, bicubic: Tensor
    ) -> Tensor:
        def move(selected: Tensor, at: Rows) -> Tensor:
            return map_affine(selected, matrix[at], bicubic=bicubic[at], fill=self.fill)

        return apply_operations(
            images, operation, factor, move=move, tabulate=lambda at: make_tables(operation[at], level[at], factor[at])
        )


def find_arguments(operation: _Integers, magnitude: _Floats, sign: _Floats) -> tuple[_Floats, _Integers]:
    """timm's arguments of operations at magnitudes 0..10: a signed strength or a factor of blending, and a whole number."""
    share = magnitude / MOST
    factor = np.maximum(0.1, 1.0 + sign * (share * 0.9))
    farthest = np.array([_FARTHEST.get(name, 0.0) for name in OPERATIONS])[operation]
    blends = np.isin(operation, [OPERATIONS.index(name) for name in BLENDS])
    levels = {
        "posterize": 4 - np.floor(share * 4),
        "solarize": 256 - np.minimum(256, np.floor(share * 256)),
        "solarize_add": np.minimum(128, np.floor(share * 110)),
    }
    level = sum((np.where(operation == OPERATIONS.index(name), values, 0) for name, values in levels.items()), np.zeros(1))
    return np.where(blends, factor, sign * (share * farthest)), level.astype(np.int64)


def find_matrices(operation: _Integers, strength: _Floats, size: int) -> _Floats:
    """The maps `n 6` from output to input positions of moves with a signed strength; the identity for other operations."""
    matrix = np.tile([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], (len(operation), 1))
    is_move = {name: operation == OPERATIONS.index(name) for name in MOVES}
    for name, column in (("shear_x", 1), ("shear_y", 3)):
        matrix[is_move[name], column] = strength[is_move[name]]
    for name, column in (("translate_x", 2), ("translate_y", 5)):
        matrix[is_move[name], column] = strength[is_move[name]] * size
    angle = -np.radians(strength[is_move["rotate"]] % 360)
    cosine, sine, center = np.round(np.cos(angle), 15), np.round(np.sin(angle), 15), size / 2
    shifts = cosine * -center + sine * -center + center, -sine * -center + cosine * -center + center
    matrix[is_move["rotate"]] = np.stack([cosine, sine, shifts[0], -sine, cosine, shifts[1]], axis=1)
    return matrix


def make_tables(operation: Tensor, level: Tensor, factor: Tensor) -> Tensor:
    """What each value 0..255 becomes, uint8 `b 256`, under operations with a fixed table; itself under others."""
    values = torch.arange(256, device=operation.device)
    level = level[:, None]
    tables = {
        "brightness": (factor[:, None] * values.float()).clamp_(0, 255).long(),
        "posterize": values & ~((1 << (8 - level)) - 1),
        "solarize": torch.where(values < level, values, 255 - values),
        "invert": 255 - values,
        "solarize_add": torch.where(values < 128, (values + level).clamp(max=255), values),
    }
    result = values.expand(len(operation), -1)
    for name, table in tables.items():
        result = torch.where((operation == OPERATIONS.index(name))[:, None], table, result)
    return result.to(torch.uint8)

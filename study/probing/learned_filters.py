"""What can be read off weights without an image: stem filters, depthwise kernels and their reach, position embeddings."""

from dataclasses import dataclass

import numpy as np
from torch import nn
from torch.nn import functional

from study.backbones.base import Backbone
from study.backbones.stem import AddPositions
from study.probing.kept_network import Measured


@dataclass(frozen=True, eq=False)
class KernelsOfLayer:
    """The depthwise kernels of a layer (from 1), `d k k`."""

    layer: int
    kernels: Measured

    def energy_within(self) -> dict[int, float]:
        """By radius r, the mean over features of the share of squared weights in the central 2r + 1 rows and columns."""
        reach = self._reach()
        energy = self.kernels[self.kernels.any(axis=(1, 2))] ** 2  # kernels of zeros have no share
        shares = energy / energy.sum(axis=(1, 2), keepdims=True)
        return {
            radius: float(shares[:, reach <= radius].sum(axis=1).mean()) if len(shares) else float("nan")
            for radius in range(int(reach.max()) + 1)
        }

    def mean_distance(self) -> float:
        """The distance in tokens from the center, weighted by absolute weights, as attention's by its weights."""
        offsets = np.arange(self.kernels.shape[-1]) - self.kernels.shape[-1] // 2
        weights = np.abs(self.kernels).sum(axis=0)
        return float((weights * np.hypot(offsets[:, None], offsets)).sum() / weights.sum()) if weights.any() else float("nan")

    def _reach(self) -> Measured:
        """The distance of each entry from the center in rows or columns, whichever is larger: `k k`."""
        offsets = np.abs(np.arange(self.kernels.shape[-1]) - self.kernels.shape[-1] // 2).astype(float)
        return np.asarray(np.maximum(offsets[:, None], offsets))


def read_kernels(model: Backbone) -> list[KernelsOfLayer]:
    """The depthwise kernels of every layer that has some (of odd size above 1); the first where a layer has several."""
    found = []
    for number, block in enumerate(model.blocks, start=1):
        own = [module for module in block.modules() if isinstance(module, nn.Conv2d) and _is_depthwise(module)]
        found += [KernelsOfLayer(number, module.weight.detach()[:, 0].double().cpu().numpy()) for module in own[:1]]
    return found


def _is_depthwise(convolution: nn.Conv2d) -> bool:
    rows, columns = convolution.kernel_size
    return convolution.groups == convolution.in_channels and rows == columns and rows > 1 and rows % 2 == 1


def read_stem_filters(model: Backbone, *, most: int = 64) -> Measured | None:
    """The stem's filters on the image with the largest norms, `f c h w`; None where its first layer is no convolution."""
    filters = next((module.weight for module in model.stem.modules() if isinstance(module, nn.Conv2d | nn.Linear)), None)
    if filters is None or filters.ndim != 4:
        return None
    order = filters.flatten(1).norm(dim=1).argsort(descending=True)[:most]
    return np.asarray(filters[order].detach().double().cpu().numpy())


def compare_positions(model: Backbone) -> Measured | None:
    """Cosine similarity of the position embeddings of all pairs of patches, `g g g g`; None without added positions."""
    table = next((module.table for module in model.stem.modules() if isinstance(module, AddPositions)), None)
    if table is None:
        return None
    grid, spec = model.spec.grid, model.spec
    positions = functional.normalize(table[0, table.shape[1] - spec.tokens :].detach().double(), dim=1)
    return np.asarray((positions @ positions.T).reshape(grid, grid, grid, grid).cpu().numpy())

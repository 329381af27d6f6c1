"""Pictures of single trained networks: receptive fields, filters, kernels, position embeddings, attention maps."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.analysis.cell_grid import FloatArray
from study.reporting.figures.style import PAPER, Style, apply_style

_SIGNED, _POSITIVE = "RdBu_r", "viridis"
_TILES_IN_A_ROW = 16
_POSITIONS = 8  # of which the similarity is shown, along one side


@apply_style
def draw_fields(fields: FloatArray, *, style: Style = PAPER) -> Figure:
    """The receptive field of each layer `layers h w`, on a log scale over four decades from its maximum."""
    figure, axes = _create_grid(len(fields), columns=min(len(fields), 6), style=style)
    for layer, (ax, field) in enumerate(zip(axes, fields, strict=True)):
        ax.imshow(np.log10(np.maximum(field / max(field.max(), 1e-300), 1e-4)), cmap=_POSITIVE, vmin=-4, vmax=0)
        ax.set_title(f"layer {layer}" if layer else "stem")
    return figure


@apply_style
def draw_tiles(tiles: FloatArray, *, style: Style = PAPER) -> Figure:
    """Filters or kernels, `n h w` or with three channels `n 3 h w`, by its largest absolute weight, 0 in the middle."""
    scaled = [tile / max(np.abs(tile).max(), 1e-300) for tile in tiles]
    if tiles.ndim == 4 and tiles.shape[1] == 3:
        return _draw_mosaic([(tile.transpose(1, 2, 0) + 1) / 2 for tile in scaled], columns=_TILES_IN_A_ROW, style=style)
    return _draw_mosaic([tile.reshape(tile.shape[-2:]) for tile in scaled], columns=_TILES_IN_A_ROW, style=style)


@apply_style
def draw_positions(similarity: FloatArray, *, style: Style = PAPER) -> Figure:
    """For patches spread over the grid, the similarity of their position to all others: `g g g g`, from -1 to 1."""
    places = sorted({int(place) for place in np.linspace(0, len(similarity) - 1, min(_POSITIONS, len(similarity))).round()})
    return _draw_mosaic([similarity[y, x] for y in places for x in places], columns=len(places), style=style)


@apply_style
def draw_attention(images: FloatArray, maps: Sequence[FloatArray], titles: Sequence[str], *, style: Style = PAPER) -> Figure:
    """A row per image `n h w c` (values in [0, 1]): the image, then its map `n g g` in every layer, by its maximum."""
    columns = 1 + len(maps)
    figure, axes = _create_grid(len(images) * columns, columns=columns, style=style)
    for number, image in enumerate(images):
        row = axes[number * columns : (number + 1) * columns]
        row[0].imshow(image.squeeze(), cmap="gray")
        for ax, layer, title in zip(row[1:], maps, titles, strict=True):
            ax.imshow(layer[number], cmap=_POSITIVE, vmin=0)
            if number == 0:
                ax.set_title(title)
    return figure


def _draw_mosaic(tiles: Sequence[FloatArray], *, columns: int, style: Style) -> Figure:
    """One picture of many, `h w` from -1 to 1 or `h w 3` from 0 to 1, a row of white pixels between them."""
    columns, (height, width) = min(columns, len(tiles)), tiles[0].shape[:2]
    rows = math.ceil(len(tiles) / columns)
    shape = (rows * (height + 1) - 1, columns * (width + 1) - 1, *tiles[0].shape[2:])
    mosaic = np.full(shape, np.nan if len(shape) == 2 else 1.0)
    for place, tile in enumerate(tiles):
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        mosaic[top : top + height, left : left + width] = tile
    figure, (ax,) = _create_grid(1, columns=1, style=style)
    ax.imshow(mosaic, cmap=_SIGNED, vmin=-1, vmax=1)
    return figure


def _create_grid(count: int, *, columns: int, style: Style) -> tuple[Figure, list[Axes]]:
    """Square axes without ticks, in rows of at most so many, as wide as the style's wide figures."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    width = style.wide if columns > 2 else style.width
    figure = Figure(figsize=(width, rows * (width / columns + 0.15)))
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes:
        ax.set_axis_off()
    return figure, axes[:count]

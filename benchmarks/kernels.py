"""The depthwise convolution on a GPU: k in 3, 5, 7, 9; contiguous and channels_last; cuDNN's kernels and torch's own.

Layout and backend for a kernel size are chosen from this table. All variants of one cell take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.gpu_size import Request, Scale
from benchmarks.peers import MEMORY_FORMATS, PRECISIONS
from benchmarks.turns import Contestant, LocalContestant, take_turns

SIZES = (3, 5, 7, 9)
PASSES = ("forward", "input gradient", "weight gradient")
CALLS = 20


def kernel_table(request: Request) -> list[dict[str, Any]]:
    """Milliseconds of every variant, as one row per kernel size, layout, backend and precision."""
    found = []
    for precision in dict.fromkeys((request.scale.precision, "fp32")):
        for size in SIZES:
            timings = take_turns(dict(variants(request.scale, size, precision)), rounds=request.scale.rounds, others=CALLS)
            cells: dict[tuple[str, str], dict[str, Any]] = {}
            for name, timing in timings.items():
                layout, backend, which = name.split(", ")
                row = cells.setdefault((layout, backend), {"k": size, "precision": precision})
                row |= {"layout": layout, "backend": backend, which: timing.seconds * 1e3}
            found += [{**row, "sum": sum(row[which] for which in PASSES)} for row in cells.values()]
    return found


def variants(scale: Scale, size: int, precision: str) -> Iterator[tuple[str, Contestant]]:
    """Every layout, backend and pass of one kernel size, by name."""
    backends = ("cudnn", "native") if scale.kind == "cuda" else ("onednn",)
    for layout in MEMORY_FORMATS:
        for backend in backends:
            for which in PASSES:
                work = convolution(scale, size, layout=layout, cudnn=backend == "cudnn", which=which, precision=precision)
                yield f"{layout}, {backend}, {which}", LocalContestant(lambda work=work: (work, ""))  # type: ignore[misc]


def convolution(scale: Scale, size: int, *, layout: str, cudnn: bool, which: str, precision: str) -> Callable[[], object]:
    """One pass of a depthwise convolution over kernel_images grids of kernel_features."""
    features, side = scale.kernel_features, scale.kernel_grid
    dtype = PRECISIONS[precision]
    grid = torch.randn(scale.kernel_images, features, side, side, device=scale.device, dtype=dtype)
    grid = grid.to(memory_format=MEMORY_FORMATS[layout])
    gradient, weight = torch.randn_like(grid), torch.randn(features, 1, size, size, device=scale.device, dtype=dtype)
    margin, ones = [size // 2] * 2, [1, 1]
    wanted = [which == "input gradient", which == "weight gradient", False]

    def forward() -> object:
        return F.conv2d(grid, weight, padding=size // 2, groups=features)

    def backward() -> object:
        return torch.ops.aten.convolution_backward(
            gradient, grid, weight, None, ones, margin, ones, False, [0, 0], features, wanted
        )

    once = forward if which == "forward" else backward

    def work() -> object:
        with torch.backends.cudnn.flags(enabled=cudnn, benchmark=True):
            return once()

    return work

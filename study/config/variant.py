"""How a model's training may be executed: with the same results within rounding, at very different speeds.

The fastest variant depends on the device and the kernel size (on some GPUs channels_last and compiled is two to three times
as fast for kernels up to 7, and slower for 9), so it is measured, never assumed. Not part of a run's identity.
"""

from __future__ import annotations

from typing import Literal

from study.config.options import Options

Layout = Literal["contiguous", "channels_last"]
Compiled = Literal["default", "reduce-overhead"]
"""torch.compile's mode; the latter uses CUDA graphs."""


class Variant(Options):
    """A memory layout, compiled or eager."""

    memory_layout: Layout
    compiled: Compiled | None = None

    @property
    def label(self) -> str:
        suffixes = {None: "", "default": ", compiled", "reduce-overhead": ", compiled, CUDA graphs"}
        return self.memory_layout + suffixes[self.compiled]

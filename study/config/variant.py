"""How a model's training may be executed: with the same results within rounding, and at very different speeds.

Which variant is the fastest hangs on the device and the kernel size (channels_last and compiled is two to three times faster
for kernels up to 7 on some GPUs, and slower for 9), so it is measured and never assumed. No part of a run's identity.
"""

from __future__ import annotations

from typing import Literal

from study.config.options import Options

Layout = Literal["contiguous", "channels_last"]
Compiled = Literal["default", "reduce-overhead"]
"""torch.compile's mode; the latter takes CUDA graphs."""


class Variant(Options):
    """A memory layout, compiled or as written."""

    memory_layout: Layout
    compiled: Compiled | None = None

    @property
    def label(self) -> str:
        named = {None: "", "default": ", compiled", "reduce-overhead": ", compiled, CUDA graphs"}
        return self.memory_layout + named[self.compiled]

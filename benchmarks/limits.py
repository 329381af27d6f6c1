"""The machine's own limits, measured in the same rounds: matrix products, and bytes to and from memory.

The arithmetic limit of a training step is the time of its 6 x MACs operations per image (3 x the forward pass) at the rate of
a large matrix product. The memory limit is the time of the traffic that remains if everything between two operators with MACs
were fused into them: each element that such an operator writes is written once and read once in the forward pass, read once
for the weight gradient, and its gradient is written once and read twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from study.backbones.specification import BackboneSpec

PASSES = 6  # over each element that an operator with MACs writes, forward and backward
SIDE = {"cpu": 1536, "cuda": 8192}  # of the square matrices
COPIED = {"cpu": 2**26, "cuda": 2**30}  # bytes; beyond the private caches


@dataclass(frozen=True)
class Limits:
    """Rates of this machine, in operations and in bytes per second."""

    operations: float
    bytes: float

    def step_seconds(self, spec: BackboneSpec, batch_size: int, *, element_bytes: int = 4) -> tuple[float, float]:
        """The arithmetic and the memory limit of a training step."""
        cost = spec.closed_form()
        elements = sum(part.activation_elements for part in cost.parts.values())
        arithmetic = 3 * cost.flops * batch_size / self.operations
        return arithmetic, PASSES * element_bytes * elements * batch_size / self.bytes


def product(device: str, dtype: torch.dtype = torch.float32) -> tuple[Callable[[], object], str]:
    """One square matrix product, of `product_operations`."""
    left, right = (torch.randn(SIDE[device], SIDE[device], device=device).to(dtype) for _ in range(2))
    return lambda: left @ right, f"{SIDE[device]} square, {dtype}".replace("torch.", "")


def product_operations(device: str) -> int:
    """What one call of `product` computes."""
    return int(2 * SIDE[device] ** 3)


def copying(device: str) -> tuple[Callable[[], object], str]:
    """One copy of a large tensor into another, of `copied_bytes`."""
    source = torch.randn(COPIED[device] // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), f"{COPIED[device] >> 20} MiB, read and written"


def copied_bytes(device: str) -> int:
    """What one call of `copying` reads and writes."""
    return 2 * COPIED[device]

"""Peak memory of one of many trainings in a process: reset before, read after, None where the system doesn't report it."""

from __future__ import annotations

from pathlib import Path

import torch

RESET_PEAK = "5"
"""Written to /proc/self/clear_refs this sets the peak resident size back to the current one (proc(5))."""


def reset_peak_memory(device: torch.device) -> bool:
    """Reset the peak; returns whether that succeeded, so that a later peak is of this training alone."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def read_peak_mib(device: torch.device, *, was_reset: bool) -> float | None:
    """Since the reset: on a GPU the allocator's peak, on a CPU the whole process's resident peak, in MiB."""
    if not was_reset:
        return None
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:")), None)

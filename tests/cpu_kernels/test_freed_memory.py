"""Freed memory that the process keeps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import resource, torch
from study.cpu_kernels.freed_memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def allocate_and_free():
    before = faults()
    for _ in range(10):
        torch.ones(16, 2**20)
    return faults() - before

print(keep_freed_memory() if {keep} else None, allocate_and_free(), allocate_and_free())
"""


def page_faults(*, keep: bool) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-c", CODE.format(keep=keep)], capture_output=True, text=True, check=True)
    kept, _, faults = done.stdout.split()
    return kept, int(faults)


def test_freed_memory_is_reused_without_page_faults():
    """Ten tensors of 64 MiB, one after the other, cause page faults each time without it and almost none with it."""
    kept, faults = page_faults(keep=True)
    if kept == "False":
        pytest.skip("not glibc")
    assert faults < 1000
    assert page_faults(keep=False)[1] > 10 * max(faults, 10)


MARKED = """
import torch
from study.cpu_kernels.freed_memory import keep_freed_memory, return_freed_memory

def huge():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHugePages"))

keep_freed_memory()
for _ in range(2):
    kept = torch.ones(2**26)
    print(huge())
    del kept
    return_freed_memory()
    print(huge())
"""


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists(), reason="no transparent huge pages")
def test_tensors_are_in_huge_pages_also_after_memory_was_returned():
    """Where the system gives them on request: a tensor of 256 MiB, returned to the system, and the next one."""
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("huge pages are disabled")
    done = subprocess.run([sys.executable, "-c", MARKED], capture_output=True, text=True, check=True)
    first, returned, second, _ = map(int, done.stdout.split())
    assert first > 2**17 and second > 2**17 > returned

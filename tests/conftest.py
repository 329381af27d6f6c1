"""What every test may use. Suites run from the checkout; no test writes outside its temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest_plugins = ["slurm_cluster"]

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _as_many_threads_as_before():
    """Commands that run in a test's process set its threads, which change last bits: the next test finds them as they were."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def repository() -> Path:
    """The checkout's root."""
    return REPOSITORY

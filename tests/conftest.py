"""What every test may use. Suites run from the checkout; no test writes outside its temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["slurm_cluster"]

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def repository() -> Path:
    """The checkout's root."""
    return REPOSITORY

"""Toy models train on one thread: on several, threads that wait for tiny products take more time than the products."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)

"""Starts the scenarios on a real Slurm, all at once, when the first test asks for one (see `scenarios`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from scenarios import Body, Twins, play
from slurm_cluster import RACKS, SlurmCluster


@pytest.fixture(scope="session")
def finished(
    request: pytest.FixtureRequest, slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Body], None]]:
    """Starts all collected scenarios; a call waits for one and raises what it raised."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # without groups every process of the suite would play all scenarios
        assert any(item.nodeid.endswith("@scenarios") for item in request.session.items), "pytest-xdist formed no groups"
    base = tmp_path_factory.mktemp("scenarios")
    twins = Twins(base)
    bodies = [
        vars(item.function)["body"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "body" in vars(item.function)
    ]
    with ThreadPoolExecutor(RACKS - 1) as pool:
        futures: dict[Body, Future[None]] = {body: pool.submit(play, body, base, slurm_cluster, twins) for body in bodies}
        yield lambda body: futures[body].result()
        pool.shutdown(cancel_futures=True)

"""The interface of a tracker."""

from collections.abc import Mapping
from typing import Any, Protocol

Metrics = Mapping[str, float]


class Tracker(Protocol):
    """One library, holding any number of open runs by their run ids. It may raise anything."""

    def open(self, run_id: str, config: Mapping[str, Any]) -> int:
        """Begin a run, or resume one that was begun before; returns the number of its epochs that are logged already."""
        ...

    def log(self, run_id: str, epoch: int, metrics: Metrics) -> None:
        """Log the metrics at the end of an epoch, counted from 1."""
        ...

    def close(self, run_id: str, status: str, metrics: Metrics) -> None:
        """Log the final metrics; status `stopped` means that the run will be resumed later."""
        ...

"""A tracker sees every epoch once and can stop nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from study.tracking import tracking_thread
from study.tracking.tracking_thread import Metrics, Tracker, Tracking, split_epochs


class Notebook:
    """A tracker that records its calls, and may have epochs of an earlier process."""

    def __init__(self, *, held: int = 0):
        self.held = held
        self.calls: list[tuple[Any, ...]] = []

    def open(self, run_id: str, config: Mapping[str, Any]) -> int:
        self.calls.append(("open", run_id, dict(config)))
        return self.held

    def log(self, run_id: str, epoch: int, metrics: Metrics) -> None:
        self.calls.append(("epoch", run_id, epoch, dict(metrics)))

    def close(self, run_id: str, status: str, metrics: Metrics) -> None:
        self.calls.append(("close", run_id, status, dict(metrics)))


class Faulty(Notebook):
    """A tracker that raises in one of its three methods."""

    def __init__(self, *, at: str, error: BaseException):
        super().__init__()
        self.at, self.error = at, error

    def open(self, run_id: str, config: Mapping[str, Any]) -> int:
        self._fail("open")
        return 0

    def log(self, run_id: str, epoch: int, metrics: Metrics) -> None:
        self._fail("log")

    def close(self, run_id: str, status: str, metrics: Metrics) -> None:
        self._fail("close")

    def _fail(self, call: str) -> None:
        if call == self.at:
            raise self.error


def curves(epochs: int) -> dict[str, list[float | None]]:
    """A falling loss, and an accuracy that was not measured in the first epoch."""
    numbers = range(1, epochs + 1)
    accuracy = [None, *(0.1 * n for n in numbers)][:epochs]
    return {"epoch": [*map(float, numbers)], "train_loss": [1 / n for n in numbers], "val_accuracy": accuracy}


def start_tracking(tracker: Tracker, *, name: str = "one", timeout_s: float = 5.0) -> Tracking:
    return Tracking({name: lambda: tracker}, timeout_s=timeout_s)


def test_each_epoch_is_logged_once_in_order_between_open_and_close() -> None:
    """However epochs arrive, the calls are: open, epochs 1 to n once each, close; missing values are left out."""
    notebook = Notebook()
    tracking = start_tracking(notebook)
    tracking.begin_run("a", {"lr": 0.1, "kernel_size": None})
    for known in (0, 1, 1, 3, 4):
        tracking.log_curves("a", curves(known))
    assert tracking.end_run("a", "done", metrics={"test_accuracy": 0.5, "val_accuracy": None}) == ()
    rows = split_epochs(curves(4))
    assert rows[0] == {"train_loss": 1.0}
    assert notebook.calls == [
        ("open", "a", {"lr": 0.1}),
        *(("epoch", "a", n, rows[n - 1]) for n in range(1, 5)),
        ("close", "a", "done", {"final/test_accuracy": 0.5}),
    ]


def test_a_resumed_run_skips_epochs_that_the_tracker_has() -> None:
    """After a resume the curves have all epochs again; those that the tracker had before are skipped."""
    notebook = Notebook(held=3)
    tracking = start_tracking(notebook)
    tracking.begin_run("a", {})
    tracking.log_curves("a", curves(5))
    tracking.end_run("a", "done", metrics={})
    assert [line[2] for line in notebook.calls if line[0] == "epoch"] == [4, 5]


def test_runs_open_at_the_same_time_are_separate() -> None:
    """Of two runs that progress in turns, each gets its own epochs."""
    notebook = Notebook()
    tracking = start_tracking(notebook)
    for run_id in "ab":
        tracking.begin_run(run_id, {})
    for epochs in (1, 2):
        for run_id in "ab":
            tracking.log_curves(run_id, curves(epochs))
    for run_id in "ab":
        tracking.end_run(run_id, "done", metrics={})
        assert [line[2] for line in notebook.calls if line[:2] == ("epoch", run_id)] == [1, 2]


@pytest.mark.parametrize("at", ["open", "log", "close"])
@pytest.mark.parametrize("error", [ConnectionError("no route to host\nmore"), SystemExit(1), KeyboardInterrupt()])
def test_a_tracker_that_raises_is_reported_once_and_disabled(
    at: str, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is raised by whichever method: each run's end returns the note, and stderr has it once."""
    broken, notebook = Faulty(at=at, error=error), Notebook()
    tracking = Tracking({"broken": lambda: broken, "good": lambda: notebook}, timeout_s=5.0)
    for run_id in "ab":
        tracking.begin_run(run_id, {})
        tracking.log_curves(run_id, curves(2))
        (note,) = tracking.end_run(run_id, "done", metrics={})
        assert note.startswith(f"the tracker broken is off: {type(error).__name__}") and "\n" not in note
    assert capsys.readouterr().err.count("is off") == 1
    assert [line[1] for line in notebook.calls if line[0] == "close"] == ["a", "b"], "the other tracker continues"


def test_a_tracker_that_cannot_be_opened_is_disabled() -> None:
    """A library that fails at its import leaves a note and nothing else."""

    def absent() -> Tracker:
        raise ImportError("no such library")

    tracking = Tracking({"absent": absent}, timeout_s=5.0)
    tracking.begin_run("a", {})
    assert tracking.end_run("a", "done", metrics={}) == ("the tracker absent is off: ImportError: no such library",)


def test_logging_does_not_block() -> None:
    """Logging returns while the tracker is still at the first epoch; a run's end waits until all epochs are logged."""
    slow, release = Notebook(), threading.Event()
    slow.log = lambda run_id, epoch, metrics: slow.calls.append((epoch, release.wait(20)))  # type: ignore[method-assign]
    tracking = start_tracking(slow)
    tracking.begin_run("a", {})
    tracking.log_curves("a", curves(5))
    release.set()
    tracking.end_run("a", "done", metrics={})
    assert [call for call in slow.calls if isinstance(call[0], int)] == [(epoch, True) for epoch in range(1, 6)]


def test_a_tracker_that_hangs_delays_one_run_once(monkeypatch) -> None:
    """Waiting is bounded by the timeout, and a disabled tracker is not waited for again."""
    waits = []

    class CountedEvent(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return super().wait(timeout)

    hanging, release = Notebook(), threading.Event()
    hanging.open = lambda run_id, config: int(not release.wait(60))  # type: ignore[method-assign]
    tracking = start_tracking(hanging, name="slow", timeout_s=0.2)
    monkeypatch.setattr(tracking_thread, "Event", CountedEvent)
    counts = []
    for run_id in "ab":
        tracking.begin_run(run_id, {})
        tracking.log_curves(run_id, curves(2))
        assert tracking.end_run(run_id, "done", metrics={}) == ("the tracker slow is off: it did not answer for 0.2 s",)
        counts.append(len(waits))
    release.set()
    assert counts[0] == counts[1] > 0


def test_a_run_that_never_began_can_end() -> None:
    """A run recorded as failed without having been trained is not logged."""
    notebook = Notebook()
    opens: Callable[[], Tracker] = lambda: notebook  # noqa: E731
    tracking = Tracking({"one": opens}, timeout_s=5.0)
    assert tracking.end_run("a", "failed", metrics={}) == ()
    assert notebook.calls == []

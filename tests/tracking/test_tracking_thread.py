"""A tracker sees every epoch once and can stop nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from study.tracking.libraries import Figures, Tracker
from study.tracking.tracking_thread import Tracking, rows_of


class Notebook:
    """A tracker that writes down what it is told, and may hold epochs of an earlier life."""

    def __init__(self, *, held: int = 0):
        self.held = held
        self.lines: list[tuple[Any, ...]] = []

    def open(self, run_id: str, facts: Mapping[str, Any]) -> int:
        self.lines.append(("open", run_id, dict(facts)))
        return self.held

    def log(self, run_id: str, epoch: int, figures: Figures) -> None:
        self.lines.append(("epoch", run_id, epoch, dict(figures)))

    def close(self, run_id: str, status: str, figures: Figures) -> None:
        self.lines.append(("close", run_id, status, dict(figures)))


class Faulty(Notebook):
    """A tracker that breaks at one of its three calls."""

    def __init__(self, *, at: str, error: BaseException):
        super().__init__()
        self.at, self.error = at, error

    def open(self, run_id: str, facts: Mapping[str, Any]) -> int:
        self._fall("open")
        return 0

    def log(self, run_id: str, epoch: int, figures: Figures) -> None:
        self._fall("log")

    def close(self, run_id: str, status: str, figures: Figures) -> None:
        self._fall("close")

    def _fall(self, call: str) -> None:
        if call == self.at:
            raise self.error


def curves(epochs: int) -> dict[str, list[float | None]]:
    """A loss that falls and an accuracy that wasn't measured in the first epoch."""
    numbers = range(1, epochs + 1)
    accuracy = [None, *(0.1 * n for n in numbers)][:epochs]
    return {"epoch": [*map(float, numbers)], "train_loss": [1 / n for n in numbers], "val_accuracy": accuracy}


def followed(tracker: Tracker, *, name: str = "one", patience_s: float = 5.0) -> Tracking:
    return Tracking({name: lambda: tracker}, patience_s=patience_s)


def test_each_epoch_is_told_once_in_order_between_opening_and_closing() -> None:
    """Whatever the rhythm of progress, the calls are: open, epochs 1 to n once each, close; what is missing is left out."""
    notebook = Notebook()
    tracking = followed(notebook)
    tracking.begin("a", {"lr": 0.1, "kernel_size": None})
    for known in (0, 1, 1, 3, 4):
        tracking.follow("a", curves(known))
    assert tracking.end("a", "done", figures={"test_accuracy": 0.5, "val_accuracy": None}) == ()
    rows = rows_of(curves(4))
    assert rows[0] == {"train_loss": 1.0}
    assert notebook.lines == [
        ("open", "a", {"lr": 0.1}),
        *(("epoch", "a", n, rows[n - 1]) for n in range(1, 5)),
        ("close", "a", "done", {"final/test_accuracy": 0.5}),
    ]


def test_a_resumed_run_is_not_told_what_the_tracker_holds() -> None:
    """After a resume the curves hold all epochs again; those that the tracker had before are skipped."""
    notebook = Notebook(held=3)
    tracking = followed(notebook)
    tracking.begin("a", {})
    tracking.follow("a", curves(5))
    tracking.end("a", "done", figures={})
    assert [line[2] for line in notebook.lines if line[0] == "epoch"] == [4, 5]


def test_runs_under_way_at_once_are_kept_apart() -> None:
    """Two runs that progress in turns are each told their own epochs."""
    notebook = Notebook()
    tracking = followed(notebook)
    for run_id in "ab":
        tracking.begin(run_id, {})
    for epochs in (1, 2):
        for run_id in "ab":
            tracking.follow(run_id, curves(epochs))
    for run_id in "ab":
        tracking.end(run_id, "done", figures={})
        assert [line[2] for line in notebook.lines if line[:2] == ("epoch", run_id)] == [1, 2]


@pytest.mark.parametrize("at", ["open", "log", "close"])
@pytest.mark.parametrize("error", [ConnectionError("no route to host\nmore"), SystemExit(1), KeyboardInterrupt()])
def test_a_tracker_that_raises_is_told_once_and_off(at: str, error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is raised wherever: the run's end returns one note, the next run's the same, and stderr tells it once."""
    broken, notebook = Faulty(at=at, error=error), Notebook()
    tracking = Tracking({"broken": lambda: broken, "good": lambda: notebook}, patience_s=5.0)
    for run_id in "ab":
        tracking.begin(run_id, {})
        tracking.follow(run_id, curves(2))
        (note,) = tracking.end(run_id, "done", figures={})
        assert note.startswith(f"the tracker broken is off: {type(error).__name__}") and "\n" not in note
    assert capsys.readouterr().err.count("is off") == 1
    assert [line[1] for line in notebook.lines if line[0] == "close"] == ["a", "b"], "the other tracker goes on"


def test_a_tracker_that_cannot_be_opened_is_off() -> None:
    """A library that fails at its import leaves a note and nothing else."""

    def absent() -> Tracker:
        raise ImportError("no such library")

    tracking = Tracking({"absent": absent}, patience_s=5.0)
    tracking.begin("a", {})
    assert tracking.end("a", "done", figures={}) == ("the tracker absent is off: ImportError: no such library",)


def test_following_waits_for_nobody() -> None:
    """Epochs are handed over at once, however long the tracker takes for each; a run's end waits until all are there."""
    slow = Notebook()
    slow.log = lambda run_id, epoch, figures: time.sleep(0.1) or slow.lines.append(epoch)  # type: ignore[method-assign, func-returns-value]
    tracking = followed(slow)
    tracking.begin("a", {})
    start = time.monotonic()
    tracking.follow("a", curves(5))
    assert time.monotonic() - start < 0.1
    tracking.end("a", "done", figures={})
    assert [line for line in slow.lines if isinstance(line, int)] == [1, 2, 3, 4, 5]


def test_a_tracker_that_hangs_delays_one_run_once() -> None:
    """Waiting is bounded by the patience, and once it's over nobody waits again."""
    hanging = Notebook()
    hanging.open = lambda run_id, facts: time.sleep(60) or 0  # type: ignore[method-assign]
    tracking = followed(hanging, name="slow", patience_s=0.2)
    took = []
    for run_id in "ab":
        start = time.monotonic()
        tracking.begin(run_id, {})
        tracking.follow(run_id, curves(2))
        assert tracking.end(run_id, "done", figures={}) == ("the tracker slow is off: it did not answer for 0.2 s",)
        took.append(time.monotonic() - start)
    assert 0.2 <= took[0] < 5 and took[1] < 0.1


def test_a_run_that_never_began_can_end() -> None:
    """A run recorded as failed without having been trained is told to nobody."""
    notebook = Notebook()
    opens: Callable[[], Tracker] = lambda: notebook  # noqa: E731
    tracking = Tracking({"one": opens}, patience_s=5.0)
    assert tracking.end("a", "failed", figures={}) == ()
    assert notebook.lines == []

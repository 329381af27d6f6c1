"""Everything on disk in `runs/<sweep>/`, which is all that launcher, worker and report share. Nothing here imports torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.records.plan_file import StudyFacts
    from study.records.predictions import count_predictions, load_predictions
    from study.records.probe_file import load_probes
    from study.records.table import load_correctness, load_curves, load_study, load_table, load_trials

__all__ = [
    "StudyFacts",
    "count_predictions",
    "load_correctness",
    "load_curves",
    "load_predictions",
    "load_probes",
    "load_study",
    "load_table",
    "load_trials",
]


def __getattr__(name: str) -> Any:
    """Import pandas only with the first table: workers, and the last line of every job, start faster without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = dict.fromkeys(("load_predictions", "count_predictions"), "predictions")
    modules |= {"load_probes": "probe_file", "StudyFacts": "plan_file"}
    module = modules.get(name, "table")
    return getattr(import_module(f"study.records.{module}"), name)

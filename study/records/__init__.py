"""What finished runs left, as files and as a table; nothing here imports torch, and pandas is loaded with the first table."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.records.predictions import load_predictions
    from study.records.table import StudyFacts, load_curves, load_study, load_table, load_trials

__all__ = ["StudyFacts", "load_curves", "load_predictions", "load_study", "load_table", "load_trials"]


def __getattr__(name: str) -> Any:
    """Workers and the last line of every job start without pandas, which takes longer to load than most of what they do."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("study.records." + ("predictions" if name == "load_predictions" else "table")), name)

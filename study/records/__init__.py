"""What finished runs left, as files and as a table; nothing here imports torch."""

from study.records.predictions import load_predictions
from study.records.table import StudyFacts, load_curves, load_study, load_table, load_trials

__all__ = ["StudyFacts", "load_curves", "load_predictions", "load_study", "load_table", "load_trials"]

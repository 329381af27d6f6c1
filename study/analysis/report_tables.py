"""The tables of a study, from a sweep's folder of runs; several studies as one; what of them can be published."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from study.analysis.further_tests import add_further_accuracies
from study.errors import Problem, UserError
from study.records import (
    StudyFacts,
    count_predictions,
    load_correctness,
    load_curves,
    load_probes,
    load_study,
    load_table,
    load_trials,
)
from study.records.columns import name_column
from study.records.probe_file import load_further_tests

TABLE_FILES = (
    "study.json",
    "runs.csv",
    "trials.csv",
    "curves.parquet",
    "correctness.parquet",
    "probes.parquet",
    "predictions.parquet",
    "sweep.yaml",
)
"""What a report is drawn from."""

_READERS: Mapping[str, Callable[[str], Any]] = {"Float64": float, "Int64": int, "boolean": "True".__eq__, "string": str}

_DATA_FOLDERS = re.compile(r"\b(root|cache)(\s*:\s*|=)(?!\s*data(?:/cache)?\s*(?:[,}#\n]|$))(\[[^\]]*\]|[^\s,}#]+)")
_ABSOLUTE_PATHS = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:\\|/|~/)[\w.~@+-]+(?:[/\\][\w.~@+ -]+)*[/\\]([\w.~@+-]+)")


@dataclass(frozen=True, eq=False)
class StudyTables:
    """The tables of a study; `trials` is empty where nothing was tuned, `correctness` and `predictions` where none were kept.

    `correctness` has the test images of final runs and the validation images of trials, as from `load_correctness`, and the
    further tests of `study.probe`, whose measures of layers are `probes`, as from `load_probes`; empty without any.
    `predictions` counts those of final runs, as from `count_predictions`.
    """

    table: pd.DataFrame
    curves: pd.DataFrame
    facts: StudyFacts
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)
    correctness: pd.DataFrame = field(default_factory=pd.DataFrame)
    probes: pd.DataFrame = field(default_factory=pd.DataFrame)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def factors(self) -> list[str]:
        """The varied options as columns of the table, in the sweep's order."""
        columns = [name_column(key) for key in self.facts.factors]
        if "data_set" in self.table:
            columns = ["data_set" if column == "data_name" else column for column in columns]
        return [column for column in dict.fromkeys(columns) if column in self.table]

    def written_levels(self, factor: str) -> list[Any]:
        """The levels of a factor (a column) as the sweep writes them, in its order."""
        return next((list(own) for key, own in self.facts.factors.items() if name_column(key) == factor), [])

    @property
    def tuned(self) -> list[str]:
        """The tuned options, as columns of the trials."""
        return [name for name in self.facts.tuned if name in self.trials]


def combine_studies(studies: Sequence[StudyTables]) -> StudyTables:
    """Several sweeps as one study with the factor `study`, to be compared in one report.

    A run that several sweeps share appears in each. Factors of any of the sweeps are factors of the comparison, and so is
    the way of matching, where that differs. Contrasts that all sweeps state alike hold for the comparison; where they state
    different ones, `contrasts` names these sweeps as `not_shared` alone. UserError where two sweeps have the same name.
    """
    names = [study.facts.name for study in studies]
    for name in names:
        if names.count(name) > 1:
            raise UserError(Problem("two sweeps in a comparison have the same name", value=name))
    table, curves = (_concatenate(studies, kind) for kind in ("table", "curves"))
    factors: dict[str, list[Any]] = {key: levels for study in studies for key, levels in study.facts.factors.items()}
    ways = sorted(set(table["match_by"].dropna().astype(str))) if "match_by" in table else []
    effects = [study.facts.effect_of_interest for study in studies]
    stated = [study.facts.contrasts for study in studies]
    stating = [name for name, own in zip(names, stated, strict=True) if own]
    facts = replace(
        studies[0].facts,
        name="-vs-".join(names),
        question=" ".join(f"{study.facts.name}: {study.facts.question}" for study in studies),
        expected="",
        factors=factors | ({"match.by": list(ways)} if len(ways) > 1 else {}) | {"study": list(names)},
        seeds=tuple(sorted({seed for study in studies for seed in study.facts.seeds})),
        match={},
        contrasts=stated[0] if stated.count(stated[0]) == len(stated) else {"not_shared": stating},
        expectations=(),
        effect_of_interest=effects[0] if effects.count(effects[0]) == len(effects) else None,
        tuned={key: levels for study in studies for key, levels in study.facts.tuned.items()},
        looks={name: sizes for study in studies for name, sizes in study.facts.looks.items()},
        planned_runs=sum(study.facts.planned_runs for study in studies),
        sweep_yaml="\n".join(f"# {study.facts.name}\n{study.facts.sweep_yaml}" for study in studies),
        overrides=tuple(f"{study.facts.name}: {word}" for study in studies for word in study.facts.overrides),
    )
    kinds = ("trials", "correctness", "probes", "predictions")
    return StudyTables(table, curves, facts, *(_concatenate(studies, kind) for kind in kinds))


def _concatenate(studies: Sequence[StudyTables], kind: str) -> pd.DataFrame:
    """One table of all studies, run ids prefixed by the study's name, since two sweeps may share a run."""
    tables = []
    for study in studies:
        table, name = getattr(study, kind), study.facts.name
        if len(table) or kind in ("table", "curves"):
            origin = {} if kind in ("curves", "correctness", "probes", "predictions") else {"study": name}
            ids = {column: f"{name}/" + table[column].astype("string") for column in ("run_id", "other") if column in table}
            tables.append(table.assign(**origin, **ids))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def read_run_folder(folder: Path) -> StudyTables:
    """The tables of a sweep's folder of runs, as recorded so far; where seeds come in stages, of the last complete one."""
    table, facts = _select_stage(load_table(folder), load_study(folder))
    final, trial, curves = load_correctness(folder), load_correctness(folder, stage="trial"), load_curves(folder)
    final, curves = (each[each["run_id"].isin(table["run_id"])] for each in (final, curves))
    correctness = pd.concat([final[final["split"] == "test"], trial], ignore_index=True)
    further, probes = load_further_tests(folder), load_probes(folder)
    if further["run_id"].isin(table["run_id"]).any():
        further = further[further["run_id"].isin(table["run_id"])]
        table, correctness = add_further_accuracies(table, further), pd.concat([correctness, further], ignore_index=True)
    probes = probes[probes["run_id"].isin(table["run_id"]) & (probes["other"].isna() | probes["other"].isin(table["run_id"]))]
    predictions = count_predictions(folder)
    predictions = predictions[predictions["run_id"].isin(table["run_id"])].reset_index(drop=True)
    return StudyTables(table, curves.reset_index(drop=True), facts, load_trials(folder), correctness, probes, predictions)


def _select_stage(table: pd.DataFrame, facts: StudyFacts) -> tuple[pd.DataFrame, StudyFacts]:
    """Run table and facts without the seeds that no look has seen, unless it is before its first one.

    What is in training between two looks is not to be seen: it would be a look that nothing was spent for.
    """
    sizes = [size for size in facts.looks.get(facts.name, []) if size <= len(facts.seeds)]
    if not sizes:
        return table, facts
    unfinished = table.loc[table["status"].isin(["missing", "failed"]), "seed"]
    shown = max((size for size in sizes if not (unfinished < size).any()), default=sizes[0])
    table = table[(table["seed"] < shown).to_numpy(dtype=bool)].reset_index(drop=True)
    return table, replace(facts, seeds=facts.seeds[:shown], planned_runs=len(table))


def prepare_for_publication(table: pd.DataFrame) -> pd.DataFrame:
    """The table with one nullable type per column, and reasons without absolute paths."""
    if table.columns.empty:
        return table
    typed = table.convert_dtypes()
    typed = typed.astype({name: "string" for name, kind in typed.dtypes.items() if str(kind) == "object"})
    if "reason" in typed:
        typed["reason"] = typed["reason"].astype("string").str.replace(_ABSOLUTE_PATHS, r"\1", regex=True)
    return typed


def remove_data_folders(facts: StudyFacts) -> StudyFacts:
    """The facts with default data folders in place of the user's, which do not exist on other machines."""
    kept = tuple(word for word in facts.overrides if not re.search(r"\bdata\.(root|cache)=", word))
    text = _DATA_FOLDERS.sub(lambda m: f"{m[1]}{m[2]}{'data' if m[1] == 'root' else 'data/cache'}", facts.sweep_yaml)
    return replace(facts, sweep_yaml=text, overrides=kept)

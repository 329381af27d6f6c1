"""The tables of a report, and the folder that keeps them so that the whole report can be drawn again.

    reports/<sweep>/
        study.json       question, factors, seeds, match, and the type of every column of runs.csv and trials.csv
        runs.csv         the run table, one row per planned run
        trials.csv       of a tuned sweep: the trials that selected the runs' options, in the same columns
        curves.parquet   learning curves, one row per run and epoch
        correctness.parquet   which test images each run (and which validation images each trial) classified correctly,
                         one bit an image, as from `load_correctness`; absent where none was kept
        sweep.yaml       the sweep as it was launched

A report is always drawn from these files, also when they have just been written: a first report and one drawn again on
another machine are the same bytes. Data roots and absolute paths are removed when writing.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from study.atomic_io import whole_file
from study.config.formats import FORMAT, FORMER_LEVELS, current_level, current_name, upgrade
from study.errors import Problem, UserError, add_location
from study.records import StudyFacts, load_correctness, load_curves, load_study, load_table, load_trials
from study.records.columns import name_column
from study.records.sweep_folder import write_whole
from study.records.table import NUMERIC_TYPES

TABLE_FILES = ("study.json", "runs.csv", "trials.csv", "curves.parquet", "correctness.parquet", "sweep.yaml")
"""What a report is drawn from."""

_READERS: Mapping[str, Callable[[str], Any]] = {"Float64": float, "Int64": int, "boolean": "True".__eq__, "string": str}

_DATA_FOLDERS = re.compile(r"\b(root|cache)(\s*:\s*|=)(?!\s*data(?:/cache)?\s*(?:[,}#\n]|$))(\[[^\]]*\]|[^\s,}#]+)")
_ABSOLUTE_PATHS = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:\\|/|~/)[\w.~@+-]+(?:[/\\][\w.~@+ -]+)*[/\\]([\w.~@+-]+)")


@dataclass(frozen=True, eq=False)
class StudyTables:
    """The tables of a study; `trials` is empty where nothing was tuned, `correctness` where none was kept.

    `correctness` has the test images of final runs and the validation images of trials, as from `load_correctness`.
    """

    table: pd.DataFrame
    curves: pd.DataFrame
    facts: StudyFacts
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)
    correctness: pd.DataFrame = field(default_factory=pd.DataFrame)

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
    the way of matching, where that differs. UserError where two sweeps have the same name.
    """
    names = [study.facts.name for study in studies]
    for name in names:
        if names.count(name) > 1:
            raise UserError(Problem("two sweeps in a comparison have the same name", value=name))
    table, curves = (_concatenate(studies, kind) for kind in ("table", "curves"))
    factors = {key: levels for study in studies for key, levels in study.facts.factors.items()}
    ways = sorted(set(table["match_by"].dropna().astype(str))) if "match_by" in table else []
    effects = [study.facts.effect_of_interest for study in studies]
    facts = replace(
        studies[0].facts,
        name="-vs-".join(names),
        question=" ".join(f"{study.facts.name}: {study.facts.question}" for study in studies),
        expected="",
        factors={**factors, **({"match.by": ways} if len(ways) > 1 else {}), "study": names},
        seeds=tuple(sorted({seed for study in studies for seed in study.facts.seeds})),
        match={},
        contrasts={},
        expectations=(),
        effect_of_interest=effects[0] if effects.count(effects[0]) == len(effects) else None,
        tuned={key: levels for study in studies for key, levels in study.facts.tuned.items()},
        planned_runs=sum(study.facts.planned_runs for study in studies),
        sweep_yaml="\n".join(f"# {study.facts.name}\n{study.facts.sweep_yaml}" for study in studies),
        overrides=tuple(f"{study.facts.name}: {word}" for study in studies for word in study.facts.overrides),
    )
    return StudyTables(table, curves, facts, _concatenate(studies, "trials"), _concatenate(studies, "correctness"))


def _concatenate(studies: Sequence[StudyTables], kind: str) -> pd.DataFrame:
    """One table of all studies, run ids prefixed by the study's name, since two sweeps may share a run."""
    tables = []
    for study in studies:
        table, name = getattr(study, kind), study.facts.name
        if len(table) or kind in ("table", "curves"):
            origin = {} if kind in ("curves", "correctness") else {"study": name}
            tables.append(table.assign(**origin, run_id=name + "/" + table["run_id"].astype("string")))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def read_run_folder(folder: Path) -> StudyTables:
    """The tables of a sweep's folder of runs, as recorded so far."""
    final, trial = load_correctness(folder), load_correctness(folder, stage="trial")
    correctness = pd.concat([final[final["split"] == "test"], trial], ignore_index=True)
    return StudyTables(load_table(folder), load_curves(folder), load_study(folder), load_trials(folder), correctness)


def read_report_folder(folder: Path) -> StudyTables:
    """The tables of a report's folder, typed; tables of earlier versions are upgraded. UserError where a file is missing."""
    lacking = [name for name in ("study.json", "runs.csv", "curves.parquet") if not (folder / name).is_file()]
    if lacking:
        raise UserError(Problem("is not the folder of a report: it lacks " + ", ".join(lacking), place=str(folder)))
    with add_location(str(folder / "study.json")):
        document: dict[str, Any] = upgrade(json.loads((folder / "study.json").read_text(encoding="utf-8")))
        document.pop("format", None)
        types, trial_types = document.pop("columns"), document.pop("trial_columns", {})
        document |= {name: tuple(document.get(name, ())) for name in ("seeds", "overrides", "expectations")}
        facts = StudyFacts(**document)
    correctness = folder / "correctness.parquet"
    return StudyTables(
        read_typed(folder / "runs.csv", types),
        pd.read_parquet(folder / "curves.parquet"),
        facts,
        read_typed(folder / "trials.csv", trial_types),
        pd.read_parquet(correctness) if correctness.exists() else pd.DataFrame(),
    )


def read_typed(path: Path, types: Mapping[str, str]) -> pd.DataFrame:
    """The table with the types it was written with: floats to the last bit, digests as text; an empty text is missing."""
    if not types:
        return pd.DataFrame()
    raw = pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns=current_name)
    raw = raw.assign(**{name: [current_level(name, text) for text in raw[name]] for name in FORMER_LEVELS if name in raw})
    types = {name: NUMERIC_TYPES.get(name, kind) if kind in ("string", "Int64") else kind for name, kind in types.items()}
    return pd.DataFrame(
        {
            name: pd.Series([_READERS[kind](text) if text else pd.NA for text in raw[name]], dtype=kind)
            for name, kind in types.items()
        }
    )


def write_tables(study: StudyTables, folder: Path) -> None:
    """Writes all files of a report's folder but the report itself, replacing those that are there."""
    table, trials = prepare_for_publication(study.table), prepare_for_publication(study.trials)
    facts = remove_data_folders(study.facts)
    types = {
        key: {str(name): str(kind) for name, kind in own.dtypes.items()}
        for key, own in (("columns", table), ("trial_columns", trials))
    }
    document = json.dumps({"format": FORMAT, **asdict(facts), **types}, indent=1, ensure_ascii=False) + "\n"
    write_whole(folder / "study.json", document)
    for name, rows in (("runs.csv", table), ("trials.csv", trials)):
        if len(rows) or rows is table:
            with whole_file(folder / name) as draft:
                rows.to_csv(draft, index=False, lineterminator="\n")
        else:
            (folder / name).unlink(missing_ok=True)
    with whole_file(folder / "curves.parquet") as draft:
        study.curves.to_parquet(draft, index=False)
    if len(study.correctness):
        with whole_file(folder / "correctness.parquet") as draft:
            study.correctness.to_parquet(draft, index=False, compression="zstd")
    else:
        (folder / "correctness.parquet").unlink(missing_ok=True)
    write_whole(folder / "sweep.yaml", facts.sweep_yaml)


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

"""Where a report's tables come from, and the folder in which they are kept so that everything can be redrawn from it.

    reports/<sweep>/
        study.json       question, factors, seeds, match, and the type of every column of runs.csv and trials.csv
        runs.csv         the run table, one row per planned run
        trials.csv       of a tuned sweep: the trials that chose the runs' options, in the same columns
        curves.parquet   learning curves, one row per run and epoch
        sweep.yaml       the sweep as it was launched

A report is always drawn from this folder as it is read back, also when the tables have only just been written: so a
first report and one redrawn elsewhere are the same bytes. Data roots and absolute paths are left out when writing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.typing import NAType

from study.config.formats import FORMAT, FORMER_LEVELS, current_level, current_name, upgrade
from study.errors import Problem, UserError, add_location
from study.records import StudyFacts, load_curves, load_study, load_table, load_trials

RENAMED = {"name": "data_name", "digest": "data_digest", "by": "match_by", "target": "match_target"}
"""Options whose bare name says too little as a column."""

PLACES = re.compile(r"\b(root|cache)(\s*:\s*|=)(?!\s*data(?:/cache)?\s*(?:[,}#\n]|$))[^\s,}#]+")
ABSOLUTE = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:\\|/|~/)[\w.~@+-]+(?:[/\\][\w.~@+ -]+)*[/\\]([\w.~@+-]+)")


@dataclass(frozen=True, eq=False)
class StudyTables:
    """All that a report is made of; `trials` is empty where nothing was tuned."""

    table: pd.DataFrame
    curves: pd.DataFrame
    facts: StudyFacts
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def factors(self) -> list[str]:
        """The varied options as columns of the table, in the sweep's order."""
        return [column for column in map(to_column_name, self.facts.factors) if column in self.table]

    @property
    def tuned(self) -> list[str]:
        """The options that trials chose, as columns of the trials."""
        return [name for name in self.facts.tuned if name in self.trials]


def to_column_name(key: str) -> str:
    """The run table's column of an option key: "model.patch_size" -> "patch_size", "match.by" or "by" -> "match_by"."""
    section, _, name = key.rpartition(".")
    return RENAMED.get(name, f"match_{name}" if section == "match" else name)


def combine_studies(sides: Sequence[StudyTables]) -> StudyTables:
    """Several sweeps as one study with the factor `study`, so that everything stands side by side and can be redrawn.

    A run that several share is in each. What only one of them varies is a factor of the comparison too, and so is what they
    were matched on, where that differs.
    """
    names = [side.facts.name for side in sides]
    for name in names:
        if names.count(name) > 1:
            raise UserError(Problem("two sweeps of one name can't be told apart in a comparison", value=name))
    tables = [side.table.assign(study=side.facts.name, run_id=_prefix_run_ids(side, side.table)) for side in sides]
    trials = [
        side.trials.assign(study=side.facts.name, run_id=_prefix_run_ids(side, side.trials))
        for side in sides
        if len(side.trials)
    ]
    curves = [side.curves.assign(run_id=_prefix_run_ids(side, side.curves)) for side in sides]
    factors = {key: levels for side in sides for key, levels in side.facts.factors.items()}
    ways = sorted({str(way) for table in tables if "match_by" in table for way in table["match_by"].dropna()})
    facts = replace(
        sides[0].facts,
        name="-vs-".join(names),
        question=" ".join(f"{side.facts.name}: {side.facts.question}" for side in sides),
        expected="",
        factors={**factors, **({"match.by": ways} if len(ways) > 1 else {}), "study": names},
        seeds=tuple(sorted({seed for side in sides for seed in side.facts.seeds})),
        match={},
        tuned={key: levels for side in sides for key, levels in side.facts.tuned.items()},
        planned_runs=sum(side.facts.planned_runs for side in sides),
        sweep_yaml="\n".join(f"# {side.facts.name}\n{side.facts.sweep_yaml}" for side in sides),
        overrides=tuple(f"{side.facts.name}: {word}" for side in sides for word in side.facts.overrides),
    )
    return StudyTables(
        pd.concat(tables, ignore_index=True),
        pd.concat(curves, ignore_index=True),
        facts,
        pd.concat(trials, ignore_index=True) if trials else pd.DataFrame(),
    )


def _prefix_run_ids(side: StudyTables, table: pd.DataFrame) -> pd.Series[str]:
    """Run ids that tell the sweeps apart, since two sweeps may share a run."""
    return side.facts.name + "/" + table["run_id"].astype("string")


def read_run_folder(folder: Path) -> StudyTables:
    """The material of a sweep's folder of runs, as recorded so far."""
    return StudyTables(load_table(folder), load_curves(folder), load_study(folder), load_trials(folder))


def read_report_folder(folder: Path) -> StudyTables:
    """The material of a report's folder."""
    lacking = [name for name in ("study.json", "runs.csv", "curves.parquet") if not (folder / name).is_file()]
    if lacking:
        raise UserError(Problem("is not the folder of a report: it lacks " + ", ".join(lacking), place=str(folder)))
    with add_location(str(folder / "study.json")):
        document: dict[str, Any] = upgrade(json.loads((folder / "study.json").read_text(encoding="utf-8")))
    document.pop("format", None)
    columns, of_trials = document.pop("columns"), document.pop("trial_columns", {})
    table = read_typed_table(folder / "runs.csv", columns) if columns else pd.DataFrame()
    trials = read_typed_table(folder / "trials.csv", of_trials) if of_trials else pd.DataFrame()
    document |= {name: tuple(document[name]) for name in ("seeds", "overrides")}
    return StudyTables(table, pd.read_parquet(folder / "curves.parquet"), StudyFacts(**document), trials)


def read_typed_table(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """The table with the types that it was written with; figures come back to the last bit, hashes stay text."""
    raw = pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns=current_name)
    raw = raw.assign(**{name: [current_level(name, text) for text in raw[name]] for name in FORMER_LEVELS if name in raw})
    return pd.DataFrame({name: pd.Series(entries(raw[name], kind), dtype=kind) for name, kind in columns.items()})


def entries(texts: pd.Series[str], kind: str) -> list[float | int | bool | str | NAType]:
    """A column's texts as values of its type; an empty text is a missing entry."""
    readers: dict[str, Callable[[str], float | int | bool | str]]
    readers = {"Float64": float, "Int64": int, "boolean": "True".__eq__, "string": str}
    read = readers[kind]
    return [read(text) if text else pd.NA for text in texts]


def write_tables(material: StudyTables, folder: Path) -> None:
    """Writes all tables; what is in the folder already is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    table, trials, facts = (
        prepare_for_publication(material.table),
        prepare_for_publication(material.trials),
        without_places(material.facts),
    )
    types = {"columns": types_of(table), "trial_columns": types_of(trials)}
    document = json.dumps({"format": FORMAT, **asdict(facts), **types}, indent=1, ensure_ascii=False) + "\n"
    (folder / "study.json").write_text(document, encoding="utf-8")
    table.to_csv(folder / "runs.csv", index=False, lineterminator="\n")
    if trials.empty:
        (folder / "trials.csv").unlink(missing_ok=True)
    else:
        trials.to_csv(folder / "trials.csv", index=False, lineterminator="\n")
    material.curves.to_parquet(folder / "curves.parquet", index=False)
    (folder / "sweep.yaml").write_text(facts.sweep_yaml, encoding="utf-8")


def types_of(table: pd.DataFrame) -> dict[str, str]:
    """The type of every column by name."""
    return {str(name): str(kind) for name, kind in table.dtypes.items()}


def prepare_for_publication(table: pd.DataFrame) -> pd.DataFrame:
    """The table with one nullable type per column, and reasons without absolute paths."""
    if table.columns.empty:
        return table
    typed = table.convert_dtypes()
    typed = typed.astype({name: "string" for name, kind in typed.dtypes.items() if str(kind) == "object"})
    if "reason" in typed:
        typed["reason"] = typed["reason"].astype("string").str.replace(ABSOLUTE, r"\1", regex=True)
    return typed


def without_places(facts: StudyFacts) -> StudyFacts:
    """The facts without the folders that somebody's data lie in: a report is read on other machines."""
    kept = tuple(word for word in facts.overrides if not re.search(r"\bdata\.(root|cache)=", word))
    return replace(facts, sweep_yaml=PLACES.sub(default_place, facts.sweep_yaml), overrides=kept)


def default_place(found: re.Match[str]) -> str:
    """The setting with its default in place of the folder."""
    return f"{found[1]}{found[2]}{'data' if found[1] == 'root' else 'data/cache'}"

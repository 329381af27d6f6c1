"""The files of a report's tables: written with a digest each, and read back only as they were written.

    reports/<sweep>/
        study.json       question, factors, seeds, match, the type of every column of the CSV files, and the SHA-256 of
                         the other tables: one that was cut off, edited or mixed with another report's is refused
        runs.csv         the run table, one row per planned run
        trials.csv       of a tuned sweep: the trials that selected the runs' options, in the same columns
        curves.parquet   learning curves, one row per run and epoch
        correctness.parquet   which test images each run (and which validation images each trial) classified correctly,
                         one bit an image, as from `load_correctness`; absent where none was kept
        predictions.parquet   of each run the test images by label, predicted class and bin of confidence, as from
                         `count_predictions`; absent where no predictions were kept
        sweep.yaml       the sweep as it was launched

A report is always drawn from these files, also when they have just been written: a first report and one drawn again on
another machine are the same bytes. Data roots and absolute paths are removed when writing.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from study.analysis.report_tables import StudyTables, prepare_for_publication, remove_data_folders
from study.atomic_io import whole_file
from study.config.documents import STORED, read_content, read_document
from study.config.formats import FORMAT, FORMER_LEVELS, current_level, current_name
from study.errors import Problem, UserError
from study.records import StudyFacts
from study.records.record import pick
from study.records.table import NUMERIC_TYPES

ColumnType = Literal["Float64", "Int64", "boolean", "string"]
_DIGESTED = ("runs.csv", "trials.csv", "curves.parquet", "correctness.parquet", "probes.parquet", "predictions.parquet")
REDRAW = "restore it, or write the report anew from its runs (`study.report SWEEP --out DIR`)"
_STATUSES = ("done", "failed", "diverged", "missing")

_READERS: Mapping[str, Callable[[str], Any]] = {
    "Float64": float,
    "Int64": int,
    "boolean": {"True": True, "False": False}.__getitem__,
    "string": str,
}
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _ReportDocument(StudyFacts):
    """study.json. Reports before 0.2.0 have no digests."""

    __pydantic_config__ = STORED
    columns: dict[str, ColumnType]
    trial_columns: dict[str, ColumnType] = field(default_factory=dict)
    digests: dict[str, str] | None = None


def write_tables(study: StudyTables, folder: Path) -> None:
    """Writes all files of a report's folder but the report itself, replacing those that are there; study.json comes last."""
    table, trials = prepare_for_publication(study.table), prepare_for_publication(study.trials)
    facts = remove_data_folders(study.facts)
    types = {
        key: {str(name): str(kind) for name, kind in own.dtypes.items()}
        for key, own in (("columns", table), ("trial_columns", trials))
    }
    contents = {"runs.csv": format_csv(table), "curves.parquet": study.curves.to_parquet(index=False)}
    if len(trials):
        contents["trials.csv"] = format_csv(trials)
    if len(study.correctness):
        contents["correctness.parquet"] = study.correctness.to_parquet(index=False, compression="zstd")
    if len(study.probes):
        contents["probes.parquet"] = study.probes.to_parquet(index=False, compression="zstd")
    if len(study.predictions):
        contents["predictions.parquet"] = study.predictions.to_parquet(index=False, compression="zstd")
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    document = json.dumps({"format": FORMAT, **asdict(facts), **types, "digests": digests}, indent=1, ensure_ascii=False) + "\n"
    for name in _DIGESTED:
        if name not in contents:
            (folder / name).unlink(missing_ok=True)
    contents |= {"sweep.yaml": facts.sweep_yaml.encode(), "study.json": document.encode()}
    for name, content in contents.items():
        with whole_file(folder / name) as draft:
            draft.write_bytes(content)


def format_csv(table: pd.DataFrame) -> bytes:
    """The table as CSV. A text that a spreadsheet would run as a formula has an apostrophe before it, but no number has."""
    safe = table.copy()
    for name in map(str, table):
        if str(table[name].dtype) == "string":
            safe[name] = table[name].map(_escape_formula, na_action="ignore")
    return safe.to_csv(index=False, lineterminator="\n").encode()


def _escape_formula(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _restore_formula(text: str) -> str:
    """The text that `_escape_formula` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def read_report_folder(folder: Path) -> StudyTables:
    """The tables of a report's folder, typed; tables of earlier versions are upgraded.

    Raises
    ------
    UserError
        If a file is missing, damaged or not the one that was written together with study.json.
    """
    lacking = [name for name in ("study.json", "runs.csv", "curves.parquet") if not os.path.lexists(folder / name)]
    if lacking:
        raise UserError(Problem("is not the folder of a report: it lacks " + ", ".join(lacking), place=str(folder)))
    document = read_document(folder / "study.json", _ReportDocument, hint=REDRAW)
    expected = ["runs.csv", "curves.parquet", *(["trials.csv"] if document.trial_columns else [])]
    present = [name for name in _DIGESTED if name in expected or os.path.lexists(folder / name)]
    contents = {name: read_content(folder / name, hint=REDRAW) for name in {*present, *(document.digests or ())} & {*_DIGESTED}}
    for name, digest in (document.digests or {}).items():
        if hashlib.sha256(contents.get(name, b"")).hexdigest() != digest:
            rule = f"not the table that study.json was written with: cut off, edited or another report's; {REDRAW}"
            raise UserError(Problem(rule, place=str(folder / name)))
    table = _parse_csv(contents["runs.csv"], document.columns, folder / "runs.csv")
    if document.digests is None and len(table) != document.planned_runs:
        rule = f"{len(table):,} rows for {document.planned_runs:,} planned runs: it was cut off or edited; {REDRAW}"
        raise UserError(Problem(rule, place=str(folder / "runs.csv")))
    _check_truth(table, folder / "runs.csv")
    trials = (
        _parse_csv(contents["trials.csv"], document.trial_columns, folder / "trials.csv") if document.trial_columns else None
    )
    curves = _parse_parquet(contents["curves.parquet"], ("run_id", "epoch"), folder / "curves.parquet")
    correctness = pd.DataFrame()
    if "correctness.parquet" in contents:
        path = folder / "correctness.parquet"
        correctness = _parse_parquet(contents[path.name], ("run_id", "split", "images", "correct"), path)
        sizes = zip(correctness["images"], correctness["correct"], strict=True)
        if not all(isinstance(packed, bytes) and len(packed) == -(-images // 8) for images, packed in sizes):
            raise UserError(Problem(f"its bits are not of its images; {REDRAW}", place=str(path)))
    probes, columns = pd.DataFrame(), ("run_id", "measure", "layer", "head", "at", "other", "value", "images")
    if "probes.parquet" in contents:
        probes = _parse_parquet(contents["probes.parquet"], columns, folder / "probes.parquet")
    predictions = pd.DataFrame()
    if "predictions.parquet" in contents:
        path = folder / "predictions.parquet"
        counted = ("run_id", "label", "predicted", "bin", "images", "confidence")
        predictions = _parse_parquet(contents[path.name], counted, path)
    trials = pd.DataFrame() if trials is None else trials
    return StudyTables(table, curves, pick(StudyFacts, vars(document)), trials, correctness, probes, predictions)


def read_typed(path: Path, types: Mapping[str, str]) -> pd.DataFrame:
    """A table of these types, as `format_csv` wrote it; an empty one, unread, where no types are given."""
    return _parse_csv(read_content(path, hint=REDRAW), types, path) if types else pd.DataFrame()


def _parse_csv(content: bytes, types: Mapping[str, str], path: Path) -> pd.DataFrame:
    """The table with the types it was written with: floats to the last bit, digests as text; an empty text is missing."""
    try:
        raw = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False).rename(columns=current_name)
    except ValueError as error:
        raise UserError(Problem(f"this is no table ({str(error).splitlines()[0]}); {REDRAW}", place=str(path))) from None
    lacking = [name for name in types if name not in raw]
    if lacking or not isinstance(raw.index, pd.RangeIndex) or raw.isna().any(axis=None) or not content.endswith(b"\n"):
        rule = f"it lacks the columns {', '.join(lacking)}" if lacking else "it was cut off, or its rows have other columns"
        raise UserError(Problem(f"{rule}; {REDRAW}", place=str(path)))
    raw = raw.assign(**{name: [current_level(name, text) for text in raw[name]] for name in FORMER_LEVELS if name in raw})
    types = {name: NUMERIC_TYPES.get(name, kind) if kind in ("string", "Int64") else kind for name, kind in types.items()}
    columns = {}
    for name, kind in types.items():
        values = []
        for row, text in enumerate(raw[name], start=2):
            try:
                values.append(_READERS[kind](_restore_formula(text)) if text else pd.NA)
            except (ValueError, KeyError):
                raise UserError(Problem(f"no {kind}; {REDRAW}", f"{path}:{row}", name, text)) from None
        columns[name] = pd.Series(values, dtype=kind)
    return pd.DataFrame(columns)


def _check_truth(table: pd.DataFrame, path: Path) -> None:
    """Raise UserError for a run table without what every report needs, or with figures that can't be true."""
    lacking = [name for name in ("run_id", "status", "seed", "test_accuracy") if name not in table]
    if lacking:
        raise UserError(Problem(f"study.json names no column {', '.join(lacking)}; {REDRAW}", place=str(path)))
    accuracies = [name for name in ("val_accuracy", "test_accuracy", "test_top5") if name in table]
    wrong = {name: ~table[name].between(0, 1) & table[name].notna() for name in accuracies}
    wrong["status"] = ~table["status"].isin(_STATUSES)
    problems = [
        Problem("can't be true", f"{path}:{row + 2}", name, table[name][row])
        for name, where in wrong.items()
        for row in table.index[where.fillna(False).astype(bool)]
    ]
    if problems:
        raise UserError(*problems)


def _parse_parquet(content: bytes, columns: tuple[str, ...], path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(io.BytesIO(content))
    except Exception as error:  # for damaged bytes Arrow raises many types
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(Problem(f"this is no Parquet table ({reason}); {REDRAW}", place=str(path))) from None
    if lacking := [name for name in columns if name not in table]:
        raise UserError(Problem(f"it lacks the columns {', '.join(lacking)}; {REDRAW}", place=str(path)))
    return table

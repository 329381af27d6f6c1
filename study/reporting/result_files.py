"""The results of a report as data: written beside it each time that it is drawn, and loaded again for further analysis.

    reports/<sweep>/
        contrasts.csv    every planned contrast of every part, as from `estimate_contrasts`
        cells.csv        every cell, as from `summarize_cells`, with the linear baseline of its images
        ablation.csv     every change of an ablation, as from `tabulate_ablation`
        shares.csv       the shares of the variance, as from `decompose_variance`
        tests.csv        the primary contrasts on every further test of `study.probe`, as from `estimate_further_contrasts`
        expectations.csv what was expected beside what was found, as from `check_expectations`
        classes.csv, confusions.csv, calibration.csv   where predictions were kept, as from `study.analysis.class_accuracy`
        errors.csv       whether two mixers or backbones err on the same images, as from `compare_errors`
        answer.json      the answer (`study.reporting.answer_document`), and the types of the tables' columns

A table that the study does not have is not written. Numbers have six digits, so that every machine writes the same bytes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from study.analysis.ablation import tabulate_ablation
from study.analysis.cell_grid import read_numbers
from study.analysis.findings import Findings, StudyPart
from study.analysis.report_files import format_csv, read_report_folder, read_typed
from study.analysis.report_tables import StudyTables
from study.analysis.study_results import Unavailable
from study.atomic_io import whole_file
from study.config.documents import STORED, parse_document, read_content
from study.errors import Problem, UserError
from study.records.sweep_folder import write_whole
from study.reporting.answer_document import ANSWER_VERSION, AnswerDocument, describe_answer, round_number

ANSWER_FILE = "answer.json"


def _tabulate_expectations(part: StudyPart) -> pd.DataFrame | Unavailable:
    return part.checked if part.is_checked else Unavailable("No expectation can be held against results.")


def _tabulate_changes(part: StudyPart) -> pd.DataFrame | Unavailable:
    if not part.is_ablation:
        return Unavailable("No baseline is compared with changes of it.")
    numbers = {"difference": "Float64", "low": "Float64", "high": "Float64", "n": "Int64"}  # missing in the baseline's row
    return tabulate_ablation(part).astype(numbers)


RESULT_TABLES: dict[str, Callable[[StudyPart], pd.DataFrame | Unavailable]] = {
    "contrasts.csv": lambda part: part.contrasts,
    "cells.csv": lambda part: part.cells.assign(baseline=part.baselines),
    "ablation.csv": _tabulate_changes,
    "shares.csv": lambda part: part.decomposition,
    "expectations.csv": _tabulate_expectations,
    "errors.csv": lambda part: part.errors,
    "tests.csv": lambda part: part.on_further_tests,
    "classes.csv": lambda part: part.classes,
    "confusions.csv": lambda part: part.confusions,
    "calibration.csv": lambda part: part.calibration,
}
"""The tables of results: file -> a part's rows. A further one needs only its line here and a property of `Report`: names to
delete, types and reading follow from it."""

RESULT_FILES = (*RESULT_TABLES, ANSWER_FILE)


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """A report as data, read from its folder. The tables are DataFrames with nullable types; fractions, not percent.

    Each table of results begins with the column `part`: the title of the part of the study ("at equal parameters"), "" where
    the study has one part. It is empty where the study has no such result; `answer` then says why.
    """

    folder: Path
    tables: StudyTables
    answer: AnswerDocument

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """Every planned contrast: difference, intervals, p, verdict; population as `answer.parts[...].population`."""
        return self._read("contrasts.csv")

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Mean accuracy of every cell with its interval, spread and counts, for the same population."""
        return self._read("cells.csv")

    @cached_property
    def shares(self) -> pd.DataFrame:
        """The share of the variance of each term: a description of these levels, from which nothing is claimed."""
        return self._read("shares.csv")

    @cached_property
    def errors(self) -> pd.DataFrame:
        """The error consistency of every two mixers or backbones: a description of these runs on these test images."""
        return self._read("errors.csv")

    @cached_property
    def tests(self) -> pd.DataFrame:
        """The primary contrasts on every further test of `study.probe`; each test is a family of its own."""
        return self._read("tests.csv")

    @cached_property
    def classes(self) -> pd.DataFrame:
        """Accuracy of every cell by class, macro accuracy as class -1: new training seeds, on these test images."""
        return self._read("classes.csv")

    @cached_property
    def confusions(self) -> pd.DataFrame:
        """What every cell confuses, as a share of the label's images: a description of these runs."""
        return self._read("confusions.csv")

    @cached_property
    def calibration(self) -> pd.DataFrame:
        """Expected calibration error of every cell: new training seeds, on these test images."""
        return self._read("calibration.csv")

    @cached_property
    def expectations(self) -> pd.DataFrame:
        """What the sweep expected before its runs, what was found, in words, and the result."""
        return self._read("expectations.csv")

    @cached_property
    def ablation(self) -> pd.DataFrame:
        """Every change of an ablation with its difference to the baseline and its costs; population as of the contrasts."""
        return self._read("ablation.csv")

    @property
    def runs(self) -> pd.DataFrame:
        """The run table, as from `load_table`."""
        return self.tables.table

    @property
    def trials(self) -> pd.DataFrame:
        """The trials of a tuned sweep, as from `load_trials`."""
        return self.tables.trials

    @property
    def curves(self) -> pd.DataFrame:
        """Learning curves, one row per run and epoch."""
        return self.tables.curves

    @property
    def probes(self) -> pd.DataFrame:
        """What `study.probe` measured of the runs' layers, as from `load_probes`."""
        return self.tables.probes

    def _read(self, file: str) -> pd.DataFrame:
        table = read_typed(self.folder / file, self.answer.tables.get(file, {}))
        return table.fillna({name: "" for name in ("part", "where", "note") if name in table})


@dataclass(frozen=True)
class _Version:
    __pydantic_config__ = STORED
    version: int


def load_report(folder: str | Path) -> Report:
    """The report in a folder such as `reports/quickstart` as data, without drawing it or importing torch.

    Raises
    ------
    UserError
        If it is not the folder of a report, or was drawn by a version that wrote no answer.json or writes a later one.
    """
    folder = Path(folder)
    tables = read_report_folder(folder)
    path, redraw = folder / ANSWER_FILE, f"redraw the report: python -m study.report {folder}"
    content = read_content(path, hint=redraw)
    version = parse_document(content, _Version, place=str(path), hint=redraw).version
    if version != ANSWER_VERSION:
        rule = f"version {version} of this file is of another version of the project, which reads {ANSWER_VERSION}; {redraw}"
        raise UserError(Problem(rule, place=str(path)))
    answer = parse_document(content, AnswerDocument, place=str(path), hint=redraw)
    return Report(folder, tables, answer)


def build_result_tables(findings: Findings) -> dict[str, pd.DataFrame]:
    """The rows of all parts by file, typed; without the tables that no part has."""
    found = {}
    for file, tabulate in RESULT_TABLES.items():
        rows = [(part, tabulate(part)) for part in findings.parts]
        frames = [_complete_rows(part, frame) for part, frame in rows if isinstance(frame, pd.DataFrame)]
        if frames:
            table = pd.concat(frames, ignore_index=True)
            found[file] = table.astype({name: _find_type(table[name]) for name in table})
    return found


def _complete_rows(part: StudyPart, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the part's title; levels that some cells lack keep their kind (an integer is no float)."""
    levels = {name: frame[name].convert_dtypes() for name in part.levels if name in frame}
    own = frame.assign(**levels)
    own.insert(0, "part", part.title)
    return own


def _find_type(column: pd.Series) -> str:
    """The nullable type of a column of results, by its values' kind; one of mixed or no values is text."""
    kinds = {"f": "Float64", "i": "Int64", "u": "Int64", "b": "boolean"}
    return kinds.get(column.dtype.kind, "string")


def write_results(findings: Findings, tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write the tables of results, as from `build_result_tables`, and the answer into the report's folder."""
    types = {file: {str(name): str(kind) for name, kind in table.dtypes.items()} for file, table in tables.items()}
    for file, table in tables.items():
        rounded = table.copy()
        for name in table.select_dtypes("Float64"):
            rounded[name] = [round_number(value) for value in read_numbers(table, str(name))]
        with whole_file(folder / file) as draft:
            draft.write_bytes(format_csv(rounded))
    answer = describe_answer(findings, tables=types)
    write_whole(folder / ANSWER_FILE, answer.model_dump_json(indent=1) + "\n")

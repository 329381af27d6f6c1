"""Every committed report is what this version draws from the report's own tables, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from study.report import main

REPORTS = Path(__file__).parents[2] / "reports"
TABLES = {"study.json", "runs.csv", "trials.csv", "curves.parquet", "correctness.parquet", "sweep.yaml"}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.parent.name, marks=[] if path.parent.name == "quickstart" else pytest.mark.slow)
        for path in sorted(REPORTS.glob("*/study.json"))
    ],
)
def test_a_committed_report_is_drawn_from_its_tables(name: str, tmp_path: Path) -> None:
    """Report, page, figures and LaTeX tables, in a folder with nothing but the tables of the committed one."""
    shutil.copytree(REPORTS / name, tmp_path, dirs_exist_ok=True, ignore=lambda _, names: {*names} - TABLES)
    assert main([str(tmp_path)]) == 0
    committed, drawn = files(REPORTS / name), files(tmp_path)
    assert not [file for file in sorted({*committed, *drawn}) if committed.get(file) != drawn.get(file)]

"""The scripts in examples/ run as they are, and what they print is right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from study import Sweep, load_report, load_table

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def run_example(name: str, *arguments: str, cwd: Path) -> str:
    """The standard output of an example that succeeds, run in another folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True).stdout


def test_every_example_is_tested():
    """A new example needs a test here."""
    tested = set(re.findall(r'run_example\(\s*"(\w+\.py)"', Path(__file__).read_text(encoding="utf-8")))
    assert tested == {path.name for path in EXAMPLES.glob("*.py")}


@pytest.mark.xdist_group("launch")
def test_run_study_prints_every_run(tmp_path):
    """Two backbones, two patch sizes and two seeds: eight runs that are done, each of about 5,000 parameters."""
    output = run_example("run_study.py", cwd=tmp_path)
    assert (tmp_path / "example-study" / "runs" / "example").is_dir()
    rows = re.findall(r"^ *(convmixer|vit) +([24]) +([01]) +done +(\d+) +\d+ +([\d.]+)$", output, flags=re.MULTILINE)
    assert len({row[:3] for row in rows}) == 8
    assert all(4_750 <= int(params) <= 5_250 for *_, params, _ in rows)
    assert all(0 <= float(accuracy) <= 1 for *_, accuracy in rows)
    runs = tmp_path / "example-study" / "runs"
    report = load_report(tmp_path / "example-study" / "runs" / "example" / "report")
    assert report.answer.summary() in output and report.answer.parts[0].state == "undertrained"
    again = Sweep.from_file(runs / "example" / "sweep.yaml", runs=runs)  # as the commands read it
    assert list(report.runs["run_id"]) == list(load_table(again.folder)["run_id"])


def test_a_notebooks_cells_are_marked():
    """jupytext finds the example's cells: text and code in turn, and no code before the first one."""
    marks = re.findall(r"^# %%(.*)$", (EXAMPLES / "run_study.py").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert marks == [" [markdown]", ""] * 5


def test_analyze_table_agrees_with_scipy(tmp_path):
    """The printed cell means are pandas', the paired intervals those of scipy's paired t-test."""
    output = run_example("analyze_table.py", cwd=tmp_path)
    runs = pd.read_csv(ROOT / "reports" / "digits_patch_size" / "runs.csv")
    for (backbone, size), accuracies in runs.groupby(["backbone", "patch_size"])["test_accuracy"]:
        row = rf"{backbone} +{size} +{100 * accuracies.mean():.2f} +{100 * accuracies.std():.2f} +{len(accuracies)}"
        assert re.search(row, output), row
    for backbone, group in runs.groupby("backbone"):
        one, two = (group[group["patch_size"] == size].sort_values("seed")["test_accuracy"] for size in (1, 2))
        low, high = 100 * pd.Series(stats.ttest_rel(one, two).confidence_interval(0.95))
        line = (
            f"{backbone}: patch size 1 minus 2 = {(low + high) / 2:+.2f} ± {(high - low) / 2:.2f} points (n = {len(one)} seeds)"
        )
        assert line in output


def test_count_cost_prints_the_cost_of_each_patch_size(tmp_path):
    """MACs at p=1 are at least 16 times those at p=4, which has a sixteenth of the tokens; parameters hardly differ."""
    output = run_example("count_cost.py", cwd=tmp_path)
    rows = re.findall(r"^ +(\d) +([\d,]+) +([\d,]+)  stem", output, flags=re.MULTILINE)
    params, macs = ({int(row[0]): int(row[column].replace(",", "")) for row in rows} for column in (1, 2))
    assert list(macs) == [1, 2, 4]
    assert macs[1] > 16 * macs[4]
    assert max(params.values()) < 1.01 * min(params.values())

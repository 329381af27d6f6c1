"""The results of a report as data: what is written is what was computed, and what is loaded is what was written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import example_sweeps
import numpy as np
import pandas as pd
import pytest
from example_sweeps import Example

from study import load_report
from study.analysis.findings import Findings
from study.analysis.report_files import read_report_folder
from study.analysis.report_tables import combine_studies
from study.errors import UserError
from study.reporting.result_files import RESULT_TABLES, build_result_tables, write_results


def write(example: Example, folder: Path) -> Findings:
    """The results of an example, without its figures."""
    findings = Findings(read_report_folder(example_sweeps.as_folder(example, folder)))
    write_results(findings, build_result_tables(findings), folder)
    return findings


def test_cells_are_the_means_of_the_runs(tmp_path: Path) -> None:
    """pandas' groupby over runs.csv gives the means, counts and standard deviations of cells.csv, read plainly."""
    write(example_sweeps.patch_size(seeds=3), tmp_path)
    runs, cells = (pd.read_csv(tmp_path / name) for name in ("runs.csv", "cells.csv"))
    expected = runs.groupby(["patch_size", "backbone"])["test_accuracy"].agg(["mean", "std", "count"]).reset_index()
    pd.testing.assert_frame_equal(cells[["patch_size", "backbone"]], expected[["patch_size", "backbone"]])
    np.testing.assert_allclose(cells["mean"], expected["mean"], rtol=1e-5)
    np.testing.assert_allclose(cells["sd"], expected["std"], rtol=1e-5)
    assert list(cells["n"]) == list(expected["count"])


def test_a_loaded_report_is_what_was_computed(tmp_path: Path) -> None:
    """All tables survive writing and loading to six digits, with their types; levels that a cell lacks are missing."""
    sweep = example_sweeps.token_mixer(seeds=3)
    table = sweep.table.assign(kernel_size=sweep.table["kernel_size"].where(sweep.table["token_mixer"] != "identity"))
    findings = write(
        replace(sweep, table=table.drop_duplicates(["patch_size", "token_mixer", "kernel_size", "seed"])), tmp_path
    )
    report, (part,) = load_report(tmp_path), findings.parts
    tables = {"contrasts": part.contrasts, "cells": part.cells, "shares": part.decomposition}
    for name, frame in tables.items():
        loaded = getattr(report, name)
        assert isinstance(frame, pd.DataFrame) and len(loaded) == len(frame) > 0
        assert set(loaded["part"]) == {""}
        for column in frame:
            if frame[column].dtype.kind == "f" and column not in part.levels:
                own = loaded[column].to_numpy(float, na_value=np.nan)
                np.testing.assert_allclose(own, frame[column], rtol=1e-5, atol=1e-9, err_msg=column)
            else:
                own, computed = (["" if pd.isna(value) else value for value in kind[column]] for kind in (loaded, frame))
                assert own == computed, column
    assert str(report.cells["kernel_size"].dtype) == "Int64" and report.cells["kernel_size"].isna().any()
    pd.testing.assert_frame_equal(report.runs, findings.table)


def test_the_answer_is_that_of_the_report(tmp_path: Path) -> None:
    """Sentences, primary contrasts, budget and counts are the findings' own; the summary has each contrast and verdict."""
    findings = write(example_sweeps.unfinished(example_sweeps.patch_size(), missing=4), tmp_path)
    answer, (part,) = load_report(tmp_path).answer, findings.parts
    assert answer.runs == {"planned": 60, "done": 56, "diverged": 0, "failed": 0, "missing": 4}
    (own,) = answer.parts
    assert own.state == "provisional" and own.sentences == tuple(part.sentences)
    assert answer.progress.startswith("Provisional: shows 56 of 60 runs")
    assert (own.seeds, own.test_images, own.budget.match_by) == (5, 360, ("params",))
    assert own.population == "new training seeds on these test images"
    assert isinstance(part.contrasts, pd.DataFrame)
    primary = part.contrasts[part.contrasts["primary"]]
    assert [each.contrast for each in own.contrasts] == list(primary["contrast"])
    text = answer.summary()
    for each, row in zip(own.contrasts, primary.to_dict("records"), strict=True):
        assert each.difference.value == pytest.approx(row["difference"], abs=1e-6)
        assert each.verdict == row["verdict"] and each.contrast in text
    assert part.sentences[0] in text


def test_an_ablation_is_a_table_of_its_changes(tmp_path: Path) -> None:
    """The baseline first, which is compared with nothing; each change with the difference of its primary contrast."""
    write(example_sweeps.ablation(), tmp_path)
    report = load_report(tmp_path)
    baseline, changes = report.ablation.iloc[0], report.ablation.iloc[1:].set_index("change")
    assert pd.isna(baseline["difference"]) and pd.isna(baseline["n"]) and report.shares.empty
    primary = report.contrasts[report.contrasts["primary"]].set_index("upper")
    assert set(changes.index) == set(primary.index)
    for column in ("difference", "low", "high", "n", "verdict"):
        assert list(changes[column]) == list(primary.loc[changes.index, column])
    np.testing.assert_allclose(changes["accuracy"] - baseline["accuracy"], changes["difference"].astype(float), atol=2e-6)


def test_parts_are_told_apart(tmp_path: Path) -> None:
    """In a comparison every row names its part, and every part has its own answer."""
    one = example_sweeps.patch_size(seeds=3, epochs=2)
    other = replace(one, table=one.table.assign(match_by="macs"), facts=replace(one.facts, name="other"))
    findings = Findings(combine_studies([one.tables, other.tables]))
    tables = build_result_tables(findings)
    titles = ["at equal parameters", "at equal MACs"]
    assert all(list(table["part"].unique()) == titles for table in tables.values())
    assert [len(tables["cells.csv"][tables["cells.csv"]["part"] == title]) for title in titles] == [12, 12]


def test_a_comparison_uses_the_contrasts_that_all_sweeps_state() -> None:
    """References stated by both hold; those of one sweep alone don't, and the answer names it."""
    one = example_sweeps.patch_size(seeds=3, epochs=2)
    stated = replace(one, facts=replace(one.facts, contrasts={"reference": {"backbone": "vit"}}))
    table = one.table.assign(match_by="macs")
    both = Findings(
        combine_studies([stated.tables, replace(stated, table=table, facts=replace(stated.facts, name="other")).tables])
    )
    alone = Findings(combine_studies([stated.tables, replace(one, table=table, facts=replace(one.facts, name="other")).tables]))
    for findings, sides in ((both, ["ConvMixer", "ViT"]), (alone, ["ViT", "ConvMixer"])):
        for _, rows in build_result_tables(findings)["contrasts.csv"].groupby("part"):
            names = {text.partition(",")[0] for text in rows["contrast"]}
            assert " − ".join(sides) in names and " − ".join(sides[::-1]) not in names
    assert not any("not used" in sentence for sentence in both.across)
    assert alone.across[-1].startswith(f"The contrasts of {one.facts.name} are not used")


def test_checked_expectations_are_a_table(tmp_path: Path) -> None:
    """As the report says them; a report without any has no such file."""
    sweep = example_sweeps.patch_size(seeds=3, epochs=2)
    assert "expectations.csv" not in build_result_tables(Findings(sweep.tables))
    expected = ({"contrast": "ViT - ConvMixer", "sign": "positive"},)
    findings = write(replace(sweep, facts=replace(sweep.facts, expectations=expected)), tmp_path)
    loaded = load_report(tmp_path).expectations
    assert list(loaded["result"]) == list(findings.parts[0].checked["result"]) and len(loaded) == 1
    assert "ViT − ConvMixer" in loaded["expected"][0]


def test_what_a_study_lacks_is_empty_and_stale_files_go(tmp_path: Path) -> None:
    """Without a second factor there are no shares: the file of an earlier drawing is deleted, the loaded table is empty."""
    from study.report import main

    example_sweeps.as_folder(example_sweeps.one_factor(), tmp_path)
    (tmp_path / "shares.csv").write_text("stale")
    (tmp_path / "files.txt").write_text("shares.csv\nruns.csv\n")
    assert main([str(tmp_path), "--formats", "svg"]) == 0
    assert not (tmp_path / "shares.csv").exists() and (tmp_path / "runs.csv").exists()
    assert load_report(tmp_path).shares.empty
    listed = (tmp_path / "files.txt").read_text(encoding="utf-8").splitlines()
    assert {"answer.json", "cells.csv", "contrasts.csv"} <= set(listed)


def test_nothing_that_is_not_a_number_is_in_the_answer(tmp_path: Path) -> None:
    """An unfinished study's answer is strict JSON: what could not be estimated is null."""
    write(example_sweeps.unfinished(example_sweeps.one_factor(), missing=12), tmp_path)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    document = json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert document["parts"][0]["state"] == "no runs"
    assert document["parts"][0]["contrasts"][0]["difference"]["value"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"version": 99}', "version 99"),
        ("{", "damaged"),
        ("[" * 5000, "damaged"),
        ("[]", "not what"),
        ('{"version": 1, "parts": 3}', "not what"),
        (None, "missing"),
    ],
)
def test_other_versions_are_refused(tmp_path: Path, text: str | None, said: str) -> None:
    """A damaged, later or missing answer is an error that gives the command to redraw the report."""
    example_sweeps.as_folder(example_sweeps.one_factor(), tmp_path)
    if text is not None:
        (tmp_path / "answer.json").write_text(text)
    with pytest.raises(UserError, match=f"{said}.*python -m study.report"):
        load_report(tmp_path)


def test_loading_needs_neither_torch_nor_figures() -> None:
    program = "import sys; from study import load_report; print({'torch', 'matplotlib'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_documentation_names_every_file() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")
    assert {*RESULT_TABLES, "answer.json"} <= set(re.findall(r"`([\w.]+)`", page))

"""--json: one documented document on standard output, whatever else a command has to say goes to standard error."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from study import archive, benchmark, cancel, launch, load_report, load_table, merge, plan, report, status
from study.cli.console import JSON_VERSION

COMMANDS = {module.__name__.rpartition(".")[2]: module.main for module in (plan, launch, status, cancel, benchmark, report)}
PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
SWEEP = """\
question: what is printed?
data: {name: digits, train_images: 100}
model: {depth: 1, dim: 8}
train: {epochs: 1, batch_size: 50, lr: 1e-3}
axes: {model.patch_size: [4, 8]}
backbone: mlp_mixer
seeds: [0]
"""
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command with --json on the small sweep: its document, with exactly the documented keys."""
    monkeypatch.chdir(tmp_path)
    Path("little.yaml").write_text(SWEEP)

    def run(command: str, *words: str, expected: int = 0) -> dict[str, Any]:
        main, sweep = {"merge": (merge.main, []), "archive": (archive.main, [])}.get(
            command, (COMMANDS.get(command), ["little.yaml"])
        )
        assert main([*sweep, *words, "--json"]) == expected
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert (document.pop("command"), document.pop("version")) == (command, JSON_VERSION)
        (row,) = re.findall(rf"^\| `{command}` \| (.*) \|$", PAGE, flags=re.MULTILINE)
        assert set(document) == set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", row)))
        return document

    return run


@pytest.mark.xdist_group("launch")
def test_a_study_by_json_alone(run: Run) -> None:
    """Plan, launch, status, benchmark and report of two runs agree with each other and with the tables."""
    planned = run("plan")
    ids = [each["run_id"] for each in planned["runs"]]
    assert [(each["levels"], each["status"]) for each in planned["runs"]] == [
        ({"model.patch_size": 4}, "missing"),
        ({"model.patch_size": 8}, "missing"),
    ]
    assert planned["training_flops"] == sum(each["training_flops"] for each in planned["runs"])
    assert [each["primary"] for each in planned["contrasts"]] == [True]
    assert run("launch", "--cluster", "local", "--dry-run") == {
        "sweep": "little",
        "exit_status": 0,
        "launches": [],
        "status": None,
    }
    done = run("launch", "--cluster", "local", "--limit", "1", "--report")
    assert [each["cluster"] for each in done["launches"]] == ["local"] and done["launches"][0]["jobs"] == []
    assert done["status"]["done"] == ids[:1] and done["status"] == run("status")
    assert [each["status"] for each in run("plan")["runs"]] == ["done", "missing"]
    table = load_table("runs/little")
    assert list(table["params"]) == [each["params"] for each in planned["runs"]]
    drawn = run("report", "--formats", "svg")
    assert drawn["answer"] == load_report(drawn["folder"]).answer.model_dump(mode="json")
    assert drawn["answer"]["runs"]["done"] == 1
    packed = run("archive", drawn["folder"], "--out", "little.zip")
    assert zipfile.ZipFile("little.zip").namelist() == [f"little/{name}" for name in packed["files"]]
    assert packed["bytes"] == Path(packed["file"]).stat().st_size
    shutil.copytree("runs/little", "runs/copy")
    assert run("merge", "runs/little", "runs/copy", "--into", "runs/both") == {
        "folder": "runs/both",
        "outcomes": {"runs/little": 1, "runs/copy": 1},
        "total": 1,
        "shared": 1,
        "seeds": [0],
    }
    assert run("cancel", "--yes")["cancelled"] == []
    measured = run("benchmark", "--rounds", "1", "--threads", "1")
    assert json.loads(Path(measured["file"]).read_text()) == measured["benchmark"]


def test_a_mistake_leaves_standard_output_empty(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, main in COMMANDS.items():
        assert main([str(tmp_path / "no.yaml"), "--json"]) == 2, name
        captured = capsys.readouterr()
        assert captured.out == "" and "no.yaml" in captured.err

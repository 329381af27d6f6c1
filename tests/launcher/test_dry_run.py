"""A dry run prints and does nothing else; mistakes in a command are reported before anything is shown or fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

import study.launch
from study.launch import main

SWEEP = """\
question: which?
device: cpu
data: {name: cifar10}
model: {depth: 1, kernel_size: 3}
train: {epochs: 1}
match: {by: params, target: 20k}
axes:
  backbone: [vit, convmixer]
  model.patch_size: [4, 8]
seeds: [0]
"""
FOLDER = SWEEP.replace("name: cifar10", "name: folder, root: images, image_size: 32")


@pytest.fixture(autouse=True)
def prepared(tmp_path, monkeypatch) -> list[str]:
    """A working folder of its own; the names of sweeps whose data would be fetched."""
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(SWEEP, encoding="utf-8")
    names: list[str] = []
    monkeypatch.setattr(study.launch, "prepare_data", lambda sweep, console: names.append(sweep.name))
    return names


def test_a_dry_run_leaves_nothing_behind(prepared, capsys):
    """The plan is shown; no data is prepared and no file is written, not even a cache."""
    assert main(["sweep.yaml", "--cluster", "local", "--dry-run"]) == 0
    assert "sweep: 4 to train, 0 recorded" in capsys.readouterr().out
    assert prepared == []
    assert [path.name for path in Path.cwd().iterdir()] == ["sweep.yaml"]


def test_a_dry_run_with_unprepared_images_says_so(prepared, capsys):
    """Their classes aren't known, so there is no plan yet: the missing command is named."""
    Path("sweep.yaml").write_text(FOLDER, encoding="utf-8")
    for name in ("train/a", "train/b", "test/a", "test/b"):
        folder = Path("images") / name
        folder.mkdir(parents=True)
        (folder / "1.png").touch()
    assert main(["sweep.yaml", "--cluster", "local", "--dry-run"]) == 2
    assert "python -m study.prepare sweep.yaml`" in capsys.readouterr().err
    assert prepared == []


@pytest.mark.parametrize(
    "words",
    [
        ["--where", "backbne=vit"],
        ["--where", "backbone=vitt"],
        ["--where", "patch_size=3"],
        ["--where", "backbone"],
        ["--where", "seed=0", "--where", "seed=1"],
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_a_wrong_filter_is_reported_before_anything_is_done(prepared, capsys, words, dry):
    """Nothing is shown and nothing fetched."""
    assert main(["sweep.yaml", "--cluster", "local", *words, *(["--dry-run"] if dry else [])]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "--where" in captured.err
    assert prepared == []
    assert [path.name for path in Path.cwd().iterdir()] == ["sweep.yaml"]


@pytest.mark.parametrize("place", ["runs", "runs/sweep", "runs/sweep/launches", "runs/sweep/code"])
def test_a_folder_that_anyone_may_write_to_starts_no_job(prepared, capsys, place):
    """Jobs execute files in it; the command that corrects it is shown."""
    Path(place).mkdir(parents=True)
    Path(place).chmod(0o777)
    assert main(["sweep.yaml", "--cluster", "local", "--dry-run"]) == 2
    assert f"chmod o-w {place}" in capsys.readouterr().err
    Path(place).chmod(0o775)
    assert main(["sweep.yaml", "--cluster", "local", "--dry-run"]) == 0
    (Path(place) / "new").mkdir()
    assert not (Path(place) / "new").stat().st_mode & 0o002


@pytest.mark.parametrize("runs", ["a:b", "50%augment", "a\nb"])
def test_a_place_that_workers_could_not_import_from_is_refused(prepared, capsys, runs):
    """Before anything is done: Python's path would be split there, or Slurm would write the logs elsewhere."""
    assert main(["sweep.yaml", "--cluster", "local", "--runs", runs]) == 2
    captured = capsys.readouterr()
    assert "--runs" in captured.err and "':'" in captured.err and runs.encode("unicode_escape").decode() in captured.err
    assert prepared == [] and [path.name for path in Path.cwd().iterdir()] == ["sweep.yaml"]

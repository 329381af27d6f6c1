"""The public Python interface: the names that `study` exports, their keywords, types and columns."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from preloaded_python import preloaded_python

import study
import study.backbones
import study.planning.traced_cost
import study.records
from study import build, count_cost, load_table, names
from study.errors import UserError

COLUMNS = [
    "run_id",
    "status",
    "backbone",
    "patch_size",
    "seed",
    "params",
    "macs",
    "val_accuracy",
    "test_accuracy",
    "train_seconds",
    "images_per_second",
    "device",
    "commit",
]
SIZES = {"image_size": 32, "in_channels": 3, "num_classes": 10, "patch_size": 2}
SWEEP = """\
question: what is in the table?
data: {name: digits, train_images: 200}
model: {depth: 1, patch_size: 4}
train: {epochs: 1, batch_size: 50, lr: 1e-3}
match: {by: params, target: 5k, head_dim: 8}
axes: {backbone: [vit, mlp_mixer]}
seeds: [0]
"""


def run_python(program: str) -> str:
    """The standard output of a fresh interpreter that runs a program."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_exported_names_are_the_functions_of_their_modules():
    """`from study import name` and the import from the module that defines it give the same object."""
    loaders = {name for name in study.records.__all__ if name.startswith("load_")} - {"load_curves", "load_study"}
    assert set(study.__all__) == {"Sweep", "build", "count_cost", "load_report", "names", *loaders}
    assert set(study.__all__) <= set(dir(study))
    assert study.build is study.backbones.build
    assert study.names is study.backbones.names
    assert study.count_cost is study.planning.traced_cost.count_cost
    for name in loaders:
        assert getattr(study, name) is getattr(study.records, name)


def test_importing_the_package_loads_neither_torch_nor_pandas():
    """The public names are imported on first use, so that workers and `study --help` start quickly."""
    program = "import sys, study, study.__main__; print([name for name in ('torch', 'pandas', 'numpy') if name in sys.modules])"
    assert run_python(program) == "[]"


def test_loading_tables_does_not_import_torch():
    """A laptop without torch can load the tables of a sweep."""
    assert run_python("import sys; from study import load_table; print('torch' in sys.modules)") == "False"


def test_unknown_names_are_attribute_errors():
    """A misspelled import fails as it does for any other module."""
    with pytest.raises(ImportError, match="load_tabel"):
        exec("from study import load_tabel")


def test_docstring_examples_are_correct():
    """The examples in the package's docstring print what they show."""
    result = doctest.testmod(study)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("convmixer", {"dim": 256, "depth": 8, "kernel_size": 5}),
        ("vit", {"dim": 96, "depth": 3, "heads": 3}),
        ("mlp_mixer", {"dim": 96, "depth": 3}),
    ],
)
def test_backbones_are_built_and_counted(name, settings):
    """build gives a module of images to logits; count_cost gives whole numbers, params those of the module."""
    assert name in names()
    model = build(name, **SIZES, **settings)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    cost = count_cost(model, image_size=32, in_channels=3)
    assert type(cost.params) is int
    assert type(cost.macs) is int
    assert cost.params == sum(parameter.numel() for parameter in model.parameters())


def test_the_published_cifar_model_has_its_published_cost():
    """ConvMixer-256/8 k5 p2: 594,186 parameters; 148,113,920 MACs by hand."""
    model = build("convmixer", **SIZES, dim=256, depth=8, kernel_size=5)
    cost = count_cost(model, image_size=32, in_channels=3)
    assert (cost.params, cost.macs) == (594_186, 148_113_920)


@pytest.mark.parametrize("keyword", ["kernel", "width", "patch", "drop_rate"])
def test_no_unknown_keyword_is_accepted(keyword):
    """A keyword that a backbone doesn't have is an error that names it, never passed over."""
    with pytest.raises(UserError, match=keyword):
        build("vit", **SIZES, dim=96, depth=3, heads=3, **{keyword: 1})


@pytest.mark.xdist_group("launch")
def test_the_table_of_a_sweep(tmp_path, monkeypatch):
    """One row per planned run with the promised columns; a limit leaves named holes, whose plan is known all the same."""
    (tmp_path / "little.yaml").write_text(SWEEP)
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PATH": "/usr/bin:/bin"}
    command = [preloaded_python(), "-m", "study.launch", "little.yaml", "--cluster", "local", "--limit", "1"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env=environment)
    monkeypatch.chdir(tmp_path)
    table = load_table("runs/little")
    assert set(COLUMNS) <= set(table.columns)
    page = (Path(__file__).resolve().parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    results = page.split("\n## Results\n")[1].split("\n## ")[0]
    first_cells = "".join(re.findall(r"^\| (`.*?) \|", results, flags=re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", first_cells)) <= set(table.columns)
    assert sorted(table["status"]) == ["done", "missing"]
    done, missing = table[table["status"] == "done"].iloc[0], table[table["status"] == "missing"].iloc[0]
    assert 0 <= done["test_accuracy"] <= 1
    assert done["device"] == "cpu"
    assert done["train_seconds"] > 0
    assert pd.isna(missing["test_accuracy"])
    assert missing["params"] > 0

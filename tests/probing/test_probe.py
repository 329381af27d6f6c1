"""The command on a sweep that has kept its weights: what it writes, what it does not repeat, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from study import load_probes, probe
from study.backbones import build_backbone
from study.config.sweep_file import read_sweep
from study.data import describe_dataset
from study.launch import record_plan
from study.planning.sweep_plan import make_plan
from study.records.sweep_folder import SweepFolder
from study.training.saved_weights import save_weights

SWEEP = """\
question: what do they do?
data: {name: digits, train_images: 200}
model: {depth: 2, dim: 8, kernel_size: 3, heads: 2, patch_size: 2}
train: {epochs: 1, batch_size: 50, keep: last}
backbone: metaformer
axes: {model.token_mixer: [attention, depthwise_conv]}
seeds: 2
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a launched sweep with the weights of four runs, those of their initialization."""
    place = tmp_path_factory.mktemp("probed")
    (place / "little.yaml").write_text(SWEEP)
    plan, folder = make_plan(read_sweep(place / "little.yaml")), SweepFolder(place / "little")
    record_plan(plan, folder, earlier=[])
    for run in (planned.run for planned in plan.runs):
        path, weights = folder.weights / f"{run.run_id}.safetensors", build_backbone(run.model, seed=run.seed).state_dict()
        save_weights(path, run, weights=weights, facts=describe_dataset(run.data), writer="1-0-0")
    return folder.path


def test_a_sweep_is_probed_once(trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All measures of all runs, and pictures of those of the first seed; a second call measures nothing again."""
    assert probe.main([str(trained), "--images", "16", "--maps", "1", "--device", "cpu", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["runs"]) == 4 and document["images"] == 16 and document["without_weights"] == []
    found = load_probes(trained)
    assert set(found["run_id"]) == set(document["runs"]) and set(found["images"]) == {16}
    counts = found.groupby("measure")["value"].size().to_dict()
    assert counts == {
        "field_radius": 4 * 3 * 2,  # runs, layers, shares
        "attention_distance": 2 * 2 * 2,  # runs, layers, heads
        "attention_entropy": 2 * 2 * 2,
        "kernel_distance": 2 * 2,
        "kernel_energy": 2 * 2 * 2,
        "cka": 4 * 3 + 4 * 3,  # pairs of layers of each run; layers of each pair of runs with different seeds
    }
    pictures = {path.stem.rpartition("-s0-")[2].partition("-")[2] for path in (trained / "probes/pictures").glob("*.png")}
    assert pictures == {"fields", "stem", "positions", "kernels-1", "kernels-2", "attention"}
    monkeypatch.setattr(probe, "list_measures", lambda *_: pytest.fail("measured again"))
    assert probe.main([str(trained), "--images", "16", "--device", "cpu", "--where", "token_mixer=attention"]) == 0
    assert set(load_probes(trained)["run_id"]) == set(document["runs"])
    with pytest.raises(pytest.fail.Exception):
        probe.main([str(trained), "--images", "17", "--device", "cpu"])


def test_runs_without_weights_are_named(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of them is no reason to leave out the others; all of them is, and a damaged probe says what to do."""
    copy = tmp_path / "little"
    shutil.copytree(trained, copy)
    first, *_, last = sorted((copy / "weights").iterdir())
    first.unlink()
    words = [str(copy), "--images", "4", "--device", "cpu"]
    assert probe.main(words) == 0 and f"1 run without kept weights, e.g. {first.stem}" in capsys.readouterr().out
    (copy / "probes" / f"{last.stem}.json").write_text("{}")
    assert probe.main(words) == 2 and "remove it, and probe again" in capsys.readouterr().err
    shutil.rmtree(copy / "weights")
    assert probe.main(words) == 2 and "train.keep: last" in capsys.readouterr().err

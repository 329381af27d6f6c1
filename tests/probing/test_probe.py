"""The command on a sweep that has kept its weights: what it writes, what it does not repeat, what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from training.toy_runs import FACTS, TEST, splits, toy_run

from study import load_probes, probe
from study.backbones import build_backbone
from study.config.options import DataOptions
from study.config.sweep_file import read_sweep
from study.data import describe_dataset
from study.errors import UserError
from study.launch import record_plan
from study.planning.sweep_plan import make_plan
from study.probing.distortions import list_distortions
from study.probing.kept_network import KeptNetwork
from study.probing.robustness import evaluate_further
from study.records.correctness import decode_correctness, unpack_correctness
from study.records.probe_file import load_further_tests
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
    return keep_weights(place)


def keep_weights(place: Path) -> Path:
    """Record the plan of `little.yaml` in the folder and the weights that its networks begin with."""
    sweep, folder = read_sweep(place / "little.yaml"), SweepFolder(place / "little")
    with sweep.plugins.in_use():
        plan = make_plan(sweep)
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
    words = [str(copy), "--images", "16", "--device", "cpu"]
    assert probe.main(words) == 0 and f"1 run without kept weights, e.g. {first.stem}" in capsys.readouterr().out
    (copy / "probes" / f"{last.stem}.json").write_text("{}")
    assert probe.main(words) == 2 and "remove it, and probe again" in capsys.readouterr().err
    shutil.rmtree(copy / "weights")
    assert probe.main(words) == 2 and "train.keep: last" in capsys.readouterr().err


def test_further_tests_are_evaluated_once(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One accuracy per test beside the clean one, of all test images; a second call evaluates nothing again."""
    words = [str(trained), "--images", "16", "--device", "cpu", "--tests", "--where", "token_mixer=attention"]
    assert probe.main(words) == 0
    found = load_further_tests(trained)
    info = describe_dataset(DataOptions(name="digits", train_images=200))
    labels = {"clean", *(one.label for one in list_distortions(8, info.mean))}
    assert set(found["split"]) == labels and (found["images"] == info.test_images).all() and len(found) == 2 * len(labels)
    monkeypatch.setattr("study.probing.robustness.evaluate", lambda *_: pytest.fail("evaluated again"))
    assert probe.main(words) == 0


def test_another_folder_is_tested_as_the_test_set(tmp_path: Path) -> None:
    """A folder of the test images themselves: the images that are classified correctly are the same ones."""
    parts = splits()
    for number, (image, label) in enumerate(zip(parts.test.images, parts.test.labels.tolist(), strict=True)):
        place = tmp_path / "again" / FACTS.class_names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{number:03}.png")
    run = toy_run("mlp_mixer")
    extended = replace(run, data=run.data.model_copy(update={"also_test": {"again": str(tmp_path / "again")}}))
    assert extended.run_id == run.run_id
    model = build_backbone(run.model).eval()
    with torch.no_grad():
        model.head.classifier.weight.normal_(generator=torch.Generator().manual_seed(1))
    network = KeptNetwork(run, model, torch.device("cpu"), digest="")
    generated = [one.label for one in list_distortions(8, FACTS.mean)]
    found = dict(evaluate_further(network, parts, extended, without=generated, workers=1))
    clean, again = (
        unpack_correctness(decode_correctness(own.packed, TEST), TEST) for own in map(found.get, ("clean", "again"))
    )
    order = torch.argsort(parts.test.labels, stable=True).numpy()
    assert again.tolist() == clean[order].tolist() and 0 < clean.sum() < TEST
    taken = replace(run, data=run.data.model_copy(update={"also_test": {"shift_1": "x", "elsewhere": str(tmp_path / "no")}}))
    with pytest.raises(UserError, match=r"data.also_test.shift_1.*name of a generated test"):
        dict(evaluate_further(network, parts, taken, without=(), workers=1))
    missing = replace(run, data=run.data.model_copy(update={"also_test": {"elsewhere": str(tmp_path / "no")}}))
    with pytest.raises(UserError, match=r"data\.also_test\.elsewhere"):
        dict(evaluate_further(network, parts, missing, without=["clean", *generated], workers=1))


PLUGIN = """\
import torch
from torch import nn
from study.backbones.closed_form import PartCost
from study.backbones.token_mixers import TOKEN_MIXERS, TokenMixer

class Double(nn.Module):
    def __init__(self, spec):
        super().__init__()
    def forward(self, tokens):
        return 2 * tokens
    def attention_weights(self, tokens):
        return torch.eye(tokens.shape[1]).expand(len(tokens), 2, -1, -1)

def cost(spec):
    return PartCost()

TOKEN_MIXERS.register("double", TokenMixer(Double, cost))
"""


def test_a_plug_in_is_probed_as_launched(tmp_path: Path) -> None:
    """By its sweep, and by its folder from the copy of the launch; a mixer that says what it attends to has its distance."""
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "little.yaml").write_text(f"plugins: [mine.py]\n{SWEEP.replace('[attention, depthwise_conv]', '[double]')}")
    folder = keep_weights(tmp_path)
    assert probe.main([str(tmp_path / "little.yaml"), "--runs", str(tmp_path), "--images", "4", "--device", "cpu"]) == 0
    (tmp_path / "mine.py").unlink()
    assert probe.main([str(folder), "--images", "5", "--device", "cpu"]) == 0
    found = load_probes(folder)
    assert set(found["images"]) == {5} and set(found.loc[found["measure"] == "attention_distance", "value"]) == {0.0}
    assert found.loc[found["measure"] == "field_radius", "value"].max() < 1  # one patch of two pixels

"""Laws of weights that a run starts from: they are the file's, the run is exact, and a frozen body stays as it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from several_ranks import run_on_ranks
from test_distributed_training import trained
from toy_runs import CPU, FACTS, EveryNthStep, Fate, assert_same_bits, attempt, finished, toy_run

from study.backbones import build_backbone, specify
from study.backbones.weight_files import CLASSIFIER, read_weights_file
from study.config.run import Run
from study.errors import UserError
from study.training.model_setup import prepare_model
from study.training.saved_weights import save_weights
from study.training.starting_weights import StartingWeights, describe_fit
from study.training.state import initial_state
from study.training.step import sees_whole_batch


def starting_run(folder: Path, backbone: str = "vit", *, patch_size: int = 2, **options: Any) -> Run:
    """A run that starts from the weights of a network of another seed, with other statistics in its norms."""
    folder.mkdir(exist_ok=True)
    path = folder / "start.safetensors"
    if not path.exists():
        weights = build_backbone(toy_run(backbone).model, seed=9).state_dict()
        save_file({name: w + 0.1 if "running" in name else w for name, w in weights.items()}, path)
    start = {"start": str(path), "start_sha256": read_weights_file(path).sha256}
    return toy_run(backbone, patch_size=patch_size, **start, **options)


@pytest.mark.parametrize("backbone", ["convmixer", "vit", "mlp_mixer"])
def test_a_model_starts_with_the_weights_of_the_file(backbone, tmp_path):
    """Bit for bit, whatever the run's seed; and without a file as ever."""
    run = starting_run(tmp_path, backbone)
    file = read_weights_file(Path(run.train.start)).tensors
    for seed in (0, 1):
        found = prepare_model(dataclasses.replace(run, seed=seed), CPU).model.state_dict()
        assert all(torch.equal(found[name], file[name]) for name in file)
    fresh = prepare_model(toy_run(backbone), CPU).model.state_dict()
    assert torch.equal(fresh["head.classifier.weight"], build_backbone(run.model).head.classifier.weight)
    assert not torch.equal(fresh["head.classifier.weight"], file["head.classifier.weight"])


def test_a_new_classifier_is_drawn_by_the_runs_seed(tmp_path):
    """Where the file's is of another number of classes: it is that of a run from scratch; all else is the file's."""
    run = starting_run(tmp_path, patch_size=4)
    seven = dataclasses.replace(run, model=run.model.with_options({"num_classes": 7}), seed=3)
    found, file = prepare_model(seven, CPU).model.state_dict(), read_weights_file(Path(run.train.start)).tensors
    scratch = build_backbone(seven.model, seed=3).state_dict()
    assert all(torch.equal(found[name], scratch[name]) for name in CLASSIFIER)
    assert torch.equal(
        found["blocks.1.channel_mixing.mixer.expand.weight"], file["blocks.1.channel_mixing.mixer.expand.weight"]
    )
    assert found["stem.patch_embedding.projection.weight"].shape[2] == 4
    fit = describe_fit(StartingWeights.read(run.train.start).fit(seven.model), seven.model)
    assert "from 2 to 4 pixels" in fit and "a new classifier of 7 classes" in fit


def test_kept_weights_bring_their_classes_and_their_model(tmp_path):
    """Other classes, though as many, have a new classifier; heads that no tensor's shape tells are compared."""
    run, path = toy_run(), tmp_path / "kept.safetensors"
    save_weights(path, run, weights=build_backbone(run.model).state_dict(), facts=FACTS, writer="w")
    source = StartingWeights.read(str(path))
    assert source.fit(run.model, class_names=FACTS.class_names).state.keys() >= set(CLASSIFIER)
    assert not source.fit(run.model, class_names=tuple("uvwxyz")).state.keys() & set(CLASSIFIER)
    with pytest.raises(UserError, match=r"kept.safetensors: model.heads: weights of a model with 1, not 2"):
        source.fit(run.model.with_options({"heads": 2}))
    with pytest.raises(UserError, match=r"weights of vit, not of convmixer"):
        source.fit(toy_run("convmixer").model)


def test_a_variant_names_what_published_weights_are_of(tmp_path):
    """Its options are compared, but not those that resampling and a new classifier make up for."""
    options = {"depth": 1, "image_size": 32, "num_classes": 5}
    spec = specify("vit_tiny_patch16", options)
    save_file(build_backbone(spec).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"model\.depth: weights of a model with 12, not 1") as error:
        StartingWeights.read(f"vit_tiny_patch16@{tmp_path}/w.safetensors").fit(spec)
    assert len(error.value.problems) == 1
    with pytest.raises(UserError, match="unknown backbone"):
        StartingWeights.read(f"vit_tyni_patch16@{tmp_path}/w.safetensors")


def test_a_file_that_has_changed_since_the_plan_is_an_error(tmp_path):
    """Other bytes under its name are other weights: nothing is trained, and the message names both digests."""
    run = starting_run(tmp_path)
    assert run.run_id != toy_run().run_id
    elsewhere = run.train.model_copy(update={"start": "elsewhere"})
    assert run.run_id == dataclasses.replace(run, train=elsewhere).run_id
    save_file(build_backbone(run.model).state_dict(), run.train.start)
    with pytest.raises(UserError, match=rf"has changed since it was planned \(SHA-256 {run.train.start_sha256}\)"):
        attempt(run, tmp_path)


@pytest.mark.parametrize(
    ("backbone", "options"),
    [("vit", {"evaluate": "ema", "layer_decay": 0.7}), ("convmixer", {"freeze": "body", "evaluate": "ema"})],
)
def test_no_kill_changes_a_bit_of_a_run_from_weights(backbone, options, tmp_path):
    """Saved at step 2, killed after step 4: the end is that of the uninterrupted twin, the moving average's too."""
    run = starting_run(tmp_path / "file", backbone, **options)
    assert attempt(run, tmp_path / "killed", fate=Fate(interrupt_after=4), every=2) is None
    survivor = attempt(run, tmp_path / "killed", restart=1)
    assert survivor.resumes[0].step == 4
    assert_same_bits(survivor, finished(run, tmp_path / "twin"))


@pytest.mark.parametrize("backbone", ["convmixer", "vit"])
@pytest.mark.parametrize("evaluate", ["last", "ema"])
def test_a_frozen_body_stays_as_it_was(backbone, evaluate, tmp_path):
    """All tensors but the classifier's, BatchNorm's statistics among them, end with the bits of the file; decay moves none."""
    run = starting_run(tmp_path, backbone, freeze="body", weight_decay=0.5, decay="all", evaluate=evaluate)
    file = read_weights_file(Path(run.train.start)).tensors
    weights = finished(run, tmp_path / "runs").weights
    moved = {name for name in file if not torch.equal(weights[name], file[name])}
    assert moved == set(CLASSIFIER)
    learned = finished(starting_run(tmp_path, backbone), tmp_path / "runs").weights
    assert sum(not torch.equal(learned[name], file[name]) for name in file) > len(file) / 2


def test_a_frozen_body_has_neither_gradients_nor_moments(tmp_path):
    """The optimizer has the classifier alone, in training every norm is as in evaluation, and validation leaves it so."""
    run = starting_run(tmp_path, "convmixer", freeze="body")
    model = prepare_model(run, CPU).model
    state = initial_state(model, run, device=torch.device("cpu"), epoch_steps=3)
    assert [p for group in state.optimizer.param_groups for p in group["params"]] == list(model.head.classifier.parameters())
    images = torch.randn(4, 3, 8, 8)
    logits = model(images)
    logits.sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(CLASSIFIER)
    assert not sees_whole_batch(model) and sees_whole_batch(prepare_model(toy_run("convmixer"), CPU).model)
    assert model.training and torch.equal(logits, model.eval()(images))
    checkpoints = EveryNthStep(tmp_path, run, every=1)
    assert attempt(run, tmp_path, fate=Fate(interrupt_after=5), every=1) is None
    saved = checkpoints.newest(like=state.export({}))
    assert len(saved["optimizer"]["state"]) == len(CLASSIFIER)


def test_ranks_train_a_frozen_body_as_one_process(tmp_path):
    """The classifier's weights agree within rounding; the body is the file's on all ranks."""
    run = starting_run(tmp_path / "file", "convmixer", freeze="body")
    alone = finished(run, tmp_path / "alone")
    first, second = run_on_ranks(trained, tmp_path / "ranks", run, tmp_path / "ranks")
    assert_same_bits(first, second)
    torch.testing.assert_close(dict(first.weights), dict(alone.weights), rtol=1e-4, atol=1e-6)
    file = read_weights_file(Path(run.train.start)).tensors
    assert all(torch.equal(first.weights[name], file[name]) for name in file if name not in CLASSIFIER)


def test_what_would_do_nothing_with_a_frozen_body_is_refused():
    """Branches that never drop, rates of layers that have none, and an optimizer whose matrices are all frozen."""
    for options in ({"stochastic_depth": 0.1}, {"mlp_dropout": 0.1}, {"layer_decay": 0.9}, {"optimizer": "muon"}):
        with pytest.raises(ValueError, match="freeze: body"):
            toy_run(freeze="body", **options)

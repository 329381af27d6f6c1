"""Runs that train as one stack are the runs that they are alone: within rounding in their figures, to the bit over kills."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_runs import CPU, EveryNthStep, Fate, Killed, assert_same_bits, finished, splits, stack, toy_run

from study.backbones import build_spec, specify
from study.config.run import Run
from study.training import step as steps
from study.training.checkpoint import Checkpoints
from study.training.engine import NothingShared, train_stack
from study.training.fingerprint import differences
from study.training.model_setup import equipped
from study.training.outcome import Outcome
from study.training.stacking import Stack, Unstackable, check

AUGMENT = {"flip": True, "crop": 1, "erasing": 0.5, "mixup": 0.4}
SHAPE = {"image_size": 8, "in_channels": 3, "num_classes": 6, "patch_size": 2, "depth": 2}
BODIES = {
    "convmixer k3": ("convmixer", {"dim": 8, "kernel_size": 3}),
    "convmixer k5, positions": ("convmixer", {"dim": 8, "kernel_size": 5, "position_embedding": "learned"}),
    "convmixer, layer norm": ("convmixer", {"dim": 8, "kernel_size": 3, "norm": "layer", "residual": "both"}),
    "convmixer, overlap": ("convmixer", {"dim": 8, "kernel_size": 3, "stem": "overlap"}),
    "convmixer, conv stem": ("convmixer", {"dim": 8, "kernel_size": 3, "stem": "conv"}),
    "vit": ("vit", {"dim": 8, "heads": 2}),
    "vit, waves": ("vit", {"dim": 8, "heads": 2, "position_embedding": "sincos"}),
    "vit, batch norm": ("vit", {"dim": 8, "heads": 2, "norm": "batch"}),
    "mlp_mixer": ("mlp_mixer", {"dim": 8}),
    **{
        f"metaformer {mixer}": ("metaformer", {"dim": 8, "token_mixer": mixer})
        for mixer in ("attention", "depthwise_conv", "mlp", "pooling", "identity", "random")
    },
}


def runs(backbone: str = "vit", *, size: int = 3, epochs: int = 3, **options) -> list[Run]:
    """Runs that differ in their seeds, learning rates and weight decays."""
    made = [toy_run(backbone, seed=seed, epochs=epochs, augment=AUGMENT, **options) for seed in range(size)]
    rates = [{"lr": 5e-3 / (1 + seed), "weight_decay": 0.01 * seed} for seed in range(size)]
    return [replace(run, train=run.train.model_copy(update=rate)) for run, rate in zip(made, rates, strict=True)]


def models(body: str, size: int):
    backbone, settings_ = BODIES[body]
    return [build_spec(specify(backbone, SHAPE | settings_), seed=seed) for seed in range(size)]


@pytest.mark.parametrize("body", BODIES)
def test_logits_gradients_and_statistics_are_those_of_the_single_models(body):
    """Each body: three seeds at once give what each gives alone on its own images, in double precision to 1e-10."""
    alone, whole = ([model.double() for model in models(body, 3)] for _ in range(2))
    images = torch.randn(3, 5, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = Stack(whole)
    logits = together.apart(together.model(images.flatten(0, 1)))
    (logits.sin() * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[:, None, None]).sum().backward()
    for number, (single, member) in enumerate(zip(alone, whole, strict=True)):
        expected = single(images[number])
        torch.testing.assert_close(logits[number], expected, rtol=0, atol=1e-10)
        (expected.sin() * (number + 1)).sum().backward()
        for (name, mine), (_, other) in zip(member.named_parameters(), single.named_parameters(), strict=True):
            assert (mine.grad is None) == (other.grad is None), name
            if mine.grad is not None:
                torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-10, msg=name)
        for (name, mine), (_, other) in zip(member.named_buffers(), single.named_buffers(), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("backbone", ["convmixer", "vit", "mlp_mixer"])
@pytest.mark.parametrize(
    "options",
    [{}, {"evaluate": "ema", "ema_decay": 0.9, "grad_clip": 0.1}, {"fit_on": "train+val", "label_smoothing": 0.1}],
    ids=["plain", "averaged and clipped", "refit and smoothed"],
)
def test_a_stack_trains_the_runs_that_they_are_alone(tmp_path, backbone, options):
    """Three runs of different seeds, rates and decays: losses within rounding, and each says that it was stacked.

    Weights aren't compared: a key's bias has a gradient of nothing but rounding, which Adam scales up.
    """
    wanted = runs(backbone, **options)
    found = stack(wanted, tmp_path / "stack")
    for run in wanted:
        alone, mine = finished(run, tmp_path / "alone"), found[run.run_id]
        assert mine.fingerprint == alone.fingerprint | {"stacked": 3} and alone.fingerprint["stacked"] == 1
        assert mine.curves["lr"] == alone.curves["lr"] and mine.status == alone.status == "done"
        for name in ("train_loss", "val_loss"):
            if options.get("fit_on") != "train+val" or name == "train_loss":
                torch.testing.assert_close(mine.curves[name], alone.curves[name], rtol=1e-4, atol=1e-5)
        assert mine.test_loss == pytest.approx(alone.test_loss, rel=1e-4)


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")
def test_the_compiled_kernels_serve_a_stack_too(tmp_path):
    """A ConvMixer with the extension: the stack says so, and its losses are those of single runs within rounding."""
    device = equipped(CPU, os.environ)
    assert device.extension is not None
    wanted = [replace(run, model=specify("convmixer", SHAPE | {"dim": 8, "kernel_size": 5})) for run in runs("convmixer")]
    plain, quick = stack(wanted, tmp_path / "plain"), stack(wanted, tmp_path / "quick", device=device)
    for run in wanted:
        assert quick[run.run_id].fingerprint["kernels"] == device.extension.name
        one, other = (each[run.run_id].curves["train_loss"] for each in (plain, quick))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["convmixer", "vit"])
@settings(deadline=None, max_examples=6)
@given(kills=st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=3), every=st.integers(1, 5))
def test_no_kill_changes_a_bit(tmp_path_factory, backbone, kills, every):
    """Kills and interruptions at any steps and at any cadence of checkpoints: the stack ends with its twin's bits."""
    folder, wanted = tmp_path_factory.mktemp("stack"), runs(backbone)
    survivors: dict[str, Outcome] = {}
    for restart, (after, politely) in enumerate([*kills, (0, True)]):
        fate = Fate(interrupt_after=after) if politely else Fate(kill_after=after)
        try:
            survivors |= stack(wanted, folder / "killed", fate=fate, every=every, restart=restart, over=frozenset(survivors))
        except Killed:
            continue
        if len(survivors) == len(wanted):
            break
    twin = stack(wanted, folder / "twin")
    for run in wanted:
        assert_same_bits(survivors[run.run_id], twin[run.run_id])
        assert survivors[run.run_id].exact and not survivors[run.run_id].notes


def test_a_kill_between_the_saves_of_two_members_sets_all_back_to_the_step_they_share(tmp_path, monkeypatch):
    """Killed when one of three had saved step 6, all go on from step 3, and end with the twin's bits."""
    wanted, saved = runs(), []
    original = Checkpoints.write

    def write(self, state, *, step):
        saved.append(step)
        if saved.count(6) == 2:
            raise Killed
        return original(self, state, step=step)

    monkeypatch.setattr(Checkpoints, "write", write)
    with pytest.raises(Killed):
        stack(wanted, tmp_path / "killed", every=3)
    monkeypatch.setattr(Checkpoints, "write", original)
    found, twin = stack(wanted, tmp_path / "killed", restart=1), stack(wanted, tmp_path / "twin")
    for run in wanted:
        assert [resume.step for resume in found[run.run_id].resumes] == [3] and found[run.run_id].exact
        assert_same_bits(found[run.run_id], twin[run.run_id])


def test_who_the_others_are_changes_no_bit(tmp_path):
    """A run among two others, and among two that are over and only keep their places: the same bits."""
    wanted = runs("convmixer")
    others = [replace(run, seed=run.seed + 10) for run in wanted]
    one, other = (stack([wanted[0], *rest], tmp_path / name) for name, rest in (("a", wanted[1:]), ("b", others[1:])))
    over = stack(wanted, tmp_path / "c", over=frozenset(run.run_id for run in wanted[1:]))
    assert over.keys() == {wanted[0].run_id}
    for found in (other, over):
        assert_same_bits(found[wanted[0].run_id], one[wanted[0].run_id])


def test_a_member_that_diverges_ends_alone(tmp_path, monkeypatch):
    """A loss that isn't finite at step 5 ends that run at its epoch's end, before the others, whose bits it doesn't change."""
    wanted = runs("convmixer")
    calm = stack(wanted, tmp_path / "calm")
    original, order = steps.move, []

    def poisoned(state, options):
        if state.step == 3 and state.optimizer.param_groups[0]["weight_decay"] == 0.01:
            next(state.model.parameters()).data.fill_(float("nan"))
        original(state, options)

    monkeypatch.setattr(steps, "move", poisoned)
    found: dict[str, Outcome] = {}
    train_stack(
        wanted,
        splits(),
        device=CPU,
        checkpoints=[EveryNthStep(tmp_path, run, every=9) for run in wanted],
        over=set(),
        stop=Fate(),
        report=lambda _: None,
        ended=lambda run, outcome: (order.append(run.run_id), found.update({run.run_id: outcome})),
    )
    ill = wanted[1].run_id
    assert order[0] == ill and found[ill].status == "diverged" and found[ill].diverged_step == 5
    for run in (wanted[0], wanted[2]):
        assert_same_bits(found[run.run_id], calm[run.run_id])


@pytest.mark.parametrize("judged", ["last", "ema"])
def test_a_checkpoint_holds_one_run_and_not_the_stack(tmp_path, judged):
    """A member's checkpoint is as large as that of the run alone, though its weights are views of the stack's."""
    sizes = {}
    for size in (1, 8):
        wanted = runs("convmixer", size=size, evaluate=judged)
        with pytest.raises(Killed):
            stack(wanted, tmp_path / str(size), fate=Fate(kill_after=2), every=1)
        sizes[size] = max(path.stat().st_size for path in (tmp_path / str(size)).glob(f"{wanted[0].run_id}*"))
    assert sizes[8] < 1.02 * sizes[1]


def test_what_has_nothing_in_common_to_go_on_from_is_told(tmp_path):
    """Two of three have a checkpoint: the stack doesn't start over, each is to go on by itself."""
    wanted = runs()
    with pytest.raises(Killed):
        stack(wanted, tmp_path, fate=Fate(kill_after=4), every=1)
    for path in tmp_path.glob(f"{wanted[2].run_id}.*"):
        path.unlink()
    with pytest.raises(NothingShared):
        stack(wanted, tmp_path, restart=1)


def test_a_checkpoint_from_before_there_were_stacks_is_exact():
    """Fingerprints without the entry are those of runs alone."""
    assert differences({"threads": 1}, {"threads": 1, "stacked": 1}) == []
    assert differences({"threads": 1}, {"threads": 1, "stacked": 3}) == ["stacked: 1 -> 3"]


def test_time_is_shared_out(tmp_path):
    """Three runs of a stack together are charged with no more than the time that passed."""
    wanted = runs(epochs=2)
    found = stack(wanted, tmp_path)
    seconds = [found[run.run_id].train_seconds for run in wanted]
    assert max(seconds) < 1.01 * min(seconds)


def test_what_has_no_stacked_form_is_named_before_anything_is_touched():
    """A class token and ConvNeXt's layer scale have none; the models stay what they were."""
    model = build_spec(specify("vit", SHAPE | {"dim": 8, "heads": 1, "pooling": "class_token"}), seed=0)
    with pytest.raises(Unstackable, match=r"SequenceStem\.class_token"):
        Stack([model, model])
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(Unstackable, match="layer_scale"):
        check(build_spec(specify("convnext", SHAPE | {"dim": 8}), seed=0))

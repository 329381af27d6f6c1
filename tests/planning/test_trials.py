"""Tuning as it is planned: every cell gets the same trials, no trial can see the test set, selections are final."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from study.config.options import DataOptions, TrainOptions
from study.config.sweep_file import read_sweep
from study.data import describe_dataset
from study.data.splits import Splits, load_splits
from study.errors import UserError
from study.planning.sweep_plan import Plan, make_plan
from study.records.selection import Candidate, Choice, Selection, Trial, choose, read_selection, write_selection
from study.records.sweep_folder import SweepFolder
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice
from study.training.engine import train
from study.training.outcome import Outcome

SWEEP = """\
question: which learning rate does each cell want?
data: {name: digits, train_images: 200, test_images: 100, predictions: true}
model: {depth: 1, patch_size: 4}
train: {epochs: 2, batch_size: 50}
match: {by: params, target: 6k, head_dim: 8}
axes:
  backbone: [mlp_mixer, vit]
seeds: [0, 1]
tune: {axes: {train.lr: [1e-4, 1e-2, 1e30]}, seeds: [100]}
final: {fit_on: train+val}
"""


def planned(tmp_path: Path, *overrides: str, text: str = SWEEP, selection: Selection | None = None) -> Plan:
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return make_plan(read_sweep(path, overrides), selection)


def mistakes(tmp_path: Path, *overrides: str, text: str = SWEEP, selection: Selection | None = None) -> str:
    with pytest.raises(UserError) as caught:
        planned(tmp_path, *overrides, text=text, selection=selection)
    return caught.value.summary()


def invented(plan: Plan, *, level: float) -> Selection:
    """The selection that would follow if every cell's best trial were at `level`."""
    cells: dict[str, Choice] = {}
    for cell in dict.fromkeys(trial.cell for trial in plan.trials):
        own = [trial for trial in plan.trials if trial.cell == cell]
        accuracies = [float(trial.run.train.lr == level) for trial in own]
        candidates = [
            Candidate(levels={"train.lr": trial.run.train.lr}, trials=(a_trial(trial.run_id, accuracy),))
            for trial, accuracy in zip(own, accuracies, strict=True)
        ]
        cells[str(cell)] = choose(candidates, {"backbone": own[0].run.backbone})
    return Selection(axes={"train.lr": [1e-4, 1e-2, 1e30]}, seeds=(100,), trials_per_cell=3, cells=cells)


def a_trial(run_id: str, accuracy: float | None, loss: float | None = 1.0) -> Trial:
    return Trial(
        run_id=run_id,
        seed=100,
        status="diverged" if accuracy is None else "done",
        val_accuracy=accuracy,
        val_loss=None if accuracy is None else loss,
    )


# The plan


def test_every_cell_has_the_same_trials(tmp_path):
    """Levels x levels x seeds for each cell, no trial in two of them; cells that resolve to the same are one, with its trials.

    A kernel is no option of MLP-Mixer, so its two cells are one: three are left of four.
    """
    axes = ["tune.seeds=[100,101]", "tune.axes.augment.flip=[true,false]", "backbone=[convmixer,mlp_mixer]"]
    plan = planned(tmp_path, *axes, text=SWEEP.replace("axes:\n  b", "axes:\n  model.kernel_size: [1, 3]\n  b", 1))
    counts = Counter(trial.cell for trial in plan.trials)
    assert len(counts) == 3 and set(counts.values()) == {3 * 2 * 2}
    assert len({trial.run_id for trial in plan.trials}) == 3 * 12
    assert {run.trials for run in (*plan.trials, *plan.finals)} == {12}
    assert len(plan.finals) == 3 * 2


@pytest.mark.parametrize(("finals", "trials"), [("[0, 1]", (100, 101)), ("[101, 7]", (100, 102)), ("200", (200, 201))])
def test_two_trial_seeds_by_default_that_no_final_run_has(tmp_path, finals, trials):
    """Without `tune.seeds`: two, from 100 on, past the sweep's own."""
    plan = planned(tmp_path, f"seeds={finals}", "backbone=vit", text=SWEEP.replace(", seeds: [100]", ""))
    assert tuple(dict.fromkeys(trial.run.seed for trial in plan.trials)) == trials


def test_trials_differ_from_final_runs_as_promised(tmp_path):
    """Trials: tuned levels, their own seeds, fitted on train alone, no test set. Final runs: the sweep's seeds, train + val."""
    plan = planned(tmp_path)
    for trial in plan.trials:
        assert (trial.run.seed, trial.run.train.fit_on, trial.run.train.read_test) == (100, "train", False)
        assert (trial.run.fitted_images, trial.image_passes) == (200, 400)
    for final in plan.finals:
        assert final.run.seed in (0, 1)
        assert (final.run.train.fit_on, final.run.train.read_test) == ("train+val", True)
        assert (final.run.fitted_images, final.image_passes) == (380, 700)
    assert not {trial.run_id for trial in plan.trials} & {final.run_id for final in plan.finals}


def test_final_runs_are_pending_until_something_is_selected(tmp_path):
    """Before: as many pending runs as there will be, counted in the totals, their learning rate null. After: the chosen one."""
    before = planned(tmp_path)
    assert [run.stage for run in before.runs] == ["trial"] * 6
    assert [run.entry.options.train.lr for run in before.pending] == [None] * 4
    assert len({run.run_id for run in before.pending}) == 4
    after = planned(tmp_path, selection=invented(before, level=1e-2))
    assert after.trials == before.trials and not after.pending
    assert [run.run.train.lr for run in after.finals] == [1e-2] * 4
    assert len(after.whole) == len(before.whole) == 10
    assert before.digest != after.digest


def test_final_runs_fitted_on_more_images_are_runs_of_their_own(tmp_path):
    """With `train.fit_on` as an axis two final runs share a cell's trials and nothing else, before the selection and after."""
    text = SWEEP.replace("axes:\n", "axes:\n  train.fit_on: [train, train+val]\n").replace("final: {fit_on: train+val}\n", "")
    plan = planned(tmp_path, text=text)
    assert len(plan.trials) == 2 * 3 and len({waiting.run_id for waiting in plan.pending}) == len(plan.pending) == 2 * 2 * 2
    chosen = planned(tmp_path, text=text, selection=invented(plan, level=1e-2))
    assert len({final.run_id for final in chosen.finals}) == 8
    assert Counter(final.run.train.fit_on for final in chosen.finals) == {"train": 4, "train+val": 4}
    assert "varied here and given at" in mistakes(tmp_path, text=text + "final: {fit_on: train+val}\n")


def test_a_sweep_without_trials_has_final_runs_only(tmp_path):
    """`final.fit_on` then is `train.fit_on`."""
    plain = SWEEP.partition("tune:")[0]
    plan = planned(tmp_path, text=plain + "final: {fit_on: train+val}\n")
    assert {run.stage for run in plan.runs} == {"final"} and not plan.pending
    same = planned(tmp_path, "train.fit_on=train+val", text=plain)
    assert [run.run_id for run in plan.runs] == [run.run_id for run in same.runs]


@pytest.mark.parametrize(
    ("overrides", "levels"),
    [
        ([], [1e-4, 1e-2, 1e30]),
        (["train.lr=[1e-3,3e-3]"], [1e-3, 3e-3]),
        (["tune.axes.train.lr=[1e-3]"], [1e-3]),
        (["train.lr=1e-3"], []),
        (["tune=null", "train.lr=1e-3"], []),
    ],
)
def test_the_command_line_changes_tuned_options_as_it_changes_axes(tmp_path, overrides, levels):
    """A list replaces the levels, a value fixes the option; when nothing is left to tune there are no trials."""
    plan = planned(tmp_path, *overrides)
    assert sorted({trial.run.train.lr for trial in plan.trials}) == levels
    assert {final.run.seed for final in plan.finals} == {0, 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds: [100]", "seeds: [7, 1]"), "sweep.yaml:9: tune.seeds: final runs have fresh seeds, but both have 1"),
        (("train.lr: [", "model.depth: ["), "trials choose options of the recipe"),
        (("train.lr: [1e-4, 1e-2, 1e30]", "train.epochs: [1, 2]"), "tune.axes.train.epochs: trials choose"),
        (("train.lr: [", "train.lrr: ["), "did you mean 'train.lr'?"),
        (("batch_size: 50", "batch_size: 50, lr: 1e-3"), "varied here and given at"),
        (("train.lr: [1e-4,", "train.lr: [-1,"), "greater than 0 (got -1)"),
        (("1e-2, 1e30", "1, 1.0"), "some come out equal"),
        (("seeds: [100]", "seeds: [100], trials: 3"), "tune.trials: unknown key"),
        (("fit_on: train+val", "fit_on: all"), "valid: train, train+val"),
        (("seeds: [0, 1]", "seeds: [0, 1]\nexclude: [{train.lr: 1e-2}]"), "neither set nor varied"),
        (
            ("seeds: [0, 1]", "seeds: [0, 1]\nrecipe: convmixer_cifar10_25\nexclude: [{train.lr: 0.05}]"),
            "neither set nor varied",
        ),
        (("epochs: 2,", "epochs: 2, fit_on: train+val, read_test: false,"), "no other images than the test set"),
    ],
)
def test_unfair_or_unclear_tuning_is_refused(tmp_path, change, message):
    """Shared seeds, options outside the recipe, repeated levels, cells without some trials: errors with their place."""
    assert message in mistakes(tmp_path, text=SWEEP.replace(*change))


# The selection


def test_a_selection_is_kept_as_it_was_made(tmp_path):
    """It survives the way to disk, and neither another selection nor another sweep's trials go with it."""
    plan, folder = planned(tmp_path), SweepFolder(tmp_path / "runs")
    selection = invented(plan, level=1e-2)
    assert read_selection(folder) is None
    write_selection(folder, selection)
    write_selection(folder, selection)
    assert read_selection(folder) == selection
    with pytest.raises(UserError, match="other content"):
        write_selection(folder, invented(plan, level=1e-4))
    assert planned(tmp_path, "backbone=[vit]", "seeds=[0,1,2]", selection=selection).finals
    for changed in ("train.lr=[1e-4,1e-2]", "train.epochs=3", "tune.seeds=[101]", "model.depth=2"):
        assert "selection.json: was made from other trials" in mistakes(tmp_path, changed, selection=selection)
    folder.selection.write_text("{}")
    with pytest.raises(UserError, match="not what this version of the project writes"):
        read_selection(folder)


# The runs


class Forbidden:
    """Stands where the test images would be."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the test set was read: {name}")

    def __len__(self) -> int:
        raise AssertionError("the test set was read")


def test_a_trial_cannot_read_the_test_set(tmp_path):
    """It trains to its outcome where touching a test image is an error, without test figures. A final run fails there."""
    plan = planned(tmp_path)
    trial = next(trial.run for trial in plan.trials if trial.run.train.lr == 1e-2)
    found = describe_dataset(DataOptions(name="digits", train_images=200, test_images=100))
    images = load_splits(trial.data, found, seed=trial.seed)
    sealed = Splits(images.train, images.val, Forbidden(), images.train_and_val, info=found)  # type: ignore[arg-type]

    def attempt(run, name):
        checkpoints, device = Checkpoints(tmp_path / name, run.run_id, "writer"), DeviceChoice("cpu")
        return train(run, sealed, device=device, checkpoints=checkpoints, stop=lambda: False, report=lambda *_: None)

    outcome = attempt(trial, "trial")
    assert isinstance(outcome, Outcome) and outcome.status == "done"
    assert outcome.val_accuracy is not None and outcome.predictions is None
    assert (outcome.test_accuracy, outcome.test_top5, outcome.test_loss) == (None, None, None)
    with pytest.raises(AssertionError, match="the test set was read"):
        attempt(plan.finals[0].run, "final")


def test_reading_the_test_set_is_part_of_the_identity_where_it_is_not_done(tmp_path):
    """Runs recorded before trials existed keep their identity; a trial has another."""
    assert TrainOptions(epochs=1) == TrainOptions(epochs=1, read_test=True)
    plain = planned(tmp_path, "train.lr=1e-2").finals[0].run.identity()["train"]
    blind = planned(tmp_path, "train.lr=1e-2", "train.read_test=false", "final=null").finals[0].run.identity()["train"]
    assert "read_test" not in plain and blind["read_test"] is False

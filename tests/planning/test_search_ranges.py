"""Ranges that widen by themselves: which level comes next, and the rounds of trials that follow from recorded ones."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.launch import main as launch
from study.launcher.assignment import LaunchRequest
from study.plan import main as show_plan
from study.planning.planned_run import PlannedRun
from study.planning.search_ranges import MAX_ROUNDS, extend_range
from study.planning.sweep_plan import Plan
from study.planning.trials import describe_selection, make_plan_so_far, make_selected_plan
from study.records.record import Record, Result
from study.records.selection import read_selection
from study.records.sweep_folder import SweepFolder
from study.status import main as show_status

Accuracy = Callable[[PlannedRun], float]
SWEEP = """\
question: which learning rate does each cell want?
data: {name: digits, train_images: 200, test_images: 100}
model: {depth: 1, patch_size: 4, dim: 8}
train: {epochs: 2, batch_size: 50}
axes:
  backbone: [mlp_mixer, vit]
seeds: [0, 1]
tune: {axes: {train.lr: [1e-3, 3e-3, 1e-2]}}
"""


@given(st.floats(1e-6, 1e3), st.floats(1.5, 10), st.integers(2, 5), st.booleans())
def test_a_range_is_extended_at_its_own_ratio(first, ratio, count, up):
    """Geometric levels get the next term of their sequence at either end, whatever their order, to three digits."""
    levels = [first * ratio**n for n in range(count)]
    expected = first * ratio**count if up else first / ratio
    assert extend_range("train.lr", levels[::-1], end=max(levels) if up else min(levels)) == pytest.approx(expected, rel=6e-3)


@pytest.mark.parametrize(
    ("key", "levels", "end", "expected"),
    [
        ("train.lr", [5e-4, 1.5e-3, 5e-3], 5e-4, 1.67e-4),
        ("train.weight_decay", [0.0, 0.1, 0.3], 0.3, 0.9),
        ("train.weight_decay", [0.0, 0.1, 0.3], 0.0, None),  # nothing is below 0, and 0 has no ratio
        ("train.weight_decay", [0.0, 0.1], 0.1, None),
        ("train.batch_size", [32, 64], 64, 128),
        ("train.batch_size", [2, 3], 2, 1),
        ("augment.crop", [40, 60], 60, 64),  # its greatest value
        ("augment.crop", [1, 64], 64, None),
        ("augment.color_jitter", [0.2, 0.8], 0.8, 1.0),
        ("train.stochastic_depth", [0.1, 0.2], 0.2, 0.4),
        ("train.stochastic_depth", [0.2, 0.6], 0.6, 0.8),  # 1 is no chance to keep a branch: half of the way there
        ("train.ema_decay", [0.99, 0.999], 0.999, 0.9995),
    ],
)
def test_integers_stay_integers_and_bounds_are_respected(key, levels, end, expected):
    """By hand."""
    found = extend_range(key, levels, end=end)
    assert found == expected and type(found) is type(expected)


class Site:
    """A sweep's folder in which trials are recorded with invented accuracies."""

    def __init__(self, place: Path, *overrides: str, text: str = SWEEP):
        self.folder = SweepFolder(place)
        self.folder.records.mkdir(parents=True)
        (place / "sweep.yaml").write_text(text, encoding="utf-8")
        self.sweep = read_sweep(place / "sweep.yaml", overrides)

    @property
    def plan(self) -> Plan:
        return make_plan_so_far(self.sweep, self.folder)

    def record(self, plan: Plan, accuracy: Accuracy, *, count: int | None = None) -> list[PlannedRun]:
        """Record the first `count` trials that have no record yet."""
        path = self.folder.records / "20260101T000000-0-0.jsonl"
        known = path.read_text() if path.exists() else ""
        chosen = [trial for trial in plan.trials if trial.run_id not in known][:count]
        for trial in chosen:
            entry, result = trial.entry, Result(val_accuracy=accuracy(trial), val_loss=1.0)
            record = Record(trial.run_id, "done", run=entry.run, cost=entry.cost, match=entry.match, result=result)
            with path.open("a") as file:
                file.write(json.dumps(record.to_json()) + "\n")
        return chosen

    def finish(self, accuracy: Accuracy) -> list[Plan]:
        """Record round after round; all plans, the last with its final runs decided."""
        plans = [self.plan]
        while plans[-1].pending:
            self.record(plans[-1], accuracy)
            plans.append(make_selected_plan(plans[-1], self.folder))
        return plans


def peak_at(**rates: float) -> Accuracy:
    """Accuracies that fall off from the backbone's best rate."""
    return lambda trial: 0.9 - 0.1 * abs(math.log10(trial.run.train.lr / rates[trial.run.backbone]))


def equal(trial: PlannedRun) -> float:
    """All alike, so that the first candidate is chosen."""
    return 0.5


def rates_of(plan: Plan) -> list[float]:
    return sorted({trial.run.train.lr for trial in plan.trials})


def test_ranges_widen_for_all_cells_until_every_best_is_inside(tmp_path):
    """One cell wants a higher rate twice, the other a lower one: both get all, and no trial is trained again."""
    site, accuracy = Site(tmp_path), peak_at(mlp_mixer=2e-2, vit=1e-3)
    rounds = [site.plan]
    while rounds[-1].pending:
        site.record(rounds[-1], accuracy, count=1)
        assert site.plan == rounds[-1] == make_selected_plan(rounds[-1], site.folder)  # killed within a round: the same one
        site.record(rounds[-1], accuracy)
        planned = site.plan
        assert read_selection(site.folder) is None  # planning writes nothing
        rounds.append(make_selected_plan(rounds[-1], site.folder))
        assert planned.trials == rounds[-1].trials
    final = rounds[-1]
    assert [rates_of(plan) for plan in rounds] == [
        [1e-3, 3e-3, 1e-2],
        [3.33e-4, 1e-3, 3e-3, 1e-2, 3.33e-2],
        [3.33e-4, 1e-3, 3e-3, 1e-2, 3.33e-2, 1.11e-1],
        [3.33e-4, 1e-3, 3e-3, 1e-2, 3.33e-2, 1.11e-1],
    ]
    for plan, wider in itertools.pairwise(rounds):
        assert {trial.run_id for trial in plan.trials} <= {trial.run_id for trial in wider.trials}
        assert set(Counter(trial.cell for trial in wider.trials).values()) == {2 * len(rates_of(wider))}
        assert {run.trials for run in wider.whole} == {2 * len(rates_of(wider))}
    assert {(run.run.backbone, run.run.train.lr) for run in final.finals} == {("mlp_mixer", 3.33e-2), ("vit", 1e-3)}
    selection = read_selection(site.folder)
    assert selection is not None and all(choice.at_edge == () for choice in selection.cells.values())
    assert site.plan == final and final.file.facts.times_widened == 2


def test_after_three_rounds_an_end_is_reported(tmp_path):
    """A best that is never inside stops after three more levels; the cell is flagged, and a later launch changes nothing."""
    site = Site(tmp_path)
    *_, plan = site.finish(peak_at(mlp_mixer=3e-3, vit=1e3))
    assert len(rates_of(plan)) == 3 + MAX_ROUNDS == 6
    selection = read_selection(site.folder)
    assert selection is not None and [choice.at_edge for choice in selection.cells.values()] == [(), ("train.lr",)]
    assert "at the boundary of the search range: backbone=vit: lr" in "\n".join(describe_selection(selection))
    assert site.plan == plan == make_selected_plan(plan, site.folder)
    other = replace(site.sweep, tuning=read_sweep(tmp_path / "sweep.yaml", ["tune.widen=false"]).tuning)
    with pytest.raises(UserError, match="was made from other trials"):
        make_plan_so_far(other, site.folder)


@pytest.mark.parametrize("override", ["tune.widen=false", "tune.axes.train.decay=[all,matrices] train.lr=1e-3"])
def test_without_widening_or_without_numbers_there_is_one_round(tmp_path, override):
    """Words have no range, and `widen: false` keeps the levels; an end is reported as ever."""
    site = Site(tmp_path, *override.split())
    first, decided = site.finish(peak_at(mlp_mixer=1.0, vit=1.0))
    assert first.trials == decided.trials
    selection = read_selection(site.folder)
    assert selection is not None and selection.added == ()


def test_a_level_that_some_cell_cannot_have_is_not_added(tmp_path):
    """Warm-up must be shorter than the training of each cell: no cell gets a level that fails in one."""
    text = SWEEP.replace("train.lr: [1e-3, 3e-3, 1e-2]", "train.warmup_epochs: [0.5, 1.0]").replace("{epochs: 2, ", "{")
    text = text.replace("axes:\n", "axes:\n  train.epochs: [2, 9]\n", 1)
    site = Site(tmp_path, text=text)
    site.record(site.plan, equal)
    assert {trial.run.train.warmup_epochs for trial in site.plan.trials} == {0.25, 0.5, 1.0}
    end = text.replace("[0.5, 1.0]", "[1.0, 0.5]")
    site = Site(tmp_path / "other", text=end)
    site.record(site.plan, equal)
    assert {trial.run.train.warmup_epochs for trial in site.plan.trials} == {0.5, 1.0}


def test_weight_decay_is_tuned_beside_the_rate(tmp_path):
    """Every combination for every cell; each range widens by itself, and each cell gets the pair that is best for it."""
    best = {"mlp_mixer": (3e-3, 0.3), "vit": (1e-3, 0.1)}
    text = SWEEP.replace(
        "{train.lr: [1e-3, 3e-3, 1e-2]}", "{train.lr: [3e-4, 1e-3, 3e-3, 1e-2], train.weight_decay: [0.1, 0.3]}"
    )

    def accuracy(trial: PlannedRun) -> float:
        off = zip((trial.run.train.lr, trial.run.train.weight_decay), best[trial.run.backbone], strict=True)
        return 0.9 - 0.1 * sum(abs(math.log10(value / target)) for value, target in off)

    first, *_, plan = Site(tmp_path, text=text).finish(accuracy)
    assert len(first.trials) == 2 * 4 * 2 * 2
    assert {trial.run.train.weight_decay for trial in plan.trials} == {0.0333, 0.1, 0.3, 0.9}
    found = {run.run.backbone: (run.run.train.lr, run.run.train.weight_decay) for run in plan.finals}
    assert found == best


def test_each_seed_can_tune_for_itself(tmp_path):
    """Its own trials, in no other seed's choice; the final runs of a cell differ in what was chosen for their seeds."""
    site = Site(tmp_path, "tune.per=seed", "seeds=[0,7]")
    plan = site.plan
    assert {run.trials for run in plan.whole} == {6} and len(plan.trials) == 2 * 2 * 6
    seeds = {final: {trial.run.seed for trial in plan.trials if trial.for_seed == final} for final in (0, 7)}
    assert seeds == {0: {1100, 1101}, 7: {8100, 8101}}
    site.record(plan, lambda trial: 0.9 - abs(trial.run.train.lr - (3e-3 if trial.for_seed == 0 else 1e-2)))
    wider = make_selected_plan(plan, site.folder)
    assert wider.pending and {run.trials for run in wider.whole} == {8}  # one seed's best was at an end: one more for all
    site.record(wider, lambda trial: 0.0)
    decided = make_selected_plan(wider, site.folder)
    assert {(run.run.seed, run.run.train.lr) for run in decided.finals} == {(0, 3e-3), (7, 1e-2)}
    selection = read_selection(site.folder)
    assert selection is not None and len(selection.cells) == 4
    assert [choice.for_seed for choice in selection.cells.values()] == [0, 7] * 2
    assert "selected lr for 4 pairs of cell and seed from 32 trials (8 per cell and seed)" in describe_selection(selection)
    fewer = read_sweep(tmp_path / "sweep.yaml", ["tune.per=seed", "seeds=[7]"])
    assert make_plan_so_far(fewer, site.folder).finals == decided.finals[1::2]


@pytest.mark.parametrize(
    ("overrides", "message"), [(("seeds=[0,1100]",), "both have 1100"), (("tune.seeds=[1000]",), "numbers below 1000")]
)
def test_seeds_of_trials_and_final_runs_never_meet(tmp_path, overrides, message):
    """Where each seed tunes for itself, its trials' seeds are derived from it, and checked against all final ones."""
    with pytest.raises(UserError, match=message):
        Site(tmp_path, "tune.per=seed", *overrides)


def test_one_local_command_goes_through_all_rounds(tmp_path, monkeypatch, capsys):
    """Launched on this machine (training replaced by invented outcomes): plan, dry run and status name the rounds."""
    monkeypatch.chdir(tmp_path)
    site, accuracy = Site(tmp_path / "runs" / "sweep"), peak_at(mlp_mixer=2e-2, vit=1e-3)
    Path("sweep.yaml").write_text(SWEEP, encoding="utf-8")
    trained: list[int] = []

    def train(request: LaunchRequest) -> int:
        trained.append(len(site.record(request.plan, accuracy)))
        return 0

    monkeypatch.setattr("study.launch.launch_locally", train)
    assert show_plan(["sweep.yaml"]) == launch(["sweep.yaml", "--cluster", "local", "--dry-run"]) == 0
    before = capsys.readouterr().out
    assert "after the trials, this command trains more of them where a range is to be widened, then the 4 final runs" in before
    assert before.count("6 trials per cell (lr 0.001, 0.003, 0.01; seeds 100, 101)") == 2
    assert (
        before.count("at most 3 times, all cells get one more level there: 2 (one of lr) more trials per cell each time") == 2
    )
    assert launch(["sweep.yaml", "--cluster", "local"]) == 0
    printed = capsys.readouterr().out
    assert "widened lr by 0.000333 and 0.0333 for all cells (round 1 of at most 3)" in printed
    assert "widened lr by 0.111 for all cells (round 2 of at most 3)" in printed
    assert "selected lr for 2 cells from 24 trials (12 per cell)" in printed and "boundary" not in printed
    assert printed.count("8 more trials, ") == printed.count("4 more trials, ") == 1
    assert printed.count("off budget") == 2  # the plan's table: before the first trials, and with what was selected
    assert trained == [12, 8, 4, 0]  # the last: final runs, which are no trials
    assert show_status(["sweep.yaml"]) == 0
    assert "24 of 24 have an outcome; ranges widened 2 times" in capsys.readouterr().out

"""Looks between the stages of a study: what each decides and plans, that a look is a fact, and that a kill loses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from study.analysis.findings import Findings
from study.analysis.group_sequential import Look
from study.analysis.report_tables import combine_studies, read_run_folder
from study.cli.console import open_console
from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.launcher import interim_analysis
from study.launcher.assignment import assign_runs, draft_launch
from study.launcher.interim_analysis import make_following_plan
from study.plan import check_statements, format_plan_as_json, show_plan
from study.planning.planned_run import PlannedRun
from study.planning.stages import list_awaited
from study.planning.sweep_plan import Plan
from study.planning.trials import make_plan_so_far
from study.records.looks import read_looks
from study.records.record import Record, Result, read_records
from study.records.sweep_folder import JsonLinesWriter, SweepFolder, Writer
from study.rng import stream
from study.status import format_lines, read_status

SWEEP = """\
question: is a larger patch as good?
effect_of_interest: 1
data: {name: digits, train_images: 200, test_images: 100}
backbone: mlp_mixer
model: {depth: 1, dim: 8}
train: {epochs: 1, batch_size: 50}
axes: {model.patch_size: [2, 4]}
seeds: {until: decided, from: 4, to: 9, step: 3}
"""
Accuracy = Callable[[PlannedRun], float | None]


def noisy(sd: float, *, difference: float = 0.0) -> Accuracy:
    """Accuracies with that standard deviation over seeds, and that difference between the patch sizes."""

    def accuracy(planned: PlannedRun) -> float:
        size = planned.run.model.patch_size
        return 0.6 + difference * (size == 4) + sd * float(stream(0, "accuracy", size, planned.run.seed).standard_normal())

    return accuracy


class Site:
    """A sweep's folder in which runs are recorded with invented accuracies."""

    def __init__(self, folder: Path, sweep: str = SWEEP):
        folder.mkdir(exist_ok=True)
        self.path, self.runs = folder / "sweep.yaml", SweepFolder(folder / "runs/sweep")
        self.path.write_text(sweep)
        self.console = open_console()

    def plan(self, *overrides: str) -> Plan:
        return make_plan_so_far(read_sweep(self.path, overrides), self.runs)

    def train(self, accuracy: Accuracy, *, count: int | None = None) -> Plan:
        """Record the awaited runs that lack an outcome; None is one that diverged. Returns the plan that follows."""
        plan = self.plan()
        runs = list_awaited(plan, read_records(self.runs.records))[:count]
        launch = assign_runs(draft_launch(plan, self.runs, cluster="local", workers=1), plan, self.runs, runs=runs)
        records = JsonLinesWriter(self.runs.records / f"{Writer(launch.id, 0, 0)}.jsonl")
        for planned in runs:
            entry, found = planned.entry, accuracy(planned)
            result = Result(test_accuracy=found)
            status = "diverged" if found is None else "done"
            records.append(Record(entry.run_id, status, entry.run, entry.cost, entry.match, result).to_json())
        records.close()
        return make_following_plan(plan, self.runs, self.console)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_an_undecided_study_goes_on_to_its_end(site: Site) -> None:
    """Stages of 4, 7 and 9 seeds, a look after each; the plan says what is planned first and what may follow."""
    assert len(site.plan().runs) == 8
    sizes = []
    for taken in (1, 2, 3):
        plan = site.train(noisy(0.05))
        sizes.append(len(plan.runs) // 2)
        assert len(read_looks(site.runs)) == taken and read_looks(site.runs)[-1].undecided
    assert sizes == [7, 9, 9] and not plan.awaited
    assert make_following_plan(plan, site.runs, site.console) == plan


def test_a_decided_study_ends(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A difference of fifty standard deviations needs one look, an equal pair another one within the margin of a point."""
    plan = site.train(noisy(0.002, difference=0.1))
    (look,) = read_looks(site.runs)
    assert look.contrasts[0].verdict == "higher" and not plan.awaited and len(plan.runs) == 8
    assert set(look.runs) == {planned.run_id for planned in plan.runs}
    assert "1 of 1 primary contrasts are decided; no further seed is needed" in capsys.readouterr().out
    equal = Site(site.path.parent / "equal")
    equal.train(noisy(0.0005))
    plan = equal.train(noisy(0.0005))
    assert [each.contrasts[0].verdict for each in read_looks(equal.runs)][-1] == "equivalent" and not plan.awaited


def test_no_look_is_taken_before_every_run_has_an_outcome(site: Site) -> None:
    """A run that is missing delays the look; one that diverged is an outcome, and the contrast goes without its seed."""
    plan = site.train(noisy(0.002, difference=0.1), count=7)
    assert not read_looks(site.runs) and len(plan.runs) == 8
    site.train(lambda planned: None)
    (look,) = read_looks(site.runs)
    assert list(look.runs.values()).count(None) == 1 and look.contrasts[0].n == 3


def test_reports_show_what_was_looked_at(site: Site) -> None:
    """Between two looks the runs in training are left out; the intervals are the repeated ones of the look, by hand."""
    site.train(noisy(0.01, difference=0.03))
    site.train(noisy(0.01, difference=0.03), count=4)
    study = read_run_folder(site.runs.path)
    assert set(study.table["seed"]) == set(range(4)) and study.facts.planned_runs == 8
    (part,) = Findings(study).parts
    assert part.look == Look(1, (4, 7, 9))
    row = part.contrasts.iloc[0]  # type: ignore[union-attr]
    values = part.grid.values[1] - part.grid.values[0]
    half = float(Look(1, (4, 7, 9)).critical_value(3.0, contrasts=1)) * values.std(ddof=1) / 2
    assert (row["low"], row["high"]) == pytest.approx((values.mean() - half, values.mean() + half))
    (look,) = read_looks(site.runs)
    assert (look.contrasts[0].low, look.contrasts[0].verdict) == (pytest.approx(row["low"], rel=1e-5), row["verdict"])
    text = part.answer.text
    assert "after 4 seeds (look 1 of 3)" in text and "further seeds follow, 9 at most" in text and "at all looks" in text


def test_a_kill_at_a_look_changes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the look is written or just after it, the next launch comes to the same look and the same plan."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    undisturbed = Site(site.path.parent / "undisturbed")
    expected = undisturbed.train(noisy(0.05))
    for place in ("write_look", "read_stage"):
        with monkeypatch.context() as patch:
            patch.setattr(interim_analysis, place, die)
            with pytest.raises(KeyboardInterrupt):
                site.train(noisy(0.05))
    found = make_following_plan(site.plan(), site.runs, site.console)
    assert read_looks(site.runs) == read_looks(undisturbed.runs)
    assert found.runs == expected.runs == site.plan().runs


def test_a_look_is_a_fact(site: Site) -> None:
    """What was looked at can't be planned anew: other seeds, another margin, contrasts or cells, or changed records."""
    site.train(noisy(0.05))
    for override, message in {
        "seeds=5": "seeds",
        "seeds={until: decided, from: 4, to: 20, step: 3}": "seeds",
        "effect_of_interest=2": "effect_of_interest",
        "model.patch_size=[2,4,8]": "other runs",
        "train.epochs=2": "other runs",
    }.items():
        with pytest.raises(UserError, match=message):
            site.plan(override)
    look = json.loads((site.runs.looks / "1.json").read_text())
    look["runs"][next(iter(look["runs"]))] = 0.123
    (site.runs.looks / "1.json").write_text(json.dumps(look))
    with pytest.raises(UserError, match="saw another result"):
        site.train(noisy(0.05))


def test_a_study_of_one_cell_decides_nothing(site: Site) -> None:
    with pytest.raises(UserError, match="need a contrast"):
        check_statements(site.plan("model.patch_size=2"))


def test_plan_and_status_say_which_look_is_next(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs now and at most, seeds at every look; what the last look left undecided, and the command that goes on."""
    plan = site.plan()
    show_plan(plan, site.console)
    shown = " ".join(capsys.readouterr().out.split())
    assert "look 1 of 3 with 4 seeds" in shown and "at most 18 runs, 9 seeds" in shown
    assert format_plan_as_json(plan, {})["looks"] == [4, 7, 9]
    site.train(noisy(0.05))
    status = "\n".join(format_lines(plan.sweep, *read_status(site.runs), runs=str(site.runs.path.parent)))
    assert "1 of 3 taken: with 4 seeds 0 of 1 primary contrasts are decided; the next one with 7" in status
    assert "to go on with look 2 of 3, next: python -m study.launch" in status


def test_studies_at_different_looks_are_compared(site: Site) -> None:
    """Each keeps the intervals of its own look."""
    site.train(noisy(0.002, difference=0.1))
    other = Site(site.path.parent / "other", SWEEP.replace("question", "name: other\nquestion"))
    other.train(noisy(0.05))
    other.train(noisy(0.05))
    both = Findings(combine_studies([read_run_folder(each.runs.path) for each in (site, other)]))
    assert [part.look and part.look.number for part in both.parts] == [2, 1] or [
        part.look and part.look.number for part in both.parts
    ] == [1, 2]
    assert all(np.isfinite(part.contrasts["low"]).all() for part in both.parts)  # type: ignore[index]

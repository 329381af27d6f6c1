"""What was asked for last is what tables and status are of, also where all of it had been recorded before."""

from __future__ import annotations

from pathlib import Path

from study.config.sweep_file import read_sweep
from study.launch import _note_plan
from study.launcher.assignment import enter, new_launch
from study.launcher.liveness import life_of
from study.launcher.sweep_status import standing
from study.planning.sweep_plan import Plan, make_plan
from study.records import load_study, load_table
from study.records.ledger import read_launches
from study.records.sweep_folder import SweepFolder

SWEEP = """\
question: is the plan that was asked for last the one that is told?
data: {name: digits}
backbone: vit
model: {depth: 1, dim: 8, heads: 1, patch_size: 4}
train: {epochs: 1}
seeds: [0, 1]
"""


def plan_of(tmp_path: Path, *overrides: str) -> Plan:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return make_plan(read_sweep(path, overrides))


def test_a_sweep_that_shrank_is_told_as_it_is_now(tmp_path):
    """With nothing left to start, fewer seeds are fewer rows; launching the same plan again adds nothing."""
    folder, before, after = SweepFolder(tmp_path / "runs"), plan_of(tmp_path), plan_of(tmp_path, "seeds=[0]")
    enter(new_launch(before, folder, cluster="local", workers=1), before, folder, runs=before.runs)
    for _ in range(2):
        _note_plan(after, folder, earlier=folder.launch_ids())
    assert load_study(folder.path).seeds == (0,)
    assert list(load_table(folder.path)["run_id"]) == [planned.run_id for planned in after.runs]
    assert [launch.tasks for launch in read_launches(folder)] == [1, 0]


def test_the_launch_that_notes_a_plan_owns_nothing(tmp_path):
    """Its runs are as missing as before, and nobody works on them."""
    folder, plan = SweepFolder(tmp_path / "runs"), plan_of(tmp_path)
    _note_plan(plan, folder, earlier=())
    now = standing(folder, [planned.run_id for planned in plan.runs], life_of(folder))
    assert len(now.missing) == now.total == 2
    assert not now.under_way

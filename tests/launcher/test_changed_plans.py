"""Tables and status show the plan that was requested last, even if all of its runs had been recorded before."""

from __future__ import annotations

from pathlib import Path

from study.config.sweep_file import read_sweep
from study.launcher.assignment import assign_runs, draft_launch, record_plan
from study.launcher.liveness import check_liveness
from study.launcher.sweep_status import compute_sweep_status
from study.planning.sweep_plan import Plan, make_plan
from study.records import load_study, load_table
from study.records.ledger import read_launches
from study.records.sweep_folder import SweepFolder

SWEEP = """\
question: is the plan that was requested last the one that is shown?
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


def test_a_sweep_that_shrank_is_shown_as_it_is_now(tmp_path):
    """With nothing left to start, fewer seeds are fewer rows; launching the same plan again adds nothing."""
    folder, before, after = SweepFolder(tmp_path / "runs"), plan_of(tmp_path), plan_of(tmp_path, "seeds=[0]")
    assign_runs(draft_launch(before, folder, cluster="local", workers=1), before, folder, runs=before.runs)
    for _ in range(2):
        record_plan(after, folder, earlier=folder.launch_ids())
    assert load_study(folder.path).seeds == (0,)
    assert list(load_table(folder.path)["run_id"]) == [planned.run_id for planned in after.runs]
    assert [launch.tasks for launch in read_launches(folder)] == [1, 0]


def test_the_launch_that_records_a_plan_owns_nothing(tmp_path):
    """Its runs are still missing and not active."""
    folder, plan = SweepFolder(tmp_path / "runs"), plan_of(tmp_path)
    record_plan(plan, folder, earlier=())
    now = compute_sweep_status(folder, [planned.run_id for planned in plan.runs], check_liveness(folder))
    assert len(now.missing_run_ids) == now.total == 2
    assert not now.is_active

"""`deterministic: true` reaches every worker before torch uses its GPU, and is in no run's identity."""

from __future__ import annotations

import os

import pytest
import torch

from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.launcher.assignment import draft_launch
from study.planning.sweep_plan import Plan, make_plan
from study.records.code_snapshot import code_hash
from study.records.journal import FINISHED, open_journal
from study.records.ledger import Execution, Launch, write_launch
from study.records.sweep_folder import SweepFolder
from study.training import device
from study.worker import runner, worker_process
from study.worker.signals import Stop
from study.worker.task import Task

SWEEP = """\
question: does every worker know?
data: {name: digits}
backbone: vit
model: {patch_size: 4, depth: 1, dim: 8, heads: 1}
train: {epochs: 1, batch_size: 50}
seeds: [0]
"""
VARIABLE = "CUBLAS_WORKSPACE_CONFIG"


def plan(folder, *overrides: str) -> Plan:
    (folder / "sweep.yaml").write_text(SWEEP)
    return make_plan(read_sweep(folder / "sweep.yaml", overrides))


def test_it_is_execution_and_not_identity(tmp_path):
    """The launch has it, off by default; the plan is the same plan."""
    usual, asked = plan(tmp_path), plan(tmp_path, "deterministic=true")
    launches = [draft_launch(each, SweepFolder(tmp_path), cluster="local", workers=1) for each in (usual, asked)]
    assert [launch.deterministic for launch in launches] == [False, True]
    assert usual.runs == asked.runs
    with pytest.raises(UserError, match="deterministic"):
        plan(tmp_path, "deterministic=sometimes")


@pytest.fixture
def chosen(monkeypatch):
    """The devices chosen by workers of this process, on a machine that seems to have a GPU."""
    found, journals = [], []

    def choose(*asked, **options):
        found.append(device.choose_device(*asked, **options))
        return found[-1]

    def opened(*place, **life):
        writer, journal = open_journal(*place, **life)
        journals.append(journal)
        return writer, journal

    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name != VARIABLE})
    monkeypatch.setattr(Stop, "listen", lambda self: None)
    monkeypatch.setattr(device, "find_cuda_fault", lambda: None)
    monkeypatch.setattr(runner, "choose_device", choose)
    monkeypatch.setattr(worker_process, "open_journal", opened)
    yield found
    for journal in journals:  # a worker never closes its files, since its process ends with it
        journal.close()


def run_worker(folder, *, deterministic: bool) -> str:
    """Run a worker whose share is empty."""
    made = Launch(
        "launch",
        "slurm",
        plan="p",
        code=code_hash(),
        tasks=1,
        tasks_per_job=1,
        device="cuda",
        provenance={},
        deterministic=deterministic,
        execution=Execution("cuda", torch.get_num_threads(), None),
    )
    write_launch(SweepFolder(folder), made, [[]])
    return Task(str(folder), "launch", job=0, restart=0)()


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_worker_chooses_as_its_launch_says(tmp_path, chosen, deterministic):
    """The variable is set before the device is chosen, or the choice would be refused; other workers don't get it."""
    assert run_worker(tmp_path, deterministic=deterministic) == FINISHED
    assert [choice.deterministic for choice in chosen] == [deterministic]
    assert (VARIABLE in os.environ) == deterministic


def test_a_users_own_workspaces_are_kept(tmp_path, chosen):
    """But those with which products aren't reproducible are refused."""
    os.environ[VARIABLE] = ":16:8"
    assert run_worker(tmp_path, deterministic=True) == FINISHED and os.environ[VARIABLE] == ":16:8"
    os.environ[VARIABLE] = ":0:0"
    with pytest.raises(SystemExit):
        run_worker(tmp_path / "other", deterministic=True)


def test_a_worker_waits_for_files_that_another_host_has_written(tmp_path, chosen, monkeypatch):
    """Network file systems show them seconds late: launch.json, the list of runs and the share, one after the other."""
    folder, late = SweepFolder(tmp_path / "late"), []
    written = SweepFolder(tmp_path / "written")
    run_worker(written.path, deterministic=False)

    def sleep(_seconds: float) -> None:
        late.append(("launch.json", "runs.json", "shares/0.json")[len(late)])
        path = folder.launches / "launch" / late[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((written.launches / "launch" / late[-1]).read_bytes())

    folder.path.mkdir()
    monkeypatch.setattr("study.records.sweep_folder.time.sleep", sleep)
    assert Task(str(folder.path), "launch", job=0, restart=0)() == FINISHED
    assert late == ["launch.json", "runs.json", "shares/0.json"]


def test_a_worker_whose_launch_never_comes_says_so(tmp_path, chosen, monkeypatch):
    """After a while the missing file is named."""
    monkeypatch.setattr("study.records.sweep_folder.LATE_FILES_S", 0.0)
    with pytest.raises(UserError, match=r"launch\.json: this file is missing"):
        Task(str(tmp_path), "launch", job=0, restart=0)()

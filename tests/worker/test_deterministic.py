"""`deterministic: true` reaches every worker before torch uses its GPU, and no run's identity."""

from __future__ import annotations

import os

import pytest
import torch

from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.launcher.assignment import new_launch
from study.planning.sweep_plan import Plan, make_plan
from study.records.journal import open_journal
from study.records.ledger import Launch, write_launch
from study.records.sweep_folder import SweepFolder
from study.training import device
from study.worker import runner as trainer
from study.worker import worker_process as worker
from study.worker.worker_process import FINISHED, Stop, Task, work

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


def test_it_is_how_runs_are_executed_and_not_which_runs_they_are(tmp_path):
    """The launch carries it, off unless asked for; the plan is the same plan."""
    usual, asked = plan(tmp_path), plan(tmp_path, "deterministic=true")
    launches = [new_launch(each, SweepFolder(tmp_path), cluster="local", workers=1) for each in (usual, asked)]
    assert [launch.deterministic for launch in launches] == [False, True]
    assert usual.runs == asked.runs
    with pytest.raises(UserError, match="deterministic"):
        plan(tmp_path, "deterministic=sometimes")


@pytest.fixture
def chosen(monkeypatch):
    """What workers of this process choose, on a machine that seems to have a GPU."""
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
    monkeypatch.setattr(trainer, "choose_device", choose)
    monkeypatch.setattr(worker, "open_journal", opened)
    yield found
    for journal in journals:  # a worker's end is its process's end, which closes all files
        journal.close()


def worked(folder, *, deterministic: bool) -> str:
    """The life of a worker whose share is empty."""
    made = Launch(
        "launch",
        "slurm",
        plan="p",
        code="c",
        tasks=1,
        tasks_per_job=1,
        device="cuda",
        provenance={},
        deterministic=deterministic,
    )
    write_launch(SweepFolder(folder), made, [[]])
    return work(Task(str(folder), "launch", job=0, restart=0, threads=torch.get_num_threads()))


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_worker_chooses_as_its_launch_says(tmp_path, chosen, deterministic):
    """The variable stands before the device is chosen, or the choice would be refused; nobody else's worker gets it."""
    assert worked(tmp_path, deterministic=deterministic) == FINISHED
    assert [choice.deterministic for choice in chosen] == [deterministic]
    assert (VARIABLE in os.environ) == deterministic


def test_a_users_own_workspaces_stay(tmp_path, chosen):
    """And those with which products aren't reproducible are refused in words."""
    os.environ[VARIABLE] = ":16:8"
    assert worked(tmp_path, deterministic=True) == FINISHED and os.environ[VARIABLE] == ":16:8"
    os.environ[VARIABLE] = ":0:0"
    with pytest.raises(SystemExit):
        worked(tmp_path / "other", deterministic=True)

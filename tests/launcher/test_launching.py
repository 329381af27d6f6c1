"""What a launch submits, in which parts, its messages when Slurm rejects jobs, and that no run is ever assigned twice."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from scenarios import LONG, Site, Twins, scenario, sweep
from slurm_cluster import Rack, SlurmCluster

from study.records import load_study
from study.records.looks import read_looks


@scenario
def test_two_launches_at_once(site: Site) -> None:
    """Started at the same moment, one gets the runs and the other finds them owned."""
    site.set(sbatch={"hold": True})
    launches = [site.start("launch --workers 2"), site.start("launch --workers 2")]
    assert [command.wait() for command in launches] == [0, 0]
    printed = sorted(command.printed for command in launches)
    assert sum("2 to train, 0 recorded" in text for text in printed) == 1
    assert sum("0 to train, 0 recorded, 2 owned by live workers" in text for text in printed) == 1
    site.release()
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()


@pytest.mark.slow
@scenario
def test_a_launch_killed_before_each_of_its_acts(site: Site) -> None:
    """Killed before its n-th rename or started program, for every n, a launch leaves nothing that the next can't finish.

    Until sbatch has been called all runs are unassigned; after that its jobs own them, though they may lack what they need to
    start: then they are cancelled here, and their runs are unassigned again.
    """
    ends, acts = [], 0
    while -signal.SIGKILL in ends or not ends:
        acts += 1
        command = site.start("launch --settled", die_at=acts)
        ends = [command.wait()]
        if site.jobs() and ends == [-signal.SIGKILL]:
            site.type("cancel --yes")
            site.await_jobs_end()
    assert acts > 10, "a launch has more lasting acts than that"
    assert ends == [0]
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()


@scenario
def test_rejected_submissions_show_slurms_message(site: Site) -> None:
    """A partition that doesn't exist: Slurm's message, the script, status 2, and no run is owned."""
    printed = site.type("launch --set partition=nowhere", status=2)
    assert "Invalid partition name specified" in printed
    assert "#SBATCH --partition=nowhere" in printed and "Traceback" not in printed
    assert site.status()["missing"][0]["reason"] == "its worker was never submitted"
    site.type("launch --wait")
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()


@scenario
def test_nothing_is_launched_while_liveness_is_unknown(site: Site) -> None:
    """If squeue fails, launch, cancel and status refuse with its message."""
    broken = site.folder / "bin"
    broken.mkdir()
    (broken / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1\n")
    (broken / "squeue").chmod(0o755)
    site.set(sbatch={"hold": True})
    site.type("launch --limit 1")
    path = f"{broken}:{os.environ['PATH']}"
    for words in ("launch", "launch --dry-run", "cancel --yes", "status"):
        printed = site.type(words, status=2, PATH=path)
        assert "Unable to contact slurm controller" in printed and "it is unknown which workers are alive" in printed
    assert len(site.runs.launch_ids()) == 1
    site.type("launch")
    site.release()
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()


@scenario
def test_a_silent_controller_is_no_reason_to_train_here(site: Site) -> None:
    """Where Slurm is configured but down, `auto` refuses instead of training on what may be a login node."""
    conf = site.folder / "slurm.conf"
    text = (site.rack.cluster.folder / "slurm.conf").read_text()
    conf.write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", text))
    printed = site.type("launch", status=2, SLURM_CONF=str(conf))
    assert "doesn't answer" in printed and "--cluster local" in printed
    assert not site.runs.path.exists()


@scenario
def test_a_launch_inside_a_job_leaks_nothing(site: Site) -> None:
    """Variables of the job that a launch runs in, and defaults of Slurm's commands, change neither jobs nor liveness.

    Nor does a profile that exports nothing: workers are started with their script's environment.
    """
    site.set(sbatch={"hold": True, "export": "NONE"})
    leaking = {
        "SBATCH_JOB_NAME": "mine",
        "SBATCH_PARTITION": "nowhere",
        "SQUEUE_PARTITION": "nowhere",
        "SLURM_NTASKS": "7",
        "SLURM_JOB_ID": "1",
        "SLURM_MEM_PER_CPU": "1",
        "SQUEUE_FORMAT": "%i",
        "SLURM_TIME_FORMAT": "relative",
    }
    command = site.start("launch", **leaking)
    assert command.wait() == 0, command.printed
    command = site.start("launch", **leaking)
    assert command.wait() == 0 and "2 owned by live workers" in command.printed, command.printed
    site.release()
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()


@scenario
def test_more_workers_join(site: Site) -> None:
    """A further launch gets the runs that no live worker owns: those left out before, and those added to the plan."""
    site.write(sweep(epochs=2, seeds=2))
    site.set(sbatch={"hold": True})
    site.type("launch --where backbone=vit")
    assert "1 to train, 0 recorded, 2 owned by live workers, 1 not selected" in site.type("launch --limit 1")
    assert "3 to train, 0 recorded, 3 owned by live workers" in site.type("launch seeds=[0,1,2]")
    site.release()
    site.await_jobs_end()
    site.write(sweep(epochs=2, seeds=3))
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()


@scenario
def test_pending_runs_are_reassigned(site: Site) -> None:
    """--rebalance cancels pending jobs and leaves running ones alone."""
    site.write(sweep(epochs=20, seeds=3))
    site.set(workers=3, array_parallelism=1)
    site.type("launch")
    site.await_training()
    assert sum("PENDING" in line for line in site.rack.jobs()) == 2
    printed = site.type("launch --rebalance --workers 2 --set array_parallelism=2")
    assert "cancelled 2 pending jobs" in printed and "4 to train, 0 recorded, 2 owned" in printed
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()


@scenario
def test_a_limit_on_submitted_jobs_leaves_the_rest(site: Site) -> None:
    """A QOS that accepts three jobs gets three of five; the launch says so, and the next one submits the others."""
    site.write(sweep(epochs=2, seeds=3))
    qos = f"three-{site.rack.number}"
    for words in (f"add qos {qos} maxsubmitjobsperuser=3", f"modify user {getpass.getuser()} set qos+={qos}"):
        site.rack.cluster.run("sacctmgr", "--immediate", "--quiet", *words.split())
    site.set(workers=5, qos=qos)
    printed = site.type("launch")
    assert "2 of 5 jobs are left for the next launch" in printed and "QOSMaxSubmitJobPerUserLimit" in printed
    assert "its worker never started" in {group["reason"] for group in site.status()["missing"]}
    site.await_jobs_end()
    site.type("launch --settled --wait")
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()


@scenario
def test_the_report_is_written_after_the_jobs_have_ended_however_they_ended(site: Site) -> None:
    """A dependent job writes it after a cancelled array, and again after the next launch."""
    site.write(LONG)
    site.type("launch --report")
    site.await_training()
    [running] = site.status()["running"]
    site.rack.cluster.run("scancel", running["job"])
    report = site.folder / "runs/sweep/report/report.md"
    site.eventually(report.exists, what="the report")
    site.await_jobs_end()
    before = report.read_text()
    printed = site.type("launch --settled --report --wait")
    assert "the report, after these jobs have ended" in printed
    site.await_jobs_end()
    assert report.read_text() != before
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()


def tuned(sweep: str) -> str:
    """The sweep with a search over two learning rates: one of them is selected, at an end, so there is another round."""
    return sweep.replace(", lr: 3e-3", "") + "tune: {axes: {train.lr: [1e-3, 1e-2]}, seeds: [100]}\n"


@pytest.mark.slow
@scenario
def test_the_final_stage_follows_the_trials(site: Site) -> None:
    """One launch of a tuned sweep runs all rounds of trials, final runs and report, with the sweep as it was launched."""
    asked = tuned(site.sweep)
    site.write(asked)
    assert "the 4 final runs, after these jobs have ended" in site.type("launch --report seeds=[0,1]")
    (site.folder / "sweep.yaml").write_text("edited while jobs are queued")
    site.eventually((site.folder / "runs/sweep/report/report.md").exists, what="the report")
    site.await_jobs_end()
    site.write(asked.replace("seeds: [0]", "seeds: [0, 1]"))
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()
    commits = {json.dumps(record["provenance"]["commit"]) for record in site.records()}
    widened = load_study(site.runs.path).times_widened
    assert len(commits) == 1 and widened >= 1 and len(site.runs.launch_ids()) == 2 + widened


@scenario
def test_no_final_stage_without_all_trials(site: Site) -> None:
    """Cancelled trials are not trained again without being asked: the final stage says so and ends."""
    site.write(tuned(site.sweep))
    site.set(sbatch={"hold": True})
    assert "the 2 final runs, after these jobs have ended" in site.type("launch")
    [launched] = site.runs.launch_ids()
    site.rack.cluster.run("scancel", f"--name=study.{launched}.0")
    log = site.runs.launches / launched / "jobs/next.log"
    site.eventually(lambda: log.exists() and "no further run is launched" in log.read_text(), what="the final stage's message")
    site.await_jobs_end()
    assert not site.runs.selection.exists() and len(site.runs.launch_ids()) == 1


@pytest.mark.slow
@scenario
def test_seeds_follow_each_look(site: Site) -> None:
    """One launch takes look after look by jobs that wait, as one on this machine does by itself, and then writes the report."""
    site.write(site.sweep.replace("seeds: [0]", "seeds: {until: decided, from: 3, to: 4, step: 1}"))
    assert "look 1 of 2, after which further seeds follow" in site.type("launch --report")
    site.eventually((site.folder / "runs/sweep/report/report.md").exists, what="the report")
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()
    assert len(read_looks(site.runs)) == len(site.runs.launch_ids())


@scenario
def test_edits_while_jobs_are_queued_change_nothing(site: Site) -> None:
    """Workers run the package as it was launched, whatever the working folder contains; the record has its hash."""
    site.set(sbatch={"hold": True})
    site.type("launch")
    [code] = site.runs.code.iterdir()
    (site.folder / "study").mkdir()
    (site.folder / "study/__init__.py").write_text("raise SystemExit('this is not what was launched')")
    site.release()
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    assert {record["provenance"]["code"] for record in site.records()} == {code.name}


@pytest.mark.slow
@scenario
def test_two_hundred_runs_on_four_gpus(site: Site) -> None:
    """All recorded once, each worker with a GPU of its own."""
    site.write(sweep(epochs=1, seeds=100))
    site.set(workers=4, gpus_per_node=1)
    site.type("launch --wait")
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()
    assert len(site.records()) == 200


@scenario
def test_the_script_is_shown_and_nothing_is_written(site: Site) -> None:
    """--dry-run shows the sbatch script, and leaves neither a job nor a file."""
    site.set(account="research", setup=["module() { :; }", "module load cuda"], sbatch={"nice": 5, "exclusive": True})
    before = site.files()
    printed = site.type("launch --dry-run --workers 2 --set time=1:30:00 --set gpus_per_node=4")
    assert "#SBATCH --gpus-per-node=1\n" in printed  # a run that one process trains can use one
    for line in ("--account=research", "--array=0-1%2", "--time=90", "--nice=5", "--exclusive\n", "--mem=1024MB", "--requeue"):
        assert f"#SBATCH {line}" in printed
    assert "module load cuda" in printed and "2 to train" in printed
    assert site.files() == before
    assert not site.jobs()


def counted(folder: Path, *programs: str) -> str:
    """A PATH on which calls of these programs are counted, a line each, in `folder/PROGRAM.calls`."""
    folder.mkdir()
    for program in programs:
        shim = f'#!/bin/sh\necho $$ >> {folder}/{program}.calls\nexec {shutil.which(program)} "$@"\n'
        (folder / program).write_text(shim)
        (folder / program).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def calls(folder: Path, program: str) -> int:
    path = folder / f"{program}.calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.xdist_group("launch")
def test_arrays_are_split_to_what_the_cluster_allows(new_slurm_cluster: Callable[..., SlurmCluster], tmp_path: Path) -> None:
    """45 workers at an array limit of 10: five sbatch calls, one squeue call to see them all, no accounting; a sixth array
    would exceed the limit on jobs, so a further launch has fewer workers. All of them are cancelled by their names.
    """
    cluster = new_slurm_cluster("--nodes=1", "--racks=1", "--no-accounting", "--max-array-size=10", "--max-job-count=48")
    site = Site(tmp_path, Rack(cluster, 1), Twins(tmp_path), sweep(epochs=1, seeds=23), {"sbatch": {"hold": True}})
    path = counted(tmp_path / "bin", "sbatch", "squeue", "sacct")
    site.type("launch --workers 45 --limit 45", PATH=path)
    assert (calls(tmp_path / "bin", "sbatch"), calls(tmp_path / "bin", "squeue")) == (5, 1)
    assert len(site.jobs()) == 45
    status = json.loads(site.type("status --json", PATH=path))
    assert (calls(tmp_path / "bin", "squeue"), calls(tmp_path / "bin", "sacct")) == (2, 0)
    assert (len(status["queued"]), len(status["missing"]), status["pending_jobs"]) == (45, 1, {"JobHeldUser": 45})
    assert "Slurm accepts 2 more jobs (MaxJobCount): launching 2 workers" in site.type(
        "launch seeds=[0,1,2,3,4,5,6,23,24] --workers 9"
    )
    site.type("cancel --yes")
    site.await_jobs_end()
    assert "46 to train" in site.type("launch --dry-run")

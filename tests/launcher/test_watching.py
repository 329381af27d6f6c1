"""What a user sees of an active sweep, and that cancelling affects this sweep only, and no record."""

from __future__ import annotations

import json
import os

from scenarios import LONG, SHORT, Site, scenario, sweep

WRITTEN_BY_WORKERS = ("journals", "progress", "records", "checkpoints", "jobs", "__pycache__")


@scenario
def test_status_of_a_running_run(site: Site) -> None:
    """Status shows epoch, speed, time left, job and node of running runs, how many are queued, and changes nothing."""
    site.write(LONG)
    site.type("launch")
    site.await_training()
    files = site.files(without=WRITTEN_BY_WORKERS)
    status = site.status()
    [running] = status["running"]
    assert running["job"] == site.jobs()[0] and running["node"] == site.node() and running["age_seconds"] < 60
    assert 1 <= running["epoch"] <= running["epochs"] == 30 and running["images_per_second"] > 0
    assert len(status["queued"]) == 1 and not status["missing"]
    screen = site.type("status")
    for part in (f"{running['run_id']}  epoch", "images/s", f"job {running['job']} on {running['node']}"):
        assert part in screen
    assert site.files(without=WRITTEN_BY_WORKERS) == files
    site.await_jobs_end()
    files = site.files()
    assert "2 of 2 runs done" in site.type("status")
    assert site.files() == files
    site.assert_same_as_undisturbed()


@scenario
def test_a_gpu_that_torch_cannot_use(site: Site) -> None:
    """With `device: auto` a worker that has a GPU refuses before it touches a run; launch and status say why."""
    site.set(workers=2, gpus_per_node=1)
    site.write(SHORT.replace("device: cpu", "device: auto"))
    printed = site.type("launch --wait", status=1)
    assert "its worker refused" in printed and "CUDA requested but unavailable" in printed
    site.await_jobs_end()
    assert not site.notes("begin") and not site.records()
    assert [note["event"] for note in site.notes()] == ["start", "refused"] * 2
    status = site.status()
    assert sum(len(group["runs"]) for group in status["missing"]) == 2 and not status["settling"]
    assert "CUDA_VISIBLE_DEVICES=" in site.type("status")
    site.type("launch --set gpus_per_node=0 --wait")
    site.assert_same_as_undisturbed()


@scenario
def test_pending_jobs_are_shown_with_their_reason(site: Site) -> None:
    """Slurm's reason is in JSON and on the screen."""
    site.set(workers=2, sbatch={"hold": True})
    site.type("launch")
    assert site.status()["pending_jobs"] == {"JobHeldUser": 2}
    files = site.files()
    assert "queued   2 runs; 2 jobs in Slurm's queue: JobHeldUser 2" in site.type("status")
    assert site.files() == files
    site.release()
    site.await_jobs_end()
    site.assert_same_as_undisturbed()


@scenario
def test_cancelling_a_part(site: Site) -> None:
    """A worker with other runs saves the cancelled one and trains the others; the next launch resumes at that step."""
    site.write(LONG)
    site.type("launch")
    site.await_training()
    [running] = site.status()["running"]
    backbone = running["run_id"].split("-")[0]
    printed = site.type(f"cancel --yes --where backbone={backbone}")
    assert "1 run, 1 of them in training; 1 job continues with other runs" in printed
    site.await_jobs_end()
    assert [record["run_id"] for record in site.records()] != [running["run_id"]] and len(site.records()) == 1
    [group] = site.status()["missing"]
    assert (group["runs"], group["reason"]) == ([running["run_id"]], "cancelled")
    site.type("launch --wait")
    assert site.notes("begin")[-1]["step"] > 0
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()


@scenario
def test_cancelling_all(site: Site) -> None:
    """Every job of this sweep and none of another; without a terminal --yes is required; records and checkpoints stay."""
    site.write(sweep(epochs=30, seeds=2))
    site.set(workers=2, array_parallelism=1)
    other = site.rack.submit("sleep 300", "--output=/dev/null", "--job-name=study.other.0")
    site.type("launch --report")
    site.await_training()
    assert "no terminal to confirm on; use --yes" in site.type("cancel", status=2)
    assert len(site.jobs()) == 4  # the other one, two workers, the report
    assert "cancelled 4 runs, 1 of them in training" in site.type("cancel --yes")
    site.eventually(lambda: site.jobs() == [other], what="the end of all jobs of this sweep")
    site.rack.cluster.run("scancel", other)
    assert list(site.runs.checkpoints.iterdir())
    assert "no matching runs are queued or running" in site.type("cancel --yes")
    site.type("launch --wait")  # at once: cancelled runs need no settling
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()
    assert any(note["step"] > 0 for note in site.notes("begin"))


@scenario
def test_cancelling_local_workers(site: Site) -> None:
    """Workers on this machine stop as well, and the launch that started them ends in order."""
    site.write(sweep(epochs=100))
    workers = f"--workers {len(os.sched_getaffinity(0))}"  # of one thread each
    launch = site.start(f"launch --cluster local {workers}")
    site.await_training()
    assert "cancelled 2 runs" in site.type("cancel --yes")
    assert launch.wait() == 0
    assert not site.records() and {note["reason"] for note in site.notes("stop")} == {"cancelled"}
    assert {note["reason"] for note in site.notes("exit")} == {"share finished"}
    site.type(f"launch --cluster local {workers}")
    site.assert_same_as_undisturbed()


@scenario
def test_mistakes_on_the_command_line(site: Site) -> None:
    """Each mistake is reported with its place and the valid choices, and nothing is started."""
    mistakes = {
        "launch --set partitin=low": "did you mean 'partition'?",
        "launch --set time=soon": "time",
        "launch --set time=1 --set signal_delay_s=60": "at most half of time",
        "launch --set sbatch.job_name=mine": "the launcher sets these itself",
        "launch --where backbone=vitt": "did you mean 'vit'?",
        "launch --where backbon=vit": "did you mean 'backbone'?",
        "launch --where vit": "expected COLUMN=VALUE",
        "launch --cluster local --rebalance": "needs Slurm",
        "launch device=cuda": "the profile requests no GPU",
        "status": "nothing has been launched here yet",
        "cancel": "nothing has been launched here yet",
    }
    for words, message in mistakes.items():
        printed = site.type(words, status=2)
        assert message in printed and "Traceback" not in printed, printed
    assert not site.jobs() and not site.runs.launches.exists()


@scenario
def test_watching_ends_when_no_run_is_active(site: Site) -> None:
    """--watch in a log prints one screen after the other and leaves by itself; --wait shows one line per run."""
    printed = site.type("launch --wait")
    assert "[1/2] " in printed and "[2/2] " in printed and "jobs: " in printed
    assert site.type("status --watch").count("2 of 2 runs done") == 1
    assert json.loads(site.type("status --json"))["planned"] == 2
    site.assert_same_as_undisturbed()

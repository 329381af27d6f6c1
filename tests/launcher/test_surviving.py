"""Whatever a cluster does to workers, the sweep ends as its undisturbed local twin, bit for bit, and no run appears twice."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenarios import LONG, Site, scenario, sweep


def slurmd_of(site: Site, node: str) -> int:
    """The process that plays a node."""
    return int((site.rack.cluster.folder / "run" / node).read_text().split()[0])


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that neither answers nor ends."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@scenario
def test_an_undisturbed_sweep(site: Site) -> None:
    """Two jobs with a GPU each finish their shares; everything is recorded once, and nothing is left to start."""
    site.python = sys.executable  # once without the proxies of `preloaded_python`
    site.set(workers=2, gpus_per_node=1, sbatch={"hold": True})
    printed = site.type("launch")
    assert "2 jobs" in printed and "python -m study.status" in printed
    assert "2 owned by live workers" in site.type("launch")
    site.release()
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()
    assert "Nothing is left to start" in site.type("launch")


@scenario
def test_preemption(site: Site) -> None:
    """A preempted worker saves at a step's end, comes back after the high job, and goes on from that very step."""
    site.write(LONG)
    site.type("launch")
    site.await_training()
    site.rack.submit("sleep 2", f"--partition={site.rack.high}", "--nodes=2", "--exclusive", "--output=/dev/null")
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()
    assert "SIGUSR2" in [note["reason"] for note in site.notes("exit")]
    [stopped, *_] = site.notes("stop")
    assert any(note["run_id"] == stopped["run_id"] and note["step"] > 0 for note in site.notes("begin"))
    assert all(record["provenance"]["exact"] for record in site.records())


@pytest.mark.slow
@scenario
def test_requeued_again_and_again(site: Site) -> None:
    """A worker that is sent back more often than submitit's three times, at any moment of its life, still finishes."""
    site.write(LONG)
    site.type("launch")
    for times in range(5):
        site.eventually(lambda times=times: len(site.lives()) > times, what=f"life {times + 1}")
        time.sleep(times)  # on its way through import, loading and training
        site.rack.cluster.run("scontrol", "requeue", site.jobs()[0])
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()


@scenario
def test_cancelled_by_its_user(site: Site) -> None:
    """After scancel a worker saves; its runs settle for two minutes, then the next launch resumes them."""
    site.write(LONG)
    site.type("launch")
    site.await_training()
    site.rack.cluster.run("scancel", site.jobs()[0])
    site.await_jobs_end()
    assert "2 settling" in site.type("launch")
    assert site.status()["settling"]
    site.type("launch --settled --wait")
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()
    assert any(note["step"] > 0 for note in site.notes("begin"))


@scenario
def test_killed_without_warning(site: Site) -> None:
    """After kill -9 in the middle of a run the job requeues itself, and its next life finishes the share."""
    site.write(LONG)
    site.type("launch")
    site.await_training()
    site.kill_workers()
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()
    assert len(site.lives()) == 2


@pytest.mark.slow
@scenario
def test_a_run_that_kills_its_worker_each_time(site: Site) -> None:
    """It's recorded as failed after three crashes, the share continues, and --retry failed trains it again."""
    site.write(LONG)
    site.type("launch")
    killed = 0
    while not any(record["status"] == "failed" for record in site.records()):
        first = site.notes("begin")[:1]
        if first and sum(note["run_id"] == first[0]["run_id"] for note in site.notes("begin")) > killed:
            site.kill_workers()
            killed += 1
        time.sleep(0.1)
        assert killed <= 3
    site.await_jobs_end()
    [failed] = [record for record in site.records() if record["status"] == "failed"]
    assert failed["reason"].startswith("crashed its worker 3 times")
    assert len(site.status()["failed"]) == 1 and len(site.status()["done"]) == 1
    assert "1 failed (--retry failed" in site.type("launch --settled")
    site.type("launch --settled --retry failed --wait")
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()


@scenario
def test_a_node_dies(site: Site) -> None:
    """The task starts again on another node and finishes the share there."""
    site.write(LONG)
    site.type("launch")
    site.await_training()
    site.rack.cluster.kill_node(site.node(), noticed=True)
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()
    assert len(site.lives()) == 2


@pytest.mark.slow
@scenario
def test_a_zombie_writes_beside_its_successor(site: Site) -> None:
    """A node is cut off: Slurm starts its task elsewhere, but the old one trains on; both write, each into own files."""
    site.python = sys.executable  # the process that trains, not a proxy, is to be frozen
    site.write(LONG)
    site.type("launch")
    site.await_training()
    node, [zombie] = site.node(), site.processes()
    with frozen(slurmd_of(site, node)):
        with frozen(zombie):
            site.rack.cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=unreachable")
            site.await_training(lives=2)
        site.await_jobs_end()
        site.eventually(lambda: not Path(f"/proc/{zombie}").exists(), what="the zombie's end")
    site.assert_same_as_undisturbed()
    lives = {record["provenance"]["restart"] for record in site.records()}
    assert len(lives) == 2 and 0 in lives  # a busy machine may take a node from the successor too


@scenario
def test_signals_before_anyone_listens(site: Site) -> None:
    """A signal in the first second of a job, while Python still starts, neither fails it nor loses it."""
    site.python = sys.executable
    site.write(LONG)
    site.type("launch")
    site.eventually(lambda: any("RUNNING" in line for line in site.rack.jobs()), what="the job's start")
    for name in ("USR2", "TERM", "USR2"):
        site.rack.cluster.run("scancel", f"--signal={name}", site.jobs()[0])
        time.sleep(0.2)
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()


@scenario
def test_workers_that_share_a_gpu(site: Site) -> None:
    """Two workers of one job have shares of their own; one death requeues the job, and the other loses nothing."""
    site.write(LONG)
    site.set(workers=2, workers_per_gpu=2, gpus_per_node=1)
    assert "1 job," in site.type("launch")
    site.eventually(lambda: len(site.said()) == 2, what="both workers in training")
    os.kill(site.processes()[0], signal.SIGKILL)
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()
    assert {(life.task, life.restart) for life in site.lives()} == {(0, 0), (1, 0), (0, 1), (1, 1)}


@pytest.mark.slow
@scenario
def test_time_limit(site: Site) -> None:
    """A job of one minute is signaled half a minute before its end, requeues itself, and finishes."""
    site.write(sweep(epochs=150))
    site.set(time=1, signal_delay_s=30)
    site.type("launch")
    site.eventually(lambda: len(site.lives()) > 1, what="a second life")
    site.eventually(lambda: not site.rack.jobs(), what="the end of all jobs")
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()
    assert "SIGUSR2" in [note["reason"] for note in site.notes("exit")]


@pytest.mark.slow
@scenario
def test_a_dead_node_is_noticed_without_help(site: Site) -> None:
    """The controller finds the silence by itself, and until then the run stays owned."""
    site.write(LONG)
    site.type("launch")
    site.await_training()
    site.rack.cluster.kill_node(site.node())
    assert "owned by live workers" in site.type("launch")
    site.await_jobs_end()
    site.assert_same_as_undisturbed()
    site.assert_recorded_once()

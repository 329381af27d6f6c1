"""The throwaway cluster is a real Slurm: it assigns GPUs, requeues, preempts, loses nodes, and can be removed completely."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_cluster import DEVCLUSTER, NODES_PER_RACK, RACKS, Rack, SlurmCluster, eventually

# A task's lines: its node, its GPU, how often it was requeued; one for each start.
PRINT_PLACE = "echo $SLURMD_NODENAME ${CUDA_VISIBLE_DEVICES-none} ${SLURM_RESTART_COUNT-0}"
REQUEUES_ON_USR2 = """
import os, signal, subprocess, time
def requeue(number, frame):
    print("heard", flush=True)
    subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]])
signal.signal(signal.SIGUSR2, requeue)
print("started", os.environ.get("SLURM_RESTART_COUNT", 0), flush=True)
time.sleep(600)
"""
NewCluster = Callable[..., SlurmCluster]


def output_lines(folder: Path) -> list[list[str]]:
    """The words of each complete line that tasks have printed."""
    lines = [line for file in folder.glob("*.out") for line in file.read_text().splitlines(keepends=True)]
    return [line.split() for line in lines if line.endswith("\n")]


def output_options(folder: Path) -> tuple[str, ...]:
    return "--requeue", "--open-mode=append", f"--output={folder}/%A_%a.out", f"--error={folder}/%A_%a.err"


def is_alive(pid: int) -> bool:
    """False also for a zombie that its parent has not waited for."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def run_devcluster(*words: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(DEVCLUSTER), *words]
    return subprocess.run(line, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)


def test_all_nodes_take_jobs_and_the_user_has_an_account(slurm_cluster: SlurmCluster) -> None:
    """Every node answers the controller, and the database knows an account to submit under."""
    nodes = slurm_cluster.run("sinfo", "--noheader", "--Node", "--partition=low", "--format=%N").split()
    assert len(set(nodes)) == RACKS * NODES_PER_RACK
    assert "research" in slurm_cluster.run("sacctmgr", "--noheader", "show", "associations", "format=account")


def test_tasks_of_an_array_have_a_gpu_each(rack: Rack, tmp_path: Path) -> None:
    """As many tasks as GPUs run at once, no two of them see the same one, and all stay on the rack's nodes."""
    script = f"{PRINT_PLACE}; while [ $(cat {tmp_path}/*.out | wc -l) -lt 8 ]; do sleep 0.1; done"
    rack.submit(script, "--array=1-8", "--gres=gpu:1", *output_options(tmp_path))
    eventually(lambda: not rack.jobs(), what="the end of eight tasks that wait for each other")
    assert sorted(output_lines(tmp_path)) == [[node, str(gpu), "0"] for node in rack.nodes for gpu in range(4)]


def test_a_requeued_job_starts_again(rack: Rack, tmp_path: Path) -> None:
    """It is the same job and knows that it was restarted. (How soon it is: benchmarks/time_limits.py.)"""
    job = rack.submit(f"{PRINT_PLACE}; exec sleep 600", *output_options(tmp_path))
    eventually(lambda: output_lines(tmp_path), what="the first start")
    rack.cluster.run("scontrol", "requeue", job)
    eventually(lambda: len(output_lines(tmp_path)) == 2, what="the second start")
    assert [restarts for _, _, restarts in output_lines(tmp_path)] == ["0", "1"]


def test_a_preempted_job_gets_its_signal_and_is_requeued(rack: Rack, tmp_path: Path) -> None:
    """A preempted task gets the signal that it asked for, may requeue its job, and starts again after the job in `high`."""
    (tmp_path / "task.py").write_text(REQUEUES_ON_USR2)
    script = f"srun --unbuffered {sys.executable} {tmp_path}/task.py"
    rack.submit(script, f"--nodelist={rack.nodes[0]}", "--exclusive", "--signal=USR2@60", *output_options(tmp_path))
    eventually(lambda: output_lines(tmp_path), what="the low job")
    rack.submit("true", f"--nodelist={rack.nodes[0]}", "--exclusive", f"--partition={rack.high}", f"--output={tmp_path}/high")
    eventually(lambda: len(output_lines(tmp_path)) == 3, what="the low job's return")
    assert output_lines(tmp_path) == [["started", "0"], ["heard"], ["started", "1"]]
    assert (tmp_path / "high").exists()


def test_a_task_of_a_dead_node_starts_on_another(rack: Rack, tmp_path: Path) -> None:
    """Every process of the node is gone, also one that left its job's session; the job moves to the other node."""
    stray = f"setsid sleep 601 & echo $$ $! >{tmp_path}/pids; exec sleep 600"
    rack.submit(f"{PRINT_PLACE}; {stray}", *output_options(tmp_path))
    eventually((tmp_path / "pids").exists, what="the task")
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    [[first, *_]] = output_lines(tmp_path)
    rack.cluster.kill_node(first, noticed=True)
    assert not [pid for pid in pids if is_alive(pid)]
    eventually(lambda: len(output_lines(tmp_path)) == 2, what="the second start")
    assert {node for node, *_ in output_lines(tmp_path)} == set(rack.nodes)
    rack.cluster.start_node(first)


@pytest.mark.slow
def test_a_dead_node_is_noticed_by_the_controller_alone(rack: Rack, tmp_path: Path) -> None:
    """Without help the controller sets a silent node to down and requeues its jobs."""
    rack.submit(f"{PRINT_PLACE}; exec sleep 600", *output_options(tmp_path))
    eventually(lambda: output_lines(tmp_path), what="the task")
    [[first, *_]] = output_lines(tmp_path)
    rack.cluster.kill_node(first)
    eventually(lambda: len(output_lines(tmp_path)) == 2, what="the second start", seconds=90)
    assert rack.cluster.node_state(first).startswith("down")


def test_limits_are_what_was_asked_for(new_slurm_cluster: NewCluster) -> None:
    """The highest index of an array is one below the limit, as in Slurm."""
    cluster = new_slurm_cluster("--nodes=1", "--no-accounting", "--max-array-size=11", "--max-job-count=40")
    cluster.submit("true", "--array=0-10", "--output=/dev/null")
    with pytest.raises(AssertionError, match="Invalid job array specification"):
        cluster.submit("true", "--array=0-11", "--output=/dev/null")
    assert "MaxJobCount             = 40" in cluster.run("scontrol", "show", "config")


def test_down_leaves_no_process_and_no_folder(new_slurm_cluster: NewCluster, tmp_path: Path) -> None:
    """Daemons, a task that ignores signals and its stray child are gone; the folder too."""
    cluster = new_slurm_cluster("--nodes=2", "--no-accounting")
    stray = f"trap '' TERM; setsid sleep 601 & echo $$ $! >{tmp_path}/pids; sleep 600; sleep 600"
    cluster.submit(stray, "--export=NONE", "--output=/dev/null")
    eventually((tmp_path / "pids").exists, what="the task")
    notes = [note.read_text() for note in (cluster.folder / "run").iterdir()]
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()] + [int(note.split()[0]) for note in notes]
    assert len(pids) == 2 + 4 and all(is_alive(pid) for pid in pids)
    assert run_devcluster("down", str(cluster.folder)).returncode == 0
    assert not [pid for pid in pids if is_alive(pid)]
    assert not cluster.folder.exists()


def test_a_reused_pid_is_never_killed(new_slurm_cluster: NewCluster) -> None:
    """A noted pid that belongs to a process of another start time is left alone."""
    cluster = new_slurm_cluster("--nodes=1", "--no-accounting")
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (cluster.folder / "run" / "slurmdbd").write_text(f"{bystander.pid} 1")
        assert run_devcluster("down", str(cluster.folder)).returncode == 0
        assert bystander.poll() is None
        bystander.kill()


def test_up_is_all_or_nothing(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    """If a daemon fails, those started before it are stopped; the message names it and the folder of the logs."""
    broken = tmp_path / "slurmctld"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    folder = slurm_cluster.folder.with_name(f"{slurm_cluster.folder.name}-broken")
    answer = run_devcluster("up", str(folder), "--no-accounting", path=f"{tmp_path}:{os.environ['PATH']}")
    assert answer.returncode == 2 and answer.stdout == ""
    assert "slurmctld ended" in answer.stderr and f"{folder}/log" in answer.stderr
    assert (folder / "log" / "munged.out").exists() and not list((folder / "run").iterdir())
    assert run_devcluster("down", str(folder)).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="the whole suite runs as an ordinary user already")
def test_an_ordinary_user_can_have_one(slurm_cluster: SlurmCluster) -> None:
    """Nothing needs root: `nobody` starts a cluster with accounting, runs a job there under its account, and stops it."""
    folder = slurm_cluster.folder.with_name(f"{slurm_cluster.folder.name}-nobody")
    with tempfile.TemporaryDirectory() as code:  # where nobody can read it, and with a Python that nobody can run
        os.chmod(code, 0o755)
        shutil.copytree(DEVCLUSTER, f"{code}/devcluster")
        as_nobody("python3", f"{code}/devcluster", "up", str(folder), "--nodes=1")
        job = ("srun", "--account=research", "--gres=gpu:1", "id", "-un")
        assert as_nobody(*job, conf=f"{folder}/slurm.conf") == "nobody"
        as_nobody("python3", f"{code}/devcluster", "down", str(folder))
    assert not folder.exists()


def as_nobody(*command: str, conf: str = "") -> str:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "SLURM_CONF": conf}
    done = subprocess.run(
        command, user="nobody", group="nogroup", extra_groups=[], env=environment, cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("up {used}", "not empty"),
        ("up {free}/" + "x" * 70, "at most 70 characters"),
        ("up {free},here", "letters, digits"),
        ("up {free} --nodes 0", "at least one node"),
        ("up {free} --nodes 4 --racks 3", "equal racks"),
        ("up {free} --gpus 100000", "character device"),
        ("env {free}", "contains no cluster"),
        ("down {used}", "contains no cluster"),
        ("kill-node {used} n1", "contains no cluster"),
    ],
)
def test_invalid_commands_are_refused_and_change_nothing(words: str, rule: str) -> None:
    """One line on stderr and status 2; a folder that holds something other than a cluster keeps it."""
    with tempfile.TemporaryDirectory() as place:
        used, free = Path(place, "used"), Path(place, "free")
        used.mkdir()
        (used / "thesis.tex").touch()
        answer = run_devcluster(*words.format(used=used, free=free).split())
        assert (answer.returncode, answer.stdout) == (2, "")
        assert rule in answer.stderr and answer.stderr.count("\n") == 1
        assert (used / "thesis.tex").exists() and not free.exists()


def test_missing_programs_are_named_as_debian_packages(tmp_path: Path) -> None:
    """The message is the apt-get command; without accounting it names fewer packages."""
    nothing_installed = (
        f"import runpy, shutil; shutil.which = lambda *_, **__: None; runpy.run_path({str(DEVCLUSTER)!r}, run_name='__main__')"
    )
    for option, packages in (
        ("--gpus=1", "munge slurmctld slurmd slurm-client slurmdbd mariadb-server"),
        ("--no-accounting", "munge slurmctld slurmd slurm-client"),
    ):
        line = [sys.executable, "-c", nothing_installed, "up", "/tmp/none", option]
        answer = subprocess.run(line, capture_output=True, text=True, check=False)
        assert answer.returncode == 2
        assert answer.stderr.endswith(f"apt-get install --no-install-recommends {packages}\n")


def test_nodes_are_killed_and_started_only_once(rack: Rack) -> None:
    """A dead node can't be killed, a running one can't be started, and an unknown one neither."""
    folder, node = str(rack.cluster.folder), rack.nodes[0]
    assert "already running" in run_devcluster("start-node", folder, node).stderr
    assert "no node n99 (valid: n1, " in run_devcluster("kill-node", folder, "n99").stderr
    assert run_devcluster("kill-node", folder, node).returncode == 0
    assert "not running" in run_devcluster("kill-node", folder, node).stderr

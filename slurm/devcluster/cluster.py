"""Starts and stops the daemons of a cluster in the order of their dependencies; kills and boots single nodes."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from cluster_error import ClusterError
from configuration import (
    CLUSTER_NAME,
    Ports,
    Settings,
    find_free_ports,
    is_listening,
    node_names,
    user_name,
    write_configuration,
)
from processes import environment, kill, processes_of, start, stop, wait_until

PROGRAMS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sinfo": "slurm-client"}
ACCOUNTING_PROGRAMS = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server"}


def up(folder: Path, settings: Settings) -> None:
    """Start a cluster and wait until all nodes are idle. If that fails, stop everything; the error names the log folder."""
    settings.check()
    check_folder(folder)
    check_programs(folder, settings)
    try:
        ports = find_free_ports(settings)
        write_configuration(folder, settings, ports=ports)
        start_munge(folder)
        if settings.accounting:
            start_accounting(folder, ports)
        start(folder, "slurmctld", "-D", "-f", f"{folder}/slurm.conf")
        wait_until(lambda: is_listening(ports.controller), what="slurmctld", needs=folder / "run")
        for node in node_names(settings.nodes):
            start_node(folder, node)
        wait_until(lambda: all_idle(folder), what="idle nodes", needs=folder / "run")
    except BaseException as failure:
        stop_all(folder)
        message = failure if isinstance(failure, (ClusterError, OSError, subprocess.SubprocessError)) else repr(failure)
        raise ClusterError(f"{message}; everything was stopped again, logs are in {folder}/log") from failure


def check_programs(folder: Path, settings: Settings) -> None:
    programs = PROGRAMS | (ACCOUNTING_PROGRAMS if settings.accounting else {})
    path = environment(folder)["PATH"]
    missing = {package: None for program, package in programs.items() if not shutil.which(program, path=path)}
    if missing:
        packages = " ".join(missing)
        raise ClusterError(f"Debian packages are missing: apt-get install --no-install-recommends {packages}")


def check_folder(folder: Path) -> None:
    """The folder is empty and its path short and plain: a Unix socket's path has at most 107 bytes, and Slurm adds about 35."""
    if folder.exists() and any(folder.iterdir()):
        raise ClusterError(f"{folder} is not empty (`down` removes a cluster)")
    if len(str(folder)) > 70:
        raise ClusterError(f"{folder}: too long for Unix sockets; choose a path of at most 70 characters")
    if not str(folder).replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ClusterError(f"{folder}: Slurm's configuration allows only letters, digits and / - _ . in paths")


def start_munge(folder: Path) -> None:
    """Start the daemon that authenticates messages. `--force`: it rejects folders that other users can't enter."""
    own = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munged.pid", "seed-file": "munged.seed"}
    files = [f"--{option}={folder}/{name}" for option, name in own.items()]
    start(folder, "munged", "--foreground", "--force", "--num-threads=10", *files)
    wait_until((folder / "munge.sock").exists, what="munged", needs=folder / "run")


def start_accounting(folder: Path, ports: Ports) -> None:
    """Start slurmdbd, which sacct queries, with MariaDB on a private socket; small, and not durable across power cuts."""
    user = user_name()
    own = ["--no-defaults", f"--datadir={folder}/mysql", f"--user={user}", "--innodb-log-file-size=8M"]
    rights = ["--skip-test-db", "--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}"]
    with (folder / "log" / "mariadb-install-db.out").open("wb") as log:
        install = ["mariadb-install-db", *own, *rights]
        subprocess.run(install, env=environment(folder), stdout=log, stderr=log, check=True)
    private = ["--skip-networking", f"--socket={folder}/mysql.sock", f"--pid-file={folder}/mariadbd.pid"]
    start(folder, "mariadbd", *own, *private, "--innodb-flush-log-at-trx-commit=0")
    wait_until((folder / "mysql.sock").exists, what="mariadbd", needs=folder / "run")
    start(folder, "slurmdbd", "-D")
    wait_until(lambda: is_listening(ports.accounting), what="slurmdbd", needs=folder / "run")
    open_account(folder, user)


def open_account(folder: Path, user: str) -> None:
    """Add the current user to an account: without one, ordinary users can't submit jobs."""
    for words in (f"cluster {CLUSTER_NAME}", "account research", f"user {user} account=research"):
        command = ["sacctmgr", "--immediate", "--quiet", "add", *words.split()]
        with (folder / "log" / "sacctmgr.out").open("ab") as log:
            subprocess.run(command, env=environment(folder), stdout=log, stderr=log, check=True)


def all_idle(folder: Path) -> bool:
    query = ["sinfo", "--noheader", "--partition=low", "--format=%t"]
    answer = subprocess.run(query, env=environment(folder), capture_output=True, text=True, check=False)
    return answer.stdout.split() == ["idle"]


def start_node(folder: Path, node: str) -> None:
    """Boot a node. Its working directory is its spool folder, by which `processes_of` finds its slurmstepds."""
    command = ["slurmd", "-D", "-N", node, "-f", f"{folder}/slurm.conf"]
    start(folder, *command, name=node, within=f"spool/{node}")


def kill_node(folder: Path, node: str) -> None:
    """Kill a node suddenly: slurmd first, then the slurmstepds, which would report the end of the tasks, then the tasks."""
    stop(folder / "run" / node)
    while found := sorted(processes_of(folder, node)):
        for _, pid in found:
            kill(pid)
        time.sleep(0.01)


def stop_all(folder: Path) -> None:
    """The controller first, so that it doesn't see nodes fail; munged last, since the others use it."""
    stop(folder / "run" / "slurmctld")
    for spool in (folder / "spool").glob("*"):
        kill_node(folder, spool.name)
    for daemon in ("slurmdbd", "mariadbd", "munged"):
        stop(folder / "run" / daemon)


def down(folder: Path) -> None:
    stop_all(folder)
    shutil.rmtree(folder)

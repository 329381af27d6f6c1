"""A cluster's life in one folder: up in the order in which the daemons need each other, nodes that die and return, down."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from configuration import CLUSTER_NAME, Ports, Settings, free_ports, listens, node_names, user_name, write_configuration
from processes import environment, kill, processes_of, start, stop, wait_until
from refusal import Refused

PROGRAMS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sinfo": "slurm-client"}
ACCOUNTING_PROGRAMS = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server"}


def up(folder: Path, settings: Settings) -> None:
    """All or nothing: a cluster whose nodes are all idle, or no process at all and a word about where the logs are."""
    settings.check()
    check_folder(folder)
    check_programs(folder, settings)
    try:
        ports = free_ports(settings)
        write_configuration(folder, settings, ports=ports)
        start_munge(folder)
        if settings.accounting:
            start_accounting(folder, ports)
        start(folder, "slurmctld", "-D", "-f", f"{folder}/slurm.conf")
        wait_until(lambda: listens(ports.controller), what="slurmctld", needs=folder / "run")
        for node in node_names(settings.nodes):
            start_node(folder, node)
        wait_until(lambda: all_idle(folder), what="idle nodes", needs=folder / "run")
    except BaseException as failure:
        stop_all(folder)
        told = failure if isinstance(failure, (Refused, OSError, subprocess.SubprocessError)) else repr(failure)
        raise Refused(f"{told}; what had started is stopped, its logs are in {folder}/log") from failure


def check_programs(folder: Path, settings: Settings) -> None:
    programs = PROGRAMS | (ACCOUNTING_PROGRAMS if settings.accounting else {})
    path = environment(folder)["PATH"]
    missing = {package: None for program, package in programs.items() if not shutil.which(program, path=path)}
    if missing:
        packages = " ".join(missing)
        raise Refused(f"Debian packages are missing: apt-get install --no-install-recommends {packages}")


def check_folder(folder: Path) -> None:
    """Unused, and with a short, plain path: a Unix socket's name ends at 107 bytes, about 35 of which Slurm adds."""
    if folder.exists() and any(folder.iterdir()):
        raise Refused(f"{folder} is not empty (`down` removes a cluster)")
    if len(str(folder)) > 70:
        raise Refused(f"{folder}: sockets live there, whose names are limited; choose a path of at most 70 characters")
    if not str(folder).replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise Refused(f"{folder}: choose a path of letters, digits and / - _ . alone, as Slurm's configuration reads it")


def start_munge(folder: Path) -> None:
    """The daemon that vouches for who sent a message; forced, since it dislikes a folder that others can't enter."""
    own = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munged.pid", "seed-file": "munged.seed"}
    files = [f"--{option}={folder}/{name}" for option, name in own.items()]
    start(folder, "munged", "--foreground", "--force", "--num-threads=10", *files)
    wait_until((folder / "munge.sock").exists, what="munged", needs=folder / "run")


def start_accounting(folder: Path, ports: Ports) -> None:
    """What sacct asks: slurmdbd, behind it MariaDB on a private socket, small and careless about power cuts."""
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
    wait_until(lambda: listens(ports.accounting), what="slurmdbd", needs=folder / "run")
    open_account(folder, user)


def open_account(folder: Path, user: str) -> None:
    """Without an account in the database an ordinary user may submit nothing."""
    for words in (f"cluster {CLUSTER_NAME}", "account research", f"user {user} account=research"):
        command = ["sacctmgr", "--immediate", "--quiet", "add", *words.split()]
        with (folder / "log" / "sacctmgr.out").open("ab") as log:
            subprocess.run(command, env=environment(folder), stdout=log, stderr=log, check=True)


def all_idle(folder: Path) -> bool:
    query = ["sinfo", "--noheader", "--partition=low", "--format=%t"]
    answer = subprocess.run(query, env=environment(folder), capture_output=True, text=True, check=False)
    return answer.stdout.split() == ["idle"]


def start_node(folder: Path, node: str) -> None:
    """Boots a node. It stands in its spool folder, by which its slurmstepds are found."""
    command = ["slurmd", "-D", "-N", node, "-f", f"{folder}/slurm.conf"]
    start(folder, *command, name=node, within=f"spool/{node}")


def kill_node(folder: Path, node: str) -> None:
    """A node's sudden death: slurmd, then the slurmstepds, which would still report the tasks', then the tasks."""
    stop(folder / "run" / node)
    while found := sorted(processes_of(folder, node)):
        for _, pid in found:
            kill(pid)
        time.sleep(0.01)


def stop_all(folder: Path) -> None:
    """The controller first, so that it sees no node die; munged last, since the others ask it."""
    stop(folder / "run" / "slurmctld")
    for spool in (folder / "spool").glob("*"):
        kill_node(folder, spool.name)
    for daemon in ("slurmdbd", "mariadbd", "munged"):
        stop(folder / "run" / daemon)


def down(folder: Path) -> None:
    stop_all(folder)
    shutil.rmtree(folder)

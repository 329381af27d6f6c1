"""A real Slurm of one's own: throwaway, on loopback, in one folder, as root or an ordinary user, without systemd.

    eval "$(python slurm/devcluster up /dev/shm/slurm)"       from here on sbatch, squeue, sacct, ... talk to it
    python slurm/devcluster kill-node /dev/shm/slurm n2       n2 dies as if its plug were pulled
    python slurm/devcluster start-node /dev/shm/slurm n2      and boots again
    python slurm/devcluster down /dev/shm/slurm               stops what `up` started and removes the folder

Each node is a slurmd on this host and claims CPUs, memory and GPUs that need not exist. Jobs in the partition `low` (the
default) are preempted and requeued by those in `high`. Nothing outside the folder is touched.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cluster import down, kill_node, start_node, up
from configuration import Settings
from processes import is_running
from refusal import Refused


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="devcluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, told in (("up", "start a cluster"), ("env", "print the line to eval"), ("down", "stop and remove it")):
        commands.add_parser(name, help=told).add_argument("folder", type=absolute)
    for name, told in (("kill-node", "SIGKILL to all that runs on a node"), ("start-node", "boot a killed node")):
        command = commands.add_parser(name, help=told)
        command.add_argument("folder", type=absolute)
        command.add_argument("node")
    add_settings(commands.choices["up"])
    return parser.parse_args()


def add_settings(parser: argparse.ArgumentParser) -> None:
    default = Settings()
    parser.add_argument("--nodes", type=int, default=default.nodes, help="slurmd processes, n1, n2, ... (%(default)s)")
    parser.add_argument("--cpus", type=int, default=default.cpus, help="claimed by each node (%(default)s)")
    parser.add_argument("--gpus", type=int, default=default.gpus, help="claimed by each node (%(default)s)")
    parser.add_argument("--racks", type=int, default=default.racks, help="partitions low1, high1, ... of equal parts")
    parser.add_argument("--max-array-size", type=int, default=default.max_array_size, help="as in slurm.conf")
    parser.add_argument("--max-job-count", type=int, default=default.max_job_count, help="as in slurm.conf")
    parser.add_argument("--no-accounting", action="store_false", dest="accounting", help="faster, but without sacct")


def absolute(path: str) -> Path:
    return Path(path).resolve()


def check_cluster(folder: Path) -> None:
    if not ((folder / "slurm.conf").is_file() and (folder / "run").is_dir()):
        raise Refused(f"{folder} holds no cluster (`up` makes one)")


def check_node(folder: Path, node: str, *, running: bool) -> None:
    nodes = sorted(path.name for path in (folder / "spool").iterdir())
    if node not in nodes:
        raise Refused(f"there is no node {node} (valid: {', '.join(nodes)})")
    note = folder / "run" / node
    if running != (note.exists() and is_running(note)):
        raise Refused(f"{node} is {'not running' if running else 'running already'}")


def execute(given: argparse.Namespace) -> None:
    folder: Path = given.folder
    if given.command == "up":
        values = {name: value for name, value in vars(given).items() if name not in ("command", "folder")}
        up(folder, Settings(**values))
    check_cluster(folder)
    if given.command in ("up", "env"):
        print(f"export SLURM_CONF={folder}/slurm.conf")
    elif given.command == "kill-node":
        check_node(folder, given.node, running=True)
        kill_node(folder, given.node)
    elif given.command == "start-node":
        check_node(folder, given.node, running=False)
        start_node(folder, given.node)
    elif given.command == "down":
        down(folder)


def main() -> int:
    try:
        execute(arguments())
    except (Refused, OSError) as refusal:
        print(f"devcluster: {refusal}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A throwaway Slurm cluster: real daemons on the loopback interface, in one folder, as root or not, without systemd.

    eval "$(python slurm/devcluster up /dev/shm/slurm)"       sbatch, squeue, sacct, ... now use it
    python slurm/devcluster kill-node /dev/shm/slurm n2       n2 fails as if its plug were pulled
    python slurm/devcluster start-node /dev/shm/slurm n2      n2 boots again
    python slurm/devcluster down /dev/shm/slurm               stop everything and remove the folder

Each node is a slurmd on this host and claims CPUs, memory and GPUs that don't need to exist. Jobs in the partition `low` (the
default) are preempted and requeued by those in `high`. Nothing outside the folder is changed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cluster import down, kill_node, start_node, up
from cluster_error import ClusterError
from configuration import Settings
from processes import is_running


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="devcluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, description in (("up", "start a cluster"), ("env", "print the line to eval"), ("down", "stop and remove it")):
        commands.add_parser(name, help=description).add_argument("folder", type=absolute)
    for name, description in (("kill-node", "kill everything that runs on a node"), ("start-node", "boot a killed node")):
        command = commands.add_parser(name, help=description)
        command.add_argument("folder", type=absolute)
        command.add_argument("node")
    add_settings(commands.choices["up"])
    return parser.parse_args()


def add_settings(parser: argparse.ArgumentParser) -> None:
    default = Settings()
    parser.add_argument("--nodes", type=int, default=default.nodes, help="slurmd processes, n1, n2, ... (%(default)s)")
    parser.add_argument("--cpus", type=int, default=default.cpus, help="claimed by each node (%(default)s)")
    parser.add_argument("--gpus", type=int, default=default.gpus, help="claimed by each node (%(default)s)")
    parser.add_argument("--racks", type=int, default=default.racks, help="groups of nodes with partitions low1, high1, ...")
    parser.add_argument("--max-array-size", type=int, default=default.max_array_size, help="MaxArraySize in slurm.conf")
    parser.add_argument("--max-job-count", type=int, default=default.max_job_count, help="MaxJobCount in slurm.conf")
    parser.add_argument("--no-accounting", action="store_false", dest="accounting", help="start faster, without sacct")


def absolute(path: str) -> Path:
    return Path(path).resolve()


def check_cluster(folder: Path) -> None:
    if not ((folder / "slurm.conf").is_file() and (folder / "run").is_dir()):
        raise ClusterError(f"{folder} contains no cluster (`up` creates one)")


def check_node(folder: Path, node: str, *, running: bool) -> None:
    nodes = sorted(path.name for path in (folder / "spool").iterdir())
    if node not in nodes:
        raise ClusterError(f"there is no node {node} (valid: {', '.join(nodes)})")
    note = folder / "run" / node
    if running != (note.exists() and is_running(note)):
        raise ClusterError(f"{node} is {'not running' if running else 'already running'}")


def execute(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    if arguments.command == "up":
        values = {name: value for name, value in vars(arguments).items() if name not in ("command", "folder")}
        up(folder, Settings(**values))
    check_cluster(folder)
    if arguments.command in ("up", "env"):
        print(f"export SLURM_CONF={folder}/slurm.conf")
    elif arguments.command == "kill-node":
        check_node(folder, arguments.node, running=True)
        kill_node(folder, arguments.node)
    elif arguments.command == "start-node":
        check_node(folder, arguments.node, running=False)
        start_node(folder, arguments.node)
    elif arguments.command == "down":
        down(folder)


def main() -> int:
    try:
        execute(parse_arguments())
    except (ClusterError, OSError) as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The files that Slurm's daemons read, written for one folder, one host and a handful of free ports."""

from __future__ import annotations

import os
import pwd
import random
import socket
from dataclasses import dataclass
from pathlib import Path

from refusal import Refused

CLUSTER_NAME = "devcluster"


@dataclass(frozen=True)
class Settings:
    """What `up` can be told; the defaults suit a first look and most tests."""

    nodes: int = 4
    cpus: int = 32  # per node, claimed
    gpus: int = 4  # per node, claimed
    racks: int = 0  # groups of nodes with a low and a high partition of their own
    accounting: bool = True
    max_array_size: int = 10001  # the highest array index is one less
    max_job_count: int = 50000

    def check(self) -> None:
        if min(self.nodes, self.cpus, self.max_array_size, self.max_job_count) < 1 or min(self.gpus, self.racks) < 0:
            raise Refused("a cluster has at least one node, one CPU per node, one job and one array index")
        if self.racks and self.nodes % self.racks:
            raise Refused(f"--nodes {self.nodes} can't be parted into {self.racks} equal racks")
        if self.gpus > len(character_devices()):
            raise Refused(f"--gpus {self.gpus}: a character device plays each, and /dev has {len(character_devices())}")


@dataclass(frozen=True)
class Ports:
    """Consecutive ports: the controller's, the accounting daemon's, then one per node."""

    first: int

    @property
    def controller(self) -> int:
        return self.first

    @property
    def accounting(self) -> int:
        return self.first + 1

    def of_nodes(self, count: int) -> str:
        return f"[{self.first + 2}-{self.first + 1 + count}]"


# Several lines make minutes into seconds: a requeued job waits until its old credential has expired (cred_expire: 120 s by
# default, and again where fewer than 5 are asked for); a node is given up when two pings of MessageTimeout have failed over
# SlurmdTimeout; a task that ignores SIGTERM is killed after KillWait; the queue is looked at ten times a second. GraceTime is
# what a preempted job has left, and preempt_send_user_signal lets it hear its --signal then. Without DefMemPerCPU a job would
# take a whole node's memory.
SLURM_CONF = """\
ClusterName={cluster_name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports.controller}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
{listening}

MessageTimeout=5
SlurmdTimeout=5
KillWait=5
ReturnToService=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=64
GresTypes=gpu

MaxArraySize={settings.max_array_size}
MaxJobCount={settings.max_job_count}
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=2,bf_interval=2,default_queue_depth=500
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{accounting}

SlurmdParameters=config_overrides
NodeName=n[1-{settings.nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports} \
CPUs={settings.cpus} RealMemory=64000 Gres=gpu:{settings.gpus}
{partitions}"""

PARTITIONS = """\
PartitionName=low{rack} Nodes={nodes} Default={default} PriorityTier=1 GraceTime=20 MaxTime=INFINITE State=UP
PartitionName=high{rack} Nodes={nodes} PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
"""

# Towards slurmdbd the controller takes munge's socket from AccountingStoragePass and not from AuthInfo. Accounts, QOS and
# their limits are enforced, as on a real cluster: a job of an unknown account is refused.
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports.accounting}
AccountingStoragePass={folder}/munge.sock
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=limits,qos"""

SLURMDBD_CONF = """\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports.accounting}
SlurmUser={user}
AuthInfo=socket={folder}/munge.sock
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageUser={user}
StorageLoc=slurm_acct
"""


def write_configuration(folder: Path, settings: Settings, *, ports: Ports) -> None:
    """Everything that the daemons read. Others may not enter the folder: whoever reads the key may submit jobs."""
    for name in ("log", "run", "state", *(f"spool/{node}" for node in node_names(settings.nodes))):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o700)
    gpus = character_devices()[: settings.gpus]
    (folder / "slurm.conf").write_text(slurm_conf(folder, settings, ports=ports))
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={path}\n" for path in gpus))
    slurmdbd_conf = SLURMDBD_CONF.format(folder=folder, user=user_name(), ports=ports)
    for name, content in (("slurmdbd.conf", slurmdbd_conf.encode()), ("munge.key", os.urandom(128))):
        (folder / name).touch(mode=0o600)  # which their readers insist on
        (folder / name).write_bytes(content)


def slurm_conf(folder: Path, settings: Settings, *, ports: Ports) -> str:
    return SLURM_CONF.format(
        cluster_name=CLUSTER_NAME,
        folder=folder,
        settings=settings,
        ports=ports,
        host=socket.gethostname().split(".")[0],
        user=user_name(),
        listening=listening(),
        accounting=ACCOUNTING.format(folder=folder, ports=ports) if settings.accounting else "",
        node_ports=ports.of_nodes(settings.nodes),
        partitions=partitions(settings),
    )


def node_names(count: int) -> list[str]:
    return [f"n{number}" for number in range(1, count + 1)]


def partitions(settings: Settings) -> str:
    """`low` and `high` over all nodes; then `low1`, `high1`, `low2`, ... over the nodes of one rack each."""
    lines = [PARTITIONS.format(rack="", nodes="ALL", default="YES")]
    size = settings.nodes // max(settings.racks, 1)
    for rack in range(settings.racks):
        nodes = ",".join(node_names(settings.nodes)[rack * size :][:size])
        lines.append(PARTITIONS.format(rack=rack + 1, nodes=nodes, default="NO"))
    return "".join(lines)


def user_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def listening() -> str:
    """Loopback alone where this host's name leads there; else every interface, which munge's key still guards."""
    try:
        on_loopback = socket.gethostbyname(socket.gethostname()).startswith("127.")
    except OSError:
        on_loopback = False
    return "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny" if on_loopback else ""


def free_ports(settings: Settings) -> Ports:
    """Ports that nobody listens on, below those that the kernel hands out by itself."""
    count = settings.nodes + 2
    for first in random.sample(range(20000, 32000 - count), 100):
        if not any(listens(port) for port in range(first, first + count)):
            return Ports(first)
    raise Refused(f"found no {count} consecutive free ports between 20000 and 32000")


def listens(port: int) -> bool:
    """Whether something on this host takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def character_devices() -> list[Path]:
    """What may play a GPU: Slurm looks at the file, never opens it, wants each to be another, and counts none without one.

    Terminals come first, as the least surprising to borrow; a small container has few devices of any kind.
    """
    devices = [path for path in Path("/dev").iterdir() if path.is_char_device() and not path.is_symlink()]
    return sorted(devices, key=lambda path: (not path.name.startswith("tty"), len(path.name), path.name))

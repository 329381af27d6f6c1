"""Writes the configuration files of Slurm's daemons for one folder, one host and a few free ports."""

from __future__ import annotations

import os
import pwd
import random
import socket
from dataclasses import dataclass
from pathlib import Path

from cluster_error import ClusterError

CLUSTER_NAME = "devcluster"


@dataclass(frozen=True)
class Settings:
    """The options of `up`; the defaults suit a first try and most tests."""

    nodes: int = 4
    cpus: int = 32  # per node, claimed
    gpus: int = 4  # per node, claimed
    racks: int = 0  # groups of nodes with a low and a high partition of their own
    accounting: bool = True
    max_array_size: int = 10001  # the highest array index is one less
    max_job_count: int = 50000

    def check(self) -> None:
        if min(self.nodes, self.cpus, self.max_array_size, self.max_job_count) < 1 or min(self.gpus, self.racks) < 0:
            raise ClusterError("a cluster needs at least one node, one CPU per node, one job and one array index")
        if self.racks and self.nodes % self.racks:
            raise ClusterError(f"--nodes {self.nodes} can't be divided into {self.racks} equal racks")
        if self.gpus > len(character_devices()):
            raise ClusterError(f"--gpus {self.gpus}: /dev has {len(character_devices())} character devices to represent them")


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


# Several settings turn minutes into seconds: a requeued job waits until its old credential has expired (cred_expire: 120 s by
# default, and also if set below 5); a node is marked down when two pings of MessageTimeout have failed within SlurmdTimeout;
# a task that ignores SIGTERM is killed after KillWait; the queue is scheduled ten times a second. GraceTime is the time left to
# a preempted job, and with preempt_send_user_signal it receives its --signal then. Without DefMemPerCPU a job would get a whole
# node's memory.
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

# To reach slurmdbd, the controller takes munge's socket from AccountingStoragePass and not from AuthInfo. Accounts, QOS and
# their limits are enforced, as on a real cluster: jobs of unknown accounts are rejected.
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
    """Write all configuration files. Other users can't enter the folder: the key would allow them to submit jobs."""
    for name in ("log", "run", "state", *(f"spool/{node}" for node in node_names(settings.nodes))):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o700)
    gpus = character_devices()[: settings.gpus]
    (folder / "slurm.conf").write_text(slurm_conf(folder, settings, ports=ports))
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={path}\n" for path in gpus))
    slurmdbd_conf = SLURMDBD_CONF.format(folder=folder, user=user_name(), ports=ports)
    for name, content in (("slurmdbd.conf", slurmdbd_conf.encode()), ("munge.key", os.urandom(128))):
        (folder / name).touch(mode=0o600)  # required by their daemons
        (folder / name).write_bytes(content)


def slurm_conf(folder: Path, settings: Settings, *, ports: Ports) -> str:
    return SLURM_CONF.format(
        cluster_name=CLUSTER_NAME,
        folder=folder,
        settings=settings,
        ports=ports,
        host=socket.gethostname().split(".")[0],
        user=user_name(),
        listening=communication_parameters(),
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


def communication_parameters() -> str:
    """Listen on loopback only if this host's name resolves to it; else on all interfaces, protected by munge's key."""
    try:
        on_loopback = socket.gethostbyname(socket.gethostname()).startswith("127.")
    except OSError:
        on_loopback = False
    return "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny" if on_loopback else ""


def find_free_ports(settings: Settings) -> Ports:
    """Find consecutive unused ports below the kernel's ephemeral range."""
    count = settings.nodes + 2
    for first in random.sample(range(20000, 32000 - count), 100):
        if not any(is_listening(port) for port in range(first, first + count)):
            return Ports(first)
    raise ClusterError(f"no {count} consecutive free ports found between 20000 and 32000")


def is_listening(port: int) -> bool:
    """Whether a process on this host accepts connections at the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def character_devices() -> list[Path]:
    """Files to represent GPUs: Slurm requires a distinct device file for each, but never opens it.

    Terminals come first, as the least surprising ones to use; a small container has few devices of any kind.
    """
    devices = [path for path in Path("/dev").iterdir() if path.is_char_device() and not path.is_symlink()]
    return sorted(devices, key=lambda path: (not path.name.startswith("tty"), len(path.name), path.name))

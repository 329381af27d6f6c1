"""Who is alive, on any cluster: local workers by the locks they hold, Slurm's by one squeue call."""

from __future__ import annotations

import datetime

from study.cluster import slurm
from study.cluster.journal import read_journals
from study.cluster.ledger import Worker, alive_locally, read_launch
from study.records.folder import SweepFolder


def alive_workers(folder: SweepFolder) -> set[Worker]:
    """Everyone alive: local workers by their locks, Slurm's by one squeue call (none where no launch used Slurm)."""
    launches = [read_launch(folder, launch_id) for launch_id in folder.launch_ids()]
    on_slurm = [launch for launch in launches if launch.cluster == "slurm"]
    alive = alive_locally(folder)
    if on_slurm:
        jobs = slurm.job_states(slurm.submission_names(folder, on_slurm))
        alive |= slurm.alive_workers(jobs, on_slurm, read_journals(folder), now=datetime.datetime.now())
    return alive

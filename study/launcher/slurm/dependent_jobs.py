"""Jobs that follow the workers' jobs: the final stage of a tuned sweep, and the report.

Each waits in Slurm's queue until all that it follows has ended, however it ended, then runs one command with the launched code.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from submitit.core.utils import CommandFunction, FailedJobError

from study.config.sweep import Sweep
from study.errors import Problem, UserError
from study.launcher.environment import outside_of_jobs
from study.launcher.slurm.client import Following, follower_name
from study.launcher.slurm.job_arrays import code_lines
from study.launcher.slurm.profile import Profile
from study.records.ledger import Launch
from study.records.sweep_folder import SweepFolder, write_whole

NEEDS = {"time": 30, "cpus-per-task": 2, "mem": "4G"}


@dataclass(frozen=True)
class Follower:
    """What is run, as words after `python`, and what for."""

    following: Following
    words: tuple[str, ...]


def reporting(folder: SweepFolder) -> Follower:
    """The report of whatever is recorded by then."""
    return Follower("report", ("-m", "study.report", str(folder.path)))


def final_stage(folder: SweepFolder, launch: Launch, sweep: Sweep, profile: Profile, *, workers: int, report: bool) -> Follower:
    """The launch of a tuned sweep's final runs, with the sweep and the profile as they are now: both are copied."""
    place = folder.launches / launch.id / "jobs"
    copied, asked = place / f"{sweep.name}.yaml", place / "profile.yaml"
    write_whole(copied, sweep.text)
    write_whole(asked, json.dumps(profile.model_dump(mode="json", exclude_defaults=True)))
    words = [
        "-m",
        "study.launch",
        str(copied),
        *sweep.overrides,
        "--runs",
        str(folder.path.parent),
        "--cluster",
        "slurm",
        "--profile",
        str(asked),
        "--workers",
        str(workers),
        "--after-trials",
        *(["--report"] if report else []),
    ]
    return Follower("final", tuple(words))


def submit_follower(folder: SweepFolder, launch: Launch, profile: Profile, follower: Follower, *, after: Sequence[str]) -> str:
    """Puts it into the queue behind the jobs `after`; returns its job id."""
    path = folder.launches / launch.id / "jobs" / f"{follower.following}.sh"
    write_whole(path, follower_script(folder, launch, profile, follower, after=after))
    try:
        with outside_of_jobs():
            answer = CommandFunction(["sbatch", "--parsable", str(path)], verbose=False)()
    except FailedJobError as error:
        told = f"Slurm refused the job of the {follower.following}:\n{error}\n--- the script ---\n{path.read_text()}"
        raise UserError(Problem(told)) from None
    return str(answer).strip().partition(";")[0]


def follower_script(folder: SweepFolder, launch: Launch, profile: Profile, follower: Follower, *, after: Sequence[str]) -> str:
    """Its sbatch script: one node without a GPU, the launched code."""
    own = {"partition": profile.partition, "account": profile.account, "qos": profile.qos, **NEEDS}
    log = (folder.launches / launch.id / "jobs" / f"{follower.following}.log").resolve()
    options = {
        **{name: value for name, value in own.items() if value is not None},
        **profile.report,
        "job-name": follower_name(launch.id, follower.following),
        "dependency": f"afterany:{':'.join(after)}",
        "output": log,
        "open-mode": "append",
    }
    lines = [
        f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={shlex.quote(str(value))}"
        for name, value in sorted(options.items())
    ]
    command = shlex.join([sys.executable, *follower.words])
    return "\n".join(["#!/bin/bash", "", *lines, "", *profile.setup, *code_lines(folder, launch), command, ""])

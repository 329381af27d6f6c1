"""Jobs that start when the workers' jobs have ended: the next stage of a sweep, and the report."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from submitit.core.utils import CommandFunction, FailedJobError

from study.config.sweep import Sweep
from study.errors import Problem, UserError
from study.launcher.environment import clean_slurm_environment
from study.launcher.slurm.client import Purpose, job_name
from study.launcher.slurm.job_arrays import export_code_path
from study.launcher.slurm.profile import Profile
from study.records.code_snapshot import list_copied_plugins
from study.records.ledger import Launch
from study.records.sweep_folder import SweepFolder, write_whole

RESOURCES = {"time": 30, "cpus-per-task": 2, "mem": "4G"}


@dataclass(frozen=True)
class DependentJob:
    """The words of its command after `python`, and its purpose."""

    purpose: Purpose
    words: tuple[str, ...]


def make_report_job(folder: SweepFolder) -> DependentJob:
    return DependentJob("report", ("-m", "study.report", str(folder.path)))


def make_next_stage_job(
    folder: SweepFolder, launch: Launch, sweep: Sweep, profile: Profile, *, workers: int, report: bool
) -> DependentJob:
    """The launch of what follows: final runs, or a look. Sweep, profile and plug-ins are copies: later edits don't count."""
    place = folder.launches / launch.id / "jobs"
    sweep_copy, profile_copy = place / f"{sweep.name}.yaml", place / "profile.yaml"
    write_whole(sweep_copy, sweep.text)
    write_whole(profile_copy, json.dumps(profile.model_dump(mode="json", exclude_defaults=True)))
    options = f"--cluster slurm --workers {workers} --after-stage" + (" --report" if report else "")
    paths = ["--runs", str(folder.path.parent), "--profile", str(profile_copy)]
    copied = list_copied_plugins(launch.plugins, folder.code / launch.code / "study")
    plugins = [f"plugins={json.dumps([os.path.relpath(path, place) for path in copied])}"] if copied else []
    return DependentJob("next", ("-m", "study.launch", str(sweep_copy), *sweep.overrides, *plugins, *paths, *options.split()))


def submit_dependent_job(
    folder: SweepFolder, launch: Launch, profile: Profile, job: DependentJob, *, after: Sequence[str]
) -> str:
    """Submit a job that waits until the jobs `after` have ended, however they end; returns its id."""
    place = folder.launches / launch.id / "jobs"
    own = {"partition": profile.partition, "account": profile.account, "qos": profile.qos, **RESOURCES}
    options = {
        **{name: value for name, value in own.items() if value is not None},
        **profile.report,
        "job-name": job_name(launch.id, job.purpose),
        "dependency": f"afterany:{':'.join(after)}",
        "output": (place / f"{job.purpose}.log").resolve(),
        "open-mode": "append",
    }
    lines = [
        f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={shlex.quote(str(value))}"
        for name, value in sorted(options.items())
    ]
    command = shlex.join([sys.executable, *job.words])
    script = "\n".join(["#!/bin/bash", "", *lines, "", *profile.setup, *export_code_path(folder, launch), command, ""])
    path = place / f"{job.purpose}.sh"
    write_whole(path, script)
    try:
        with clean_slurm_environment():
            answer = CommandFunction(["sbatch", "--parsable", str(path)], verbose=False)()
    except FailedJobError as error:
        rule = f"Slurm rejected the job of the {job.purpose}:\n{error}\n--- the script ---\n{script}"
        raise UserError(Problem(rule)) from None
    return str(answer).strip().partition(";")[0]

"""A cluster profile: the resources that each job requests from Slurm, one YAML file per cluster.

Keys are named after sbatch's options. `sbatch:` holds any other option under sbatch's own name.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from study.config.options import Options
from study.config.yaml_source import read_options

TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d\d){0,2})")


def parse_minutes(value: object) -> object:
    """Minutes, rounded up, from Slurm's formats: `90`, `mm:ss`, `hh:mm:ss`, `d-hh`, `d-hh:mm` and `d-hh:mm:ss`."""
    if not isinstance(value, str):
        return value
    match = TIME.fullmatch(value)
    if match is None:
        raise ValueError(
            "a time limit is a number of minutes, mm:ss, hh:mm:ss, d-hh, d-hh:mm or d-hh:mm:ss, and every job has one"
        )
    parts = [int(part) for part in match["parts"].split(":")]
    if match["days"] is not None:
        hours, mins, seconds = [*parts, 0, 0][:3]
        return int(match["days"]) * 1440 + hours * 60 + mins + (seconds > 0)
    hours, mins, seconds = {1: [0, *parts, 0], 2: [0, *parts], 3: parts}[len(parts)]
    return hours * 60 + mins + (seconds > 0)


SbatchOptions = dict[str, str | int | Literal[True]]
"""Options of sbatch by their long names; `true` for those that take no value."""

RESERVED = {"array", "dependency", "error", "job-name", "ntasks", "open-mode", "output", "signal"}
"""Options that the launcher sets itself, to find its jobs again."""


class Profile(Options):
    """The resources of each job, and the number of workers."""

    workers: int = Field(8, ge=1)  # processes that train; overridden by --workers
    workers_per_gpu: int = Field(1, ge=1, le=16)  # workers in one job that share its GPU
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None  # nodes
    time: Annotated[int, BeforeValidator(parse_minutes)] = Field(240, ge=1)  # minutes, or any of Slurm's formats
    gpus_per_node: int = Field(1, ge=0, le=16)
    nodes: int = Field(1, ge=1)  # of a job that trains one run on several ranks (train.distributed: ddp)
    cpus_per_task: int = Field(4, ge=1)  # of each worker, and its threads
    mem_gb: float | None = Field(16, gt=0)  # of the job on each of its nodes
    array_parallelism: int = Field(256, ge=1)  # jobs of one launch that run at the same time
    requeue: bool = True  # after preemption, time limits and node failures
    signal_delay_s: int = Field(90, ge=1)  # seconds before the time limit at which a worker saves
    setup: list[str] = []  # shell lines before the worker: modules, environments
    sbatch: SbatchOptions = {}  # further options of the workers' jobs
    report: SbatchOptions = {}  # further options of the dependent jobs, e.g. a partition without GPUs

    @property
    def ranks_per_node(self) -> int:
        """One rank for each GPU; without GPUs, one for each node."""
        return max(1, self.gpus_per_node)

    @property
    def ranks(self) -> int:
        """The processes that train one run together with `train.distributed: ddp`."""
        return self.nodes * self.ranks_per_node

    @field_validator("partition", "account", "qos", "constraint", "exclude", "sbatch", "report")
    @classmethod
    def _check_lines(cls, value: str | SbatchOptions | None) -> str | SbatchOptions | None:
        """Refuse what would be another line or option in the script: only `setup` holds lines for the shell."""
        options = value if isinstance(value, dict) else {"value": value}
        for name, text in options.items():
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or not str(text).isprintable():
                raise ValueError(
                    f"an option has a name of letters and hyphens and a value of one line, unlike {name!r}: {text!r}"
                )
        return value

    @field_validator("sbatch", "report")
    @classmethod
    def _check_reserved_options(cls, options: SbatchOptions) -> SbatchOptions:
        names = [name.replace("_", "-") for name in options]
        taken = sorted(name for name in names if any(own.startswith(name) for own in RESERVED))  # sbatch accepts beginnings
        if taken:
            raise ValueError(f"{', '.join(taken)}: the launcher sets these itself, to find its jobs again")
        if other := sorted(name for name in names if name.startswith("cluster") or name == "M"):
            rule = "squeue would not show jobs of another cluster, so runs would be trained twice: launch on that cluster"
            raise ValueError(f"{', '.join(other)}: {rule}")
        return options

    @model_validator(mode="after")
    def _check_signal_delay(self) -> Self:
        if self.signal_delay_s * 2 > self.time * 60:
            raise ValueError(
                f"signal_delay_s must be at most half of time ({self.time} min): a job would save and requeue before it has "
                "trained"
            )
        return self


def read_profile(path: Path, overrides: Sequence[str] = ()) -> Profile:
    """The profile of a file with `key=value` overrides. Raises UserError with all mistakes."""
    return read_options(path, Profile, overrides, what="profile", folders=[Path("slurm")])[0]

"""A cluster profile says what to ask Slurm for; one YAML file per cluster, every key known and checked.

Keys follow sbatch's options. What isn't among them goes into `sbatch:` under sbatch's own names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from study.config.options import Options
from study.config.reading import parse_yaml, problems_of
from study.errors import Problem, UserError


def minutes(value: object) -> object:
    """Slurm's time formats, `minutes`, `hh:mm:ss` and `days-hh:mm:ss`, as whole minutes, rounded up."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", value)
    if match is None:
        return int(value) if value.isdigit() else value
    days, hours, mins, seconds = (int(part or 0) for part in match.groups())
    return days * 1440 + hours * 60 + mins + (seconds > 0)


class Profile(Options):
    """What each job asks for, and how many jobs there are."""

    workers: int = Field(8, ge=1)  # tasks of the array; --workers on the command line goes before it
    workers_per_gpu: int = Field(1, ge=1, le=16)  # processes that share one job's GPU, each with a share of its own
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None  # nodes
    time: Annotated[int, BeforeValidator(minutes)] = Field(240, ge=1)  # minutes, or hh:mm:ss, or d-hh:mm:ss
    gpus_per_node: int = Field(1, ge=0, le=16)
    cpus_per_task: int = Field(4, ge=1)
    mem_gb: float | None = Field(16, gt=0)  # of the whole job
    array_parallelism: int = Field(256, ge=1)  # tasks that run at the same time
    requeue: bool = True
    signal_delay_s: int = Field(90, ge=1)  # seconds before the time limit at which a worker is told to save
    setup: tuple[str, ...] = ()  # shell lines before the worker: modules, environments
    sbatch: dict[str, str | int | bool] = {}  # further options of sbatch, by their long names


def read_profile(path: Path, overrides: Sequence[str] = ()) -> Profile:
    """The profile of a file with `key=value` overrides, or a UserError that names every mistake."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = [str(p) for p in sorted(Path("slurm").glob("*.yaml"))]
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(Problem(f"cannot read this profile: {reason}", place=str(path), choices=found)) from None
    tree, places = parse_yaml(text, str(path))
    for override in overrides:
        key, equals, raw = override.partition("=")
        if not equals:
            raise UserError(Problem("a profile key is overridden as key=value", "command line", value=override))
        tree[key] = parse_yaml(f"value: {raw}", f"command line, {override}")[0]["value"]
        places[(key,)] = f"command line, {override}"
    try:
        return Profile.model_validate(_tuples(tree))
    except ValidationError as error:
        raise UserError(*problems_of(error, Profile, places=places, file=str(path))) from None


def _tuples(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()}

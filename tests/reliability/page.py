"""docs/reliability.md, from the results."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

Result = Mapping[str, Any]
ERROR = re.compile(r"^\w+Error: .*$", re.MULTILINE)
FIGURES = ("lost", "doubled", "differing", "tracebacks")

TEXT = """\
# What is lost when something goes wrong

`make reliability` wrote this page: it tries what a node, a disk or a user can do to every command, and counts what is lost.
The kernel shows it each lasting call of a command and of its workers (write, rename, fsync, lock, and the creation and removal
of files and folders) before the call happens, whichever library makes it. So no call is forgotten, and none is guessed.

{circumstances}

## Kills and power cuts

At a call the process that makes it is killed (SIGKILL; of a write, half has happened), gets a Ctrl-C, or the power is cut:
every process of the sweep ends, and whatever was not flushed is gone (contents: a file is empty, or as long as it was at its
last fsync; names: new files, renames and removals in folders that were not flushed are undone as well). Then the same command
is run again. The sweep has two runs and two local workers, which import the code snapshot of their launch and save checkpoints;
in one scenario trials choose the learning rate. The run table, learning curves, correctness of each image, weights and
predictions, or the files of the cache and of the report, must be those of a twin that nothing happened to, bit for bit.
*Lost* are runs without an outcome and missing files, *doubled* runs that were trained to their end twice. *Tracebacks* are
counted in logs too: a worker whose launch is killed before it hands over the task waits a minute and ends with one of
submitit's, in a log that no command shows. What went wrong is tried again after it was fixed; the newest result counts.

{points}

The calls are chosen so that each kind of call on each kind of file comes first: {covered} kinds were hit.

## Faults of the disk

The system refuses a call, or from that call on whatever changes a file, until the command ends. The command must say on one
screen which file was refused and why, with exit status 1 (or end as always, where the file was only a draft or a display),
blame no run for it, and the same command must then end with the bits of the undisturbed twin. *Silent* are commands that
ended with status 0 and left something out, *untold* those whose screen doesn't give the reason, *blamed* runs that were
recorded as failed.

{faults}

## Other circumstances

Clocks that jump, folders of someone else and read-only disks (where `plan`, `status` and `report --out elsewhere` work), output
that nobody can take or that lacks characters, Python without asserts and docstrings, folders that can't be flushed, and Ctrl-C
at any moment of a launch, its imports included.

{others}
{bad}"""


def write_page(results: Sequence[Result], path: Path) -> int:
    """Write the page; 1 if anything in it is bad, else 0."""
    points = [each for each in results if each["kind"] == "point"]
    faults = [each for each in results if each["kind"] == "fault"]
    others = [each for each in results if each["kind"] == "circumstance"]
    bad = [f"{each['name']}: {''.join(re.findall(ERROR, each['printed'])[-1:])}" for each in results if each["bad"]]
    text = TEXT.format(
        circumstances=describe_circumstances(results),
        points=make_table(points, lambda each: (each["scenario"], each["disturbance"]), ("command", "disturbance"), FIGURES),
        covered=len({(each["scenario"], each["call"]) for each in points}),
        faults=make_table(faults, lambda each: (each["reason"],), ("error",), (*FIGURES, "silent", "untold", "blamed")),
        others=make_table(others, lambda each: (each["group"],), ("circumstance",), (*FIGURES, "silent", "untold", "blamed")),
        bad="\n## What went wrong\n\n" + "\n".join(f"- {name}" for name in bad) + "\n" if bad else "",
    )
    path.write_text(text, encoding="utf-8")
    print(f"{len(results)} tried, {len(bad)} bad: {path}")
    return int(bool(bad))


def describe_circumstances(results: Sequence[Result]) -> str:
    """The commit, the machine and the versions that the figures come from."""
    commits = sorted({str(each["commit"])[:10] for each in results})
    days = sorted({each["finished"][:10] for each in results})
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    hours = sum(each["seconds"] for each in results) / 3600
    return (
        f"Measured at commit {', '.join(commits)}, {' and '.join(days)}, on {processor}, "
        f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, "
        f"torch {torch.__version__}: {len(results):,} cases "
        f"in {hours:.1f} hours of a busy machine."
    )


def make_table(
    results: Sequence[Result], key: Callable[[Result], tuple[str, ...]], headings: Sequence[str], figures: Sequence[str]
) -> str:
    """A row per group and one of sums, as Markdown."""
    lines = [[*headings, "cases", *figures], [*["---"] * len(headings), *["---:"] * (1 + len(figures))]]
    for group, members in groupby(sorted(results, key=key), key=key):
        lines.append([*group, *count(list(members), figures)])
    lines.append(["all", *[""] * (len(headings) - 1), *count(results, figures)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def count(results: Sequence[Result], figures: Sequence[str]) -> list[str]:
    return [f"{number:,}" for number in (len(results), *(sum(max(0, each[name]) for each in results) for name in figures))]

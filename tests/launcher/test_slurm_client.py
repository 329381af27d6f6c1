"""What Slurm's commands print is read with distrust, and what a profile asks of sbatch leaves the launcher its jobs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from study.cli.console import open_console
from study.errors import UserError
from study.launch import _has_slurm
from study.launcher.slurm import client
from study.launcher.slurm.profile import Profile, read_profile

OWN = "study.20261127t180804x6618.0"


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, **scripts: str) -> None:
    """Commands of these names come first on the path."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


# Prints each job of the file `jobs` (fields separated by tabs, names with \n for line breaks) in the requested format.
SQUEUE = """
format=$(printf '%s\\n' "$@" | sed -n 's/^--format=//p')
while IFS=$'\\t' read -r i T M e N r j; do
  line=${format//%i/$i}; line=${line//%T/$T}; line=${line//%M/$M}; line=${line//%e/$e}
  line=${line//%N/$N}; line=${line//%r/$r}; printf "${line//%j/$j}\\n"
done <"$(dirname "$0")/jobs"
"""


def test_names_of_others_forge_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line breaks in a name, alone or followed by a whole line of squeue: own jobs are seen, nothing else is."""
    forged = f"a\\n77|RUNNING|1:00|0|n1|None|{OWN}\\n{'0' * 16}|78|RUNNING|1:00|0|n1|None|{OWN}"
    rows = [
        ("5_1", "RUNNING", "1:00", "1800000000", "n1", "None", OWN),
        *((str(n), "RUNNING", "1:00", "0", "n1", "None", name) for n, name in enumerate(("x\\ny", forged, "a|b|c", "\\n\\n"))),
    ]
    (tmp_path / "jobs").write_text("".join("\t".join(row) + "\n" for row in rows))
    install(monkeypatch, tmp_path, squeue=SQUEUE)
    queue = client.read_queue()
    assert [(job.id, job.launch, job.index) for job in queue.jobs] == [("5_1", OWN.split(".")[1], 1)]
    assert queue.size == len(rows) and not queue.dependent_jobs


def test_a_slow_controller_is_no_absent_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` refuses, naming both ways on; `--cluster slurm` doesn't ask first."""
    install(monkeypatch, tmp_path, scontrol="exec sleep 9", sbatch="exit 1")
    monkeypatch.setattr(client, "PING_TIMEOUT_S", 0.1)
    with pytest.raises(UserError, match=r"doesn't answer(.|\n)*valid: local, slurm"):
        _has_slurm("auto", open_console())
    assert _has_slurm("slurm", open_console()) and not _has_slurm("local", open_console())


@pytest.mark.parametrize("option", ["clusters", "cluster", "cluster-constraint", "M", "job_name", "job-nam", "arr", "dep"])
@pytest.mark.parametrize("section", ["sbatch", "report"])
def test_no_option_hides_jobs_from_the_launcher(option: str, section: str) -> None:
    """Another cluster's jobs, and names that the launcher looks for, abbreviated as sbatch accepts them."""
    with pytest.raises(ValidationError, match="launch on that cluster" if option[0] in "cM" else "the launcher sets these"):
        Profile.model_validate({section: {option: "second"}})


def test_an_unlimited_time_is_told_what_a_time_is(tmp_path: Path) -> None:
    """Not that it should be an integer."""
    (tmp_path / "p.yaml").write_text("time: UNLIMITED\n")
    with pytest.raises(UserError, match="a time limit is a number of minutes, mm:ss"):
        read_profile(tmp_path / "p.yaml")

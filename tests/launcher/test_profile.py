"""A profile is read as strictly as a sweep: every key known, every mistake named with its place, all at once."""

from __future__ import annotations

import pytest

from study.errors import UserError
from study.launcher.slurm.profile import Profile, parse_minutes, read_profile


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("90", 90),
        (90, 90),
        ("1:30:00", 90),
        ("30:00", 30),
        ("0:30", 1),
        ("0:00:01", 1),
        ("2-00", 2880),
        ("2-00:00:00", 2880),
        ("1-06:30", 1830),
    ],
)
def test_times_are_minutes(written, meant):
    """Slurm's formats; seconds are rounded up, so that no job gets less than requested."""
    assert parse_minutes(written) == meant


def test_all_mistakes_are_reported_at_once(tmp_path):
    """Unknown keys with the nearest valid one, wrong values with the rule, each with file and line."""
    path = tmp_path / "profile.yaml"
    path.write_text("workers: 0\npartitoin: gpu\ntime: soon\nsbatch: {job_name: mine, hold: false}\n")
    with pytest.raises(UserError) as raised:
        read_profile(path)
    message = str(raised.value)
    parts = (":1: workers", ":2: partitoin: unknown key", ":3: time", ":4: sbatch")
    for part in ("did you mean 'partition'?", *(f"{path}{part}" for part in parts)):
        assert part in message
    assert "workers_per_gpu" in message


def test_the_command_line_overrides_the_file(tmp_path):
    """Overrides reach single options of sbatch, too, and are checked like the file."""
    path = tmp_path / "profile.yaml"
    path.write_text("time: 60\nsbatch: {nice: 1}\n")
    profile = read_profile(path, ["time=2:00:00", "sbatch.reservation=mine", "gpus_per_node=0"])
    assert (profile.time, profile.sbatch, profile.gpus_per_node) == (120, {"nice": 1, "reservation": "mine"}, 0)
    with pytest.raises(UserError, match="command line, gpus_per_node=-1"):
        read_profile(path, ["gpus_per_node=-1"])


def test_no_job_is_signaled_before_it_has_trained():
    """A signal that comes in the first half of a job's time would requeue it for ever."""
    Profile(time=2, signal_delay_s=60)
    with pytest.raises(ValueError, match="at most half"):
        Profile(time=1, signal_delay_s=60)


def test_profiles_that_come_with_the_project_are_valid(repository):
    """Each file in slurm/ is a profile."""
    paths = sorted((repository / "slurm").glob("*.yaml"))
    assert {"default.yaml", "devcluster.yaml", "preemptible.yaml"} <= {path.name for path in paths}
    for path in paths:
        read_profile(path)


@pytest.mark.parametrize("break_", ["\\n", "\\r", "\\x85", "\\u2028", "\\0", "\\e[2J"])
@pytest.mark.parametrize(
    "line",
    [
        *(f'{key}: "a@#SBATCH --uid=0"' for key in ("partition", "account", "qos", "constraint", "exclude")),
        'sbatch: {comment: "a@touch /tmp/x"}',
        'report: {comment: "a@touch /tmp/x"}',
        'sbatch: {"nice@#SBATCH --uid": 0}',
    ],
)
def test_no_value_becomes_another_line(tmp_path, line, break_):
    """Whatever ends a line for sbatch, the shell or a terminal is refused in names and values, with the line of the file."""
    path = tmp_path / "profile.yaml"
    path.write_text(line.replace("@", break_))
    with pytest.raises(UserError, match="value of one line") as raised:
        read_profile(path)
    assert [problem.place for problem in raised.value.problems] == [f"{path}:1"]


@pytest.mark.parametrize("name", ["nice=1 --uid", "a b", "-x", "", "a;b", "ä"])
def test_no_name_becomes_another_option(tmp_path, name):
    """A name is a word of sbatch; values with spaces are quoted and stay one value."""
    path = tmp_path / "profile.yaml"
    path.write_text(f'sbatch: {{"{name}": 0}}')
    with pytest.raises(UserError, match="letters and hyphens"):
        read_profile(path)
    path.write_text('sbatch: {comment: "a --uid=0"}\nsetup: ["module load a\\nmodule load b"]')
    assert read_profile(path).sbatch == {"comment": "a --uid=0"}

"""Sweeps and profiles that are wrong in every way that was ever tried, one file each: each is one screen with status 2.

What is generated beside them: a valid sweep with any value anywhere, and with any bytes anywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study.config.sweep_file import read_sweep
from study.errors import handle_user_errors
from study.launcher.slurm.profile import read_profile
from study.planning.sweep_plan import make_plan

HOSTILE = Path(__file__).parent / "hostile"
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.integers(), max_size=3)
GOOD = """\
question: which?
data: {name: digits}
model: {depth: 2}
train: {epochs: 3, lr: 1e-3}
axes:
  backbone: [vit, mlp_mixer]
  model.patch_size: [2, 4]
seeds: [0, 1]
"""


def refuse(read: Callable[[], object], path: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """The status of reading; a refusal is one printable screen that names the file, and writes nothing."""
    before = sorted(path.parent.iterdir())
    status = handle_user_errors(lambda: 0 * (read() is None))()
    told = capsys.readouterr().err
    assert status in (0, 2) and len(told.splitlines()) <= 40 and len(told) < 20_000, told
    assert status == 0 or path.name in told, told
    assert all(char.isprintable() or char in "\n\t" for char in told)
    assert sorted(path.parent.iterdir()) == before
    return status


@pytest.mark.parametrize("path", sorted((HOSTILE / "sweeps").iterdir()), ids=lambda path: path.stem)
def test_a_hostile_sweep_is_refused(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `study.plan` reads it, before anything is solved or traced that it could fill the memory with."""
    assert refuse(lambda: make_plan(read_sweep(path)), path, capsys) == 2


@pytest.mark.parametrize("path", sorted((HOSTILE / "profiles").iterdir()), ids=lambda path: path.stem)
def test_a_hostile_profile_is_refused(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `study.launch` reads it."""
    assert refuse(functools.partial(read_profile, path), path, capsys) == 2


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.tuples(st.integers(0, len(GOOD)), st.integers(0, 6)), new=st.text(max_size=8) | VALUES.map(repr))
def test_a_sweep_with_anything_anywhere_is_read_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: tuple[int, int], new: str
) -> None:
    """The same screen, whatever is written in place of whatever."""
    path = tmp_path / "sweep.yaml"
    path.write_bytes((GOOD[: cut[0]] + new + GOOD[sum(cut) :]).encode(errors="replace"))
    refuse(lambda: read_sweep(path), path, capsys)

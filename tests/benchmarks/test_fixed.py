"""The fixed-cost benchmark: starts are those of the engine, and a missed target is reported."""

from __future__ import annotations

import json

import pytest

from benchmarks import fixed
from benchmarks.turns import Ratio


@pytest.mark.parametrize(("gap", "verdict"), [(0.0, "reached"), (2.0, "MISSED")])
def test_the_command_writes_its_figures_and_judges_them(tmp_path, monkeypatch, capsys, gap, verdict):
    """With a small model's checkpoints and made-up gaps; the next run's start is the gap and the way to its first step."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fixed, "SUBJECT", "toy_convmixer")
    monkeypatch.setattr(fixed, "between_runs", lambda: [gap] * 3)
    monkeypatch.setattr(fixed, "first_steps", lambda *, rounds: [fixed.Lap(0.5, 0.1)] * rounds)
    monkeypatch.setattr(fixed, "input_share", lambda **_: Ratio(0.01, 0.005, 0.02))
    assert fixed.main(["--rounds", "2", "--out", "out.json"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("from run to run")]
    assert f"{gap + 0.5:.4f}" in lines[0] and lines[0].endswith(verdict)
    assert len(json.loads((tmp_path / "out.json").read_text())["saves"]) == 2


def test_a_start_ends_with_the_first_step():
    """One per round, without the warm-up; each takes wall-clock and CPU time."""
    laps = fixed.first_steps(rounds=2)
    assert len(laps) == 2 and all(lap.seconds > 0 and lap.cpu_seconds > 0 for lap in laps)

"""A limit that is exceeded is named and makes the command fail; one that can't be measured doesn't."""

from __future__ import annotations

import json

import pytest

from benchmarks import time_limits
from benchmarks.time_limits import TimeLimit


@pytest.mark.parametrize(("seconds", "verdict", "status"), [(1.5, "kept", 0), (2.5, "EXCEEDED", 1), (None, "not measured", 0)])
def test_each_limit_has_a_row(tmp_path, monkeypatch, capsys, seconds, verdict, status):
    """Printed and written, whatever the others are."""
    monkeypatch.setattr(
        time_limits, "LIMITS", (TimeLimit("first", 2.0, lambda: 1.0), TimeLimit("second", 2.0, lambda: seconds))
    )
    assert time_limits.main(["--out", str(tmp_path / "out.json")]) == status
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.endswith("kept") and second.endswith(verdict)
    assert json.loads((tmp_path / "out.json").read_text())["seconds"] == {"first": 1.0, "second": seconds}

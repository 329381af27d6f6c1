"""Whatever the system refuses a launch is one screen, and the same command again goes on: no call is forgotten.

The calls are found by interposition: an undisturbed launch counts them, and each of them is refused in turn.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import study.launch
from study.launcher.local_launch import LocalWorkers
from study.records import code_snapshot
from study.records.ledger import read_assignees
from study.records.plan_file import load_plan
from study.records.sweep_folder import SweepFolder

SWEEP = """\
question: is every refusal told?
data: {name: digits, train_images: 100}
backbone: vit
model: {depth: 1, dim: 8, heads: 1, patch_size: 4}
train: {epochs: 1, batch_size: 50}
seeds: [0, 1]
"""
CALLS = {"fsync": os, "replace": os, "mkdir": os, "open": os, "lockf": fcntl}
REASONS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT, errno.ENOLCK)


@contextmanager
def refusing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, reason: int) -> Iterator[list[str]]:
    """Count the calls that could change something, and refuse the one of this number; yields what was called."""
    seen: list[str] = []
    original: Callable[..., object] = getattr(CALLS[name], name)

    def call(first: object, *more: object, **options: object) -> object:
        changes = name != "open" or any(flag & os.O_CREAT for flag in more if isinstance(flag, int))
        if changes and "runs" in str(os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else first):
            seen.append(str(first))
            if len(seen) - 1 == number:
                raise OSError(reason, os.strerror(reason), *([] if isinstance(first, int) else [str(first)]))
        return original(first, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(CALLS[name], name, call)
        yield seen


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """The command in an empty folder, with workers that train nothing; the argument names the folder of runs."""
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(SWEEP, encoding="utf-8")
    monkeypatch.setattr(LocalWorkers, "run", lambda *_: [])
    monkeypatch.setattr(study.launch, "verify_costs", lambda _: 0)
    monkeypatch.setattr(study.launch, "fit_linear_baseline", lambda _: 0.5)
    monkeypatch.setattr(code_snapshot, "PACKAGE", Path(study.launch.__file__).parent / "tracking")  # a small one
    monkeypatch.setattr(code_snapshot.take_snapshot, "__defaults__", (code_snapshot.PACKAGE,))
    return lambda runs: study.launch.main(["sweep.yaml", "--cluster", "local", "--runs", runs])


@pytest.mark.parametrize("sampled", [2, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CALLS)
def test_each_refused_call_is_one_screen_and_the_next_launch_goes_on(
    name: str, sampled: int, launch: Callable[[str], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1 (0 where it makes no difference), the file and the reason, no draft left; then the whole plan is assigned."""
    with refusing(monkeypatch, name, -1, 0) as calls:
        assert launch("runs") == 0
    assert calls, "the undisturbed launch makes such calls"
    for number in range(0, len(calls), -(-len(calls) // sampled)):
        reason, runs = REASONS[number % len(REASONS)], f"runs{number}"
        capsys.readouterr()
        with refusing(monkeypatch, name, number, reason):
            status = launch(runs)
        told = capsys.readouterr().err
        assert status in (0, 1) and len(told.splitlines()) <= 5, (calls[number], told)
        assert name == "unlink" or not [
            path for path in Path(runs).rglob(".*") if path.is_file() or path.name.startswith(".draft")
        ]
        assert status == 0 or (os.strerror(reason) in told and "runs" in told), (calls[number], told)
        assert launch(runs) == 0
        folder = SweepFolder(Path(runs) / "sweep")
        assert set(read_assignees(folder, folder.launch_ids()[-1])) == set(load_plan(folder).run_ids)

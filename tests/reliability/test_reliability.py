"""A sample of what `make reliability` does: nothing is lost at a kill, at a power cut or by a fault of the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from faults import choose_refusals, run_refusal
from interposition import is_supported
from kill_points import SCENARIOS, choose_points, make_twin, mix, run_point
from sandbox import Sandbox
from volatile_disk import VolatileDisk

SAMPLED = ("launch", "worker")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    if not is_supported():
        pytest.skip("needs Linux on x86-64 with seccomp")
    with Sandbox(tmp_path_factory.mktemp("reliability")) as opened:
        yield opened


@pytest.mark.parametrize(("points", "refusals"), [(5, 3), pytest.param(16, 8, marks=pytest.mark.slow)])
def test_nothing_is_lost_at_a_sample_of_points_and_faults(points: int, refusals: int, sandbox: Sandbox) -> None:
    """Kills, power cuts and Ctrl-C at calls of a launch and of its workers; then refused calls, which no run is blamed for."""
    twins = {each.name: make_twin(sandbox, each, place=sandbox.base / each.name) for each in SCENARIOS if each.name in SAMPLED}
    sample = sorted(choose_points(twins, 400), key=mix)[:points]
    found = {str(point): run_point(sandbox, twins, point) for point in sample}
    found |= {str(case): run_refusal(sandbox, twins, case) for case in choose_refusals(twins, refusals)}
    assert not {name: result for name, result in found.items() if result["bad"]}
    assert sum(result["reached"] for result in found.values()) > len(found) // 2


def observe(disk: VolatileDisk, kind: str, path: Path, *, target: Path | None = None, is_new: bool = False) -> None:
    disk.observe(SimpleNamespace(kind=kind, path=str(path), target=str(target), is_new=is_new, truncates=False))  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [False, True])
def test_a_power_cut_leaves_what_was_flushed(tmp_path: Path, names: bool) -> None:
    """A file's content by its own fsync, its name by its folder's: a draft that is renamed needs both."""
    disk, folder = VolatileDisk(tmp_path / "saved"), tmp_path / "folder"
    folder.mkdir()
    (folder / "result").write_text("old")
    for name, flushed in (("lost", False), ("kept", True)):
        path = folder / name
        observe(disk, "create", path, is_new=True)
        path.write_text("content")
        if flushed:
            observe(disk, "fsync", path)
            observe(disk, "fsync", folder)
    draft = folder / "draft"
    observe(disk, "create", draft, is_new=True)
    draft.write_text("new")
    observe(disk, "fsync", draft)
    observe(disk, "rename", draft, target=folder / "result")
    draft.rename(folder / "result")
    disk.cut_power(names=names)
    assert (folder / "kept").read_text() == "content"
    assert (folder / "lost").read_text() == ""
    assert (folder / "result").read_text() == ("old" if names else "new")

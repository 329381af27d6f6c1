"""A cached run table is the table that the records give, whatever happened to the files in between."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.synthetic_runs import make_synthetic_sweep
from study.records import load_table, table, table_cache
from study.records.record import read_records
from study.records.sweep_folder import SweepFolder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    """A sweep of 100 runs by four workers, whose files are an hour old; tables of any size are cached."""
    monkeypatch.setattr(table, "MIN_RUNS", 1)
    found = make_synthetic_sweep(tmp_path, 100, workers=4)[1]
    age(found)
    return found


def age(folder: SweepFolder) -> None:
    for path in (*folder.records.iterdir(), *folder.journals.iterdir()):
        os.utime(path, (time.time() - 3600,) * 2)


def kept_by(folder: SweepFolder) -> Path:
    (path,) = (folder.path / "cache").iterdir()
    return path


def fresh(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The table without any cache."""
    with monkeypatch.context() as context:
        context.setattr(table, "read_cache", lambda *_, **__: None)
        context.setattr(table, "write_cache", lambda *_, **__: None)
        return load_table(folder.path)


def reads_of(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> tuple[pd.DataFrame, int]:
    """The table, and how many workers' records were read for it."""
    reads = []
    with monkeypatch.context() as context:
        context.setattr(table_cache, "read_records", lambda *a, **k: reads.append(a) or read_records(*a, **k))
        return load_table(folder.path), len(reads)


def grow(folder: SweepFolder) -> None:
    """A worker, whose last records were lost, records them again."""
    path = sorted(folder.records.iterdir())[1]
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]))
    age(folder)
    load_table(folder.path)
    path.write_text("".join(lines))


def repeat(folder: SweepFolder) -> None:
    """A second launch's worker records a run of the first one's again, as one that failed."""
    line = sorted(folder.records.iterdir())[0].read_text().splitlines()[0]
    failed = line.replace('"status": "done"', '"status": "failed"').replace('"reason": null', '"reason": "a fault"')
    (folder.records / "20261128t000000x0000-0-0.jsonl").write_text(failed + "\n")


def remove(folder: SweepFolder) -> None:
    sorted(folder.records.iterdir())[2].unlink()


def edit_in_place(folder: SweepFolder) -> None:
    """Another accuracy of as many characters, with the time of before."""
    path = sorted(folder.records.iterdir())[0]
    before, text = path.stat(), path.read_text()
    path.write_text(text.replace('"val_loss": 1.0}', '"val_loss": 9.0}', 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [grow, repeat, remove, edit_in_place])
def test_a_change_is_seen(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch, change: Callable[[SweepFolder], None]) -> None:
    load_table(folder.path)
    change(folder)
    found, reads = reads_of(folder, monkeypatch)
    pd.testing.assert_frame_equal(found, fresh(folder, monkeypatch))
    assert 1 <= reads <= 4, "only what has to do with the changed worker is read"


def test_unchanged_records_are_not_read_again(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fresh(folder, monkeypatch)
    for reads in (4, 0):
        found = reads_of(folder, monkeypatch)
        pd.testing.assert_frame_equal(found[0], expected)
        assert found[1] == reads


def test_files_that_have_just_changed_are_read_again(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second change within one tick of the file system's clock could leave no trace."""
    sorted(folder.records.iterdir())[0].touch()
    load_table(folder.path)
    assert reads_of(folder, monkeypatch)[1] == 1


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"\x00" * 5000])
def test_a_damaged_cache_is_made_anew_with_a_notice(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: bytes
) -> None:
    load_table(folder.path)
    kept_by(folder).write_bytes(damage)
    pd.testing.assert_frame_equal(load_table(folder.path), fresh(folder, monkeypatch))
    assert ".parquet is damaged" in capsys.readouterr().err
    assert reads_of(folder, monkeypatch)[1] == 0


def test_a_flipped_bit_is_damage(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is, the table is that of the records."""
    load_table(folder.path)
    path, expected = kept_by(folder), fresh(folder, monkeypatch)
    whole = path.read_bytes()
    for place in range(8, len(whole), len(whole) // 12):
        path = kept_by(folder)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        pd.testing.assert_frame_equal(load_table(folder.path), expected)


def test_where_nothing_can_be_written_there_is_no_cache(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.path / "cache").write_text("in the way")
    pd.testing.assert_frame_equal(load_table(folder.path), fresh(folder, monkeypatch))


def test_a_small_sweep_has_no_cache(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MIN_RUNS", 1000)
    load_table(folder.path)
    assert not (folder.path / "cache").exists()

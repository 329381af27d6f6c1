"""An archive has all of a report and redraws it; one that was tampered with is refused before a byte of it is used."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import example_sweeps
import pytest

from study.archive import main as archive
from study.errors import UserError
from study.report import main as report
from study.reporting.report_archive import MAX_ARCHIVE_BYTES, read_archive

TABLES = ("study.json", "runs.csv", "curves.parquet")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report's folder, drawn once, with its archive beside it."""
    folder = tmp_path_factory.mktemp("archived") / "example"
    example_sweeps.as_folder(example_sweeps.one_factor(seeds=2, epochs=2), folder)
    assert report([str(folder), "--formats", "svg"]) == 0
    (folder / "notes-of-mine.txt").write_text("private")
    assert archive([str(folder)]) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_archive_redraws_the_report(drawn: Path, tmp_path: Path) -> None:
    """`study report x.zip` draws every file of the folder again, byte for byte; a folder that exists is not overwritten."""
    packed = shutil.copy(drawn.with_suffix(".zip"), tmp_path / "x.zip")
    assert report([str(packed), "--formats", "svg"]) == 0
    expected = contents(drawn)
    assert expected.pop("notes-of-mine.txt")
    assert contents(tmp_path / "x") == expected
    assert report([str(packed), "--formats", "svg"]) == 2


def test_an_archive_is_the_same_each_time_and_can_be_checked(drawn: Path, tmp_path: Path) -> None:
    """Packed again it is the same bytes; unzip and sha256sum, which are not this project's, find it whole and complete."""
    assert archive([str(drawn), "--out", str(tmp_path / "again.zip")]) == 0
    assert (tmp_path / "again.zip").read_bytes() == drawn.with_suffix(".zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "again.zip") as packed:
        packed.extractall(tmp_path)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path / "example", check=True)
    unpacked = contents(tmp_path / "example")
    environment = json.loads(unpacked.pop("environment.json"))
    assert environment["runs"]["torch_version"] == ["2.13.0"] and "numpy" in environment["archive"]
    assert unpacked.keys() == contents(drawn).keys() - {"notes-of-mine.txt"} | {"SHA256SUMS"}


def pack(path: Path, files: dict[str, bytes], *, sums: bool = True) -> Path:
    """A zip file of these entries, with checksums."""
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name.partition('/')[2]}\n" for name, content in files.items())
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in {**files, **({"a/SHA256SUMS": lines.encode()} if sums else {})}.items():
            packed.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "name",
    ["../x.csv", "/etc/passwd", "a/../../x", "a/figures/../../x.svg", "a/mine.py", "a/figures/x.exe", "b/runs.csv", "a/"],
)
def test_names_that_no_report_has_are_refused(drawn: Path, tmp_path: Path, name: str) -> None:
    """Whatever else is right: an entry outside, of another kind or in a second folder is named, and nothing is written."""
    files = {f"a/{table}": (drawn / table).read_bytes() for table in TABLES}
    assert len(read_archive(pack(tmp_path / "good.zip", files)).table) == 8
    bad = pack(tmp_path / "bad.zip", {**files, name: b""})
    with pytest.raises(UserError, match="is not a file of a report") as raised:
        read_archive(bad)
    assert str(raised.value.problems[0].value) in (name, *(f"a/{table}" for table in TABLES))
    assert report([str(bad)]) == 2
    assert not (tmp_path / "bad").exists()


def test_damage_is_named(drawn: Path, tmp_path: Path) -> None:
    """An edited table, missing checksums, a missing file, garbled data, a size beyond the bound, and what is no zip file."""
    files = {f"a/{table}": (drawn / table).read_bytes() for table in TABLES}
    edited = pack(tmp_path / "edited.zip", files)
    with zipfile.ZipFile(edited) as packed:
        sums = packed.read("a/SHA256SUMS")
    changed = {**files, "a/runs.csv": files["a/runs.csv"].replace(b"done", b"gone"), "a/SHA256SUMS": sums}
    with pytest.raises(UserError, match=r"SHA256SUMS.*runs\.csv"):
        read_archive(pack(edited, changed, sums=False))
    del changed["a/runs.csv"]
    with pytest.raises(UserError, match=r"not in the archive.*runs\.csv"):
        read_archive(pack(edited, changed, sums=False))
    with pytest.raises(UserError, match="SHA256SUMS"):
        read_archive(pack(edited, files, sums=False))
    (tmp_path / "none.zip").write_bytes(b"PK" + bytes(100))
    with pytest.raises(UserError, match="no zip file"):
        read_archive(tmp_path / "none.zip")
    whole = drawn.with_suffix(".zip").read_bytes()
    with zipfile.ZipFile(drawn.with_suffix(".zip")) as packed:
        start = packed.infolist()[0].header_offset + 30 + len(packed.infolist()[0].filename)  # of compressed data
    (tmp_path / "garbled.zip").write_bytes(whole[:start] + b"\xff" * 9 + whole[start + 9 :])
    with pytest.raises(UserError, match=r"damaged.*decompressing"):
        read_archive(tmp_path / "garbled.zip")
    large = zipfile.ZipInfo("a/runs.csv")
    with zipfile.ZipFile(tmp_path / "large.zip", "w") as packed:
        packed.writestr(large, b"")
        large.file_size = MAX_ARCHIVE_BYTES + 1  # written in the central directory on closing
    with pytest.raises(UserError, match="too large"):
        read_archive(tmp_path / "large.zip")


def test_a_link_out_of_the_folder_is_not_packed(drawn: Path, tmp_path: Path) -> None:
    """A report's file that is a link to somewhere else stays where it is."""
    folder = tmp_path / "example"
    shutil.copytree(drawn, folder)
    (tmp_path / "secret").write_text("secret")
    (folder / "answer.json").unlink()
    (folder / "answer.json").symlink_to(tmp_path / "secret")
    assert archive([str(folder)]) == 0
    with zipfile.ZipFile(tmp_path / "example.zip") as packed:
        assert "example/answer.json" not in packed.namelist()

"""The copy that workers import is the package as it was: all of it, whole, found by its content."""

from __future__ import annotations

import subprocess
import sys

import pytest

from study.errors import UserError
from study.records import code_snapshot
from study.records.code_snapshot import code_hash, find_origin, require_launched_code, take_snapshot


@pytest.fixture
def package(tmp_path):
    """A small package `study` with what Python leaves beside sources."""
    place = tmp_path / "tree" / "study"
    (place / "part" / "__pycache__").mkdir(parents=True)
    (place / "__init__.py").write_text("VALUE = 1\n")
    (place / "part" / "__init__.py").write_text("")
    (place / "part" / "__pycache__" / "x.pyc").write_bytes(b"old")
    (place / "page.html").write_text("<p>")
    return place


def test_a_copy_outlives_edits(package, tmp_path):
    """What is imported from the copy stays as it was; the edited package is another copy under another name."""
    first = take_snapshot(tmp_path / "code", package)
    (package / "__init__.py").write_text("VALUE = 2\n")
    (package / "new.py").write_text("")  # whether or not git knows it
    second = take_snapshot(tmp_path / "code", package)
    assert first != second
    for name, value in ((first, "1"), (second, "2")):
        program = [sys.executable, "-c", "import study; print(study.VALUE)"]
        environment = {"PYTHONPATH": str(tmp_path / "code" / name), "PYTHONSAFEPATH": "1"}
        assert subprocess.run(program, env=environment, capture_output=True, text=True, check=True).stdout.strip() == value
    assert (tmp_path / "code" / second / "study" / "new.py").exists()
    assert (tmp_path / "code" / second / "study" / "page.html").exists()


def test_equal_content_is_copied_once(package, tmp_path):
    """The name is a hash of what is copied, so leftovers of Python change nothing and nothing is copied twice."""
    name = take_snapshot(tmp_path / "code", package)
    (package / "part" / "__pycache__" / "y.pyc").write_bytes(b"new")
    assert take_snapshot(tmp_path / "code", package) == name
    assert [path.name for path in (tmp_path / "code").iterdir()] == [name]
    assert not list((tmp_path / "code" / name).rglob("*.pyc"))
    assert code_hash(tmp_path / "code" / name / "study") == name


@pytest.mark.parametrize("damage", ["empty", "edit", "remove", "add"])
def test_a_damaged_copy_is_taken_anew(package, tmp_path, damage, capsys):
    """A copy is trusted for its content, not its name; what stood there is kept, and the user is told."""
    code, name = tmp_path / "code", take_snapshot(tmp_path / "code", package)
    copy = code / name / "study"
    match damage:
        case "empty":
            (copy / "page.html").write_text("")
        case "edit":
            (copy / "__init__.py").write_text("VALUE = 9\n")
        case "remove":
            (copy / "__init__.py").unlink()
        case "add":
            (copy / "more.py").write_text("")
    with pytest.raises(UserError, match="other code"):
        require_launched_code(name, copy)
    assert take_snapshot(code, package) == name
    require_launched_code(name, copy)
    assert len(list(code.iterdir())) == 2 and "damaged or edited" in capsys.readouterr().err
    assert take_snapshot(code, package) == name and capsys.readouterr().err == ""


def test_a_copy_is_on_disk_before_it_has_its_name(package, tmp_path, monkeypatch):
    """Every file and folder of it has been flushed when it is renamed, and the folder that names it afterwards."""
    flushed = []
    monkeypatch.setattr(code_snapshot, "flush", lambda path: flushed.append((path, path.exists())))
    name = take_snapshot(tmp_path / "code", package)
    draft = next(path for path, _ in flushed if path.name.startswith(".draft-"))
    place = tmp_path / "code" / name
    assert {path.relative_to(draft) for path, _ in flushed[:-1]} == {p.relative_to(place) for p in (place, *place.rglob("*"))}
    assert flushed[-1] == (tmp_path / "code", True)


def test_a_tree_without_git_is_told_not_fatal(tmp_path):
    """A missing commit is None with a reason, as where git finds no repository."""
    found = find_origin(tmp_path)
    assert (found.commit, found.dirty) == (None, None) and "no commit is recorded" in found.note

"""Whatever is wrong with a file that the program reads is one screen that names it, with status 2; nothing is written.

The corpus: every kind of file, damaged as a whole in every way, and with every value of its document replaced by wrong ones;
more are generated. `python -m pytest -m slow tests/records/test_damaged_files.py` runs all of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from damaged_files import KINDS, WHOLE, WRONG, list_places, read_specimen, replace_value, write_document, write_specimens
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study import report, status
from study.errors import handle_user_errors, notify

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("specimens")
    write_specimens(folder)
    return folder


def find(place: Path, name: str) -> Path:
    [path] = place.glob(KINDS[name].path)
    return path


@contextmanager
def damaged(path: Path, damage: Callable[[Path], object]) -> Iterator[None]:
    """The file with the damage, and afterwards as it was."""
    content = path.read_bytes()
    try:
        damage(path)
        yield
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(content)


def files(place: Path) -> dict[str, tuple[int, int]]:
    found = ((path, path.lstat()) for path in sorted(place.rglob("*")))
    return {str(path): (status.st_mtime_ns, status.st_size) for path, status in found}


def check_refusal(place: Path, name: str, path: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """The status of reading: 2 names the file and its rule; neither writes anything, nor fills more than a screen."""
    notify.cache_clear()
    before = files(place)
    code = handle_user_errors(lambda: 0 * (KINDS[name].read(place) is None))()
    captured = capsys.readouterr()
    assert code in (0, 2), captured.err
    assert files(place) == before
    assert len(captured.err.splitlines()) <= 40
    assert captured.err.isprintable() or all(char.isprintable() or char in "\n\t" for char in captured.err)
    assert code == 0 or str(path.parents[1]) in captured.err, captured.err
    return code


@pytest.mark.parametrize("name", KINDS)
def test_specimens_are_read(place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without damage, nothing is wrong and nothing said."""
    path = find(place, name)
    assert check_refusal(place, name, path, capsys) == 0


@pytest.mark.parametrize("name", KINDS)
def test_a_file_damaged_as_a_whole_is_refused(place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Empty, cut off, binary, of another shape or version, no file at all: each is named."""
    path, unnoticed = find(place, name), []
    for damage in WHOLE:
        if (name.startswith(("record", "journal")) and damage == "empty") or (
            damage == "list" and name in ("share", "cancelled")
        ):
            continue  # no entries
        with damaged(path, WHOLE[damage]):
            code = check_refusal(place, name, path, capsys)
        unnoticed += [damage] if code != (0 if KINDS[name].optional else 2) else []
    assert not unnoticed


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [name for name in KINDS if "." not in name and name not in ("curves", "predictions", "weights")]
)
def test_wrong_values_inside_are_refused(place: Path, name: str, step: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Every value of the document in turn, replaced by values of other types and beyond all bounds."""
    path = find(place, name)
    document = read_specimen(path)
    cases = [(where, wrong) for where in list_places(document) for wrong in WRONG]
    for where, wrong in cases[::step]:
        with damaged(path, lambda path, where=where, wrong=wrong: write_document(path, replace_value(document, where, wrong))):
            check_refusal(place, name, path, capsys)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_generated_damages_are_refused(place: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject) -> None:
    """Any JSON value anywhere in a document, or any bytes anywhere in a file."""
    name = data.draw(st.sampled_from(sorted(KINDS)))
    path = find(place, name)
    document = read_specimen(path)
    if document is not None and data.draw(st.booleans()):
        made = replace_value(document, data.draw(st.sampled_from(list(list_places(document)))), data.draw(JSON))
        with damaged(path, lambda path: write_document(path, made)):
            check_refusal(place, name, path, capsys)
    else:
        content = path.read_bytes()
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        made = content[:start] + data.draw(st.binary(max_size=8)) + content[end:]
        with damaged(path, lambda path: path.write_bytes(made)):
            check_refusal(place, name, path, capsys)


@pytest.mark.parametrize("damage", ["null", "pipe", pytest.param("mapping", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["plan", "launch", "journal", "record", "selection", "baseline", "study.json", "runs.csv"])
def test_commands_refuse_as_their_readers_do(
    place: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status and report end with 2, or don't need the file."""
    monkeypatch.chdir(place)
    folder = "report" if name in ("study.json", "runs.csv") else "sweep.yaml"
    with damaged(find(place, name), WHOLE[damage]):
        commands = [lambda _: report.main([folder]), *([lambda _: status.main([folder])] if folder == "sweep.yaml" else [])]
        codes = set()
        for command in commands:
            before = files(place)
            codes.add(command(place))
            assert files(place) == before
            told = capsys.readouterr().err
            assert len(told.splitlines()) <= 40 and "Traceback" not in told
    assert 2 in codes


def test_the_corpus_is_large() -> None:
    """Cases of the whole, without those that are generated."""
    assert len(KINDS) * len(WHOLE) >= 400
    assert os.path.exists(__file__)

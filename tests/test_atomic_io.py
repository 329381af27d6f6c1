"""Whole files: what has a name is complete, whatever happens while it is written."""

from __future__ import annotations

import os

import pytest

from study.atomic_io import whole_file


def test_a_block_that_fails_leaves_the_former_content_and_nothing_else(tmp_path):
    """Half a draft never gets the name, and is not left behind."""
    path = tmp_path / "new folder" / "facts.json"
    with whole_file(path) as draft:
        draft.write_text("former")
    with pytest.raises(UnicodeEncodeError), whole_file(path) as draft:
        draft.write_text("\N{SNOWMAN}", encoding="ascii")
    assert path.read_text() == "former"
    assert list(path.parent.iterdir()) == [path]


def test_content_is_on_disk_before_its_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    """The order of system calls: the draft is flushed, then renamed, then the folder is flushed."""
    calls = []
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append((os.readlink(f"/proc/self/fd/{handle}"), path.exists())))
    path = tmp_path / "facts.json"
    with whole_file(path, draft=tmp_path / "draft") as draft:
        draft.write_text("all of it")
    assert calls == [(str(tmp_path / "draft"), False), (str(tmp_path), True)]

"""Checkpoints are whole or absent, bounded in number, of this run alone, and never a reason to crash."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.training import checkpoint
from study.training.checkpoint import Checkpoints, decode, encode

RUN = "vit-p2-d32-s0-1a2b3c4d5e"
LIKE = {"weights": torch.zeros(3), "note": []}


def state(step: int) -> dict[str, object]:
    return {"weights": torch.full((3,), float(step)), "note": [1.5, None, "word"]}


def newest(checkpoints: Checkpoints):
    return checkpoints.newest(like=LIKE)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_newest_state_comes_back_bit_for_bit(tmp_path):
    """newest() after several save()s returns the last state, tensors and plain values alike."""
    checkpoints = Checkpoints(tmp_path, RUN, "a-0-0")
    for step in (3, 7, 20):
        checkpoints.save(state(step), step=step)
    found = newest(Checkpoints(tmp_path, RUN, "a-0-1"))
    assert torch.equal(found["weights"], torch.full((3,), 20.0)) and found["note"] == [1.5, None, "word"]
    assert max(checkpoints.steps()) == 20 and Checkpoints(tmp_path, "other", "a-0-0").steps() == set()


def test_two_steps_are_kept_whoever_wrote_them(tmp_path):
    """However many states are saved, those of the newest two steps remain, an earlier writer's among them."""
    first, second = Checkpoints(tmp_path, RUN, "a-0-0"), Checkpoints(tmp_path, RUN, "a-0-1")
    for step in range(1, 6):
        first.save(state(step), step=step)
    assert names(tmp_path) == {f"{RUN}.a-0-0.00000000{step}.checkpoint" for step in (4, 5)}
    second.save(state(6), step=6)
    assert names(tmp_path) == {f"{RUN}.a-0-0.000000005.checkpoint", f"{RUN}.a-0-1.000000006.checkpoint"}
    second.save(state(7), step=7)
    assert names(tmp_path) == {f"{RUN}.a-0-1.00000000{step}.checkpoint" for step in (6, 7)}


@settings(deadline=None, max_examples=60)
@given(lives=st.lists(st.tuples(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 2)), max_size=4))
def test_a_run_resumes_from_its_last_whole_state_wherever_it_is_killed(lives):
    """A run is saved now and then, and in each life's last save killed before the write, between write and removal, or not at
    all; the next life resumes from the newest state that was written."""
    at = 0
    with tempfile.TemporaryDirectory() as place:
        for writer, (gaps, acts) in enumerate([*lives, ([], 0)]):
            checkpoints = Mortal(Path(place), RUN, f"a-0-{writer}")
            found = newest(checkpoints)
            assert (found["weights"][0].item() if found else 0) == at
            step = at
            for number, gap in enumerate(gaps, start=1):
                step += gap
                checkpoints.left = acts if number == len(gaps) else 2
                with suppress(KeyboardInterrupt):
                    checkpoints.save(state(step), step=step)
                if number < len(gaps) or acts >= 1:
                    at = step


class Mortal(Checkpoints):
    """Checkpoints whose process is killed after so many more writes and removals."""

    left = 0

    def _path(self, step):
        self.act()
        return super()._path(step)

    def _remove_replaced(self, step):
        self.act()
        super()._remove_replaced(step)

    def act(self):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def test_a_zombie_ahead_of_its_successor_keeps_its_state(tmp_path):
    """A state with more steps behind it is not removed for an older one, and is what a third writer resumes from."""
    Checkpoints(tmp_path, RUN, "a-0-0").save(state(9), step=9)
    Checkpoints(tmp_path, RUN, "a-0-1").save(state(4), step=4)
    assert newest(Checkpoints(tmp_path, RUN, "a-0-2"))["weights"][0] == 9


@settings(deadline=None, max_examples=40)
@given(kept=st.floats(0, 0.999), flipped=st.none() | st.floats(0, 0.999))
def test_damaged_bytes_never_load(kept, flipped):
    """A file cut anywhere, or with one bit flipped anywhere, is refused by decode()."""
    content = bytearray(b"".join(encode({"state": torch.arange(20)})))
    if flipped is None:
        content = content[: int(kept * len(content))]
    else:
        content[int(flipped * len(content))] ^= 1
    with pytest.raises(ValueError, match="incomplete"):
        decode(bytes(content))


def test_a_torn_checkpoint_is_told_set_aside_and_passed_over(tmp_path, caplog):
    """The state before the torn one is resumed from; the torn file is renamed, once, and a note says so."""
    writer = Checkpoints(tmp_path, RUN, "a-0-0")
    writer.save(state(1), step=1)
    writer.save(state(2), step=2)
    torn = tmp_path / f"{RUN}.a-0-0.000000002.checkpoint"
    torn.write_bytes(torn.read_bytes()[:-10])
    reader = Checkpoints(tmp_path, RUN, "a-0-1")
    with caplog.at_level(logging.WARNING):
        assert newest(reader)["weights"][0] == 1
    assert torn.with_name(f"{torn.name}.a-0-1.bad").exists() and not torn.exists()
    assert "incomplete or damaged" in reader.notes[0] and "incomplete or damaged" in caplog.text
    assert newest(Checkpoints(tmp_path, RUN, "a-0-2"))["weights"][0] == 1


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"run_id": "another", "step": 5, "state": state(5)}, "belongs to another"),
        ({"run_id": RUN, "step": 4, "state": state(4)}, "at step 4"),
        ({"run_id": RUN, "step": 5, "state": {"weights": 1}}, "another version"),
        ({"run_id": RUN, "step": 5, "state": state(5) | {"weights": torch.ones(4)}}, "its weights can't be of this run"),
        ({"run_id": RUN, "step": 5, "state": state(5) | {"weights": torch.ones(3).double()}}, "its weights can't be"),
        ({"run_id": RUN, "step": 5, "state": {"weights": None, "note": 1}}, "its weights, note can't be"),
    ],
)
def test_a_foreign_state_is_never_mixed_in(tmp_path, document, reason):
    """A whole file under the run's name that holds another run, step, format or shape starts the run over."""
    (tmp_path / f"{RUN}.a-0-0.000000005.checkpoint").write_bytes(b"".join(encode(document)))
    reader = Checkpoints(tmp_path, RUN, "a-0-1")
    assert newest(reader) is None
    assert reason in reader.notes[0]


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    """A pickle that would call a function on loading is refused, as files are read with weights_only."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / f"{RUN}.a-0-0.000000005.checkpoint").write_bytes(b"".join(encode({"state": Evil()})))
    assert newest(Checkpoints(tmp_path, RUN, "a-0-1")) is None
    assert not (tmp_path / "ran").exists()


def test_a_run_whose_name_begins_another_sees_only_its_own(tmp_path):
    """Files of a run are found by its whole name."""
    Checkpoints(tmp_path, RUN + ".more", "a-0-0").save(state(1), step=1)
    assert newest(Checkpoints(tmp_path, RUN, "a-0-0")) is None


def test_a_write_that_dies_leaves_the_former_state(tmp_path):
    """Killed before the rename, the new file is not there under its name; a later writer cleans up what was left."""
    writer = Checkpoints(tmp_path, RUN, "a-0-0")
    writer.save(state(1), step=1)
    (tmp_path / f"{RUN}.a-0-0.000000002.part").write_bytes(b"half a st")
    successor = Checkpoints(tmp_path, RUN, "a-0-1")
    assert newest(successor)["weights"][0] == 1
    successor.save(state(3), step=3)
    assert names(tmp_path) == {f"{RUN}.a-0-0.000000001.checkpoint", f"{RUN}.a-0-1.000000003.checkpoint"}


def test_a_full_disk_is_told_and_the_training_goes_on(tmp_path, monkeypatch):
    """save() survives an OSError, keeps the former state, leaves no half file, and notes the reason."""
    writer = Checkpoints(tmp_path, RUN, "a-0-0")
    writer.save(state(1), step=1)
    monkeypatch.setattr(os, "fsync", refuse)
    writer.save(state(2), step=2)
    assert names(tmp_path) == {f"{RUN}.a-0-0.000000001.checkpoint"}
    assert "No space left" in writer.notes[0]


def refuse(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_writing_takes_at_most_one_percent_of_the_time(tmp_path, monkeypatch):
    """After a write of 3 s the next is due 300 s later, after a quick one 60 s later."""
    clock = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])

    def slowly_encoded(_document):
        clock[0] += 3.0
        return (b"",)

    monkeypatch.setattr(checkpoint, "encode", slowly_encoded)
    writer = Checkpoints(tmp_path, RUN, "a-0-0")
    assert not writer.due()
    clock[0] = 60.0
    assert writer.due()
    writer.save(state(1), step=1)
    clock[0] = 362.9
    assert not writer.due()
    clock[0] = 363.0
    assert writer.due()


def test_discard_removes_all_of_the_run_and_nothing_else(tmp_path):
    """After the record is written nothing of the run is left, whoever wrote it; another run's states stay."""
    other = Checkpoints(tmp_path, "other", "a-0-0")
    other.save(state(1), step=1)
    for writer in ("a-0-0", "b-1-0"):
        Checkpoints(tmp_path, RUN, writer).save(state(2), step=2)
    (tmp_path / f"{RUN}.a-0-0.000000003.part").touch()
    (tmp_path / f"{RUN}.a-0-0.000000003.checkpoint.b-1-0.bad").touch()
    Checkpoints(tmp_path, RUN, "b-1-0").discard()
    assert names(tmp_path) == {"other.a-0-0.000000001.checkpoint"}

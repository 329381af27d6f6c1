"""Records: incomplete lines are ignored, equal duplicates merged, contradictions refused."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

import pytest
from specimens import RUN

from study.config.documents import read_json_lines
from study.errors import UserError
from study.records.record import Measurements, Record, Result, read_records
from study.records.sweep_folder import JsonLinesWriter, Writer, write_new

DONE = Record(
    run_id="vit-s0",
    status="done",
    run=RUN,
    cost={},
    match={},
    result=Result(test_accuracy=0.5),
    curves={"epoch": [1.0], "val_accuracy": [0.4]},
    measured=Measurements(train_seconds=1.0),
    fingerprint={"threads": 2, "cpu_capability": "AVX512"},
)


def write(folder, name, *records):
    with closing(JsonLinesWriter(folder / f"{name}.jsonl")) as lines:
        for record in records:
            lines.append(record.to_json())


def test_a_record_survives_its_file(tmp_path):
    """Reading gives what was written."""
    write(tmp_path, "a-0-0", DONE)
    assert read_records(tmp_path)["vit-s0"].record == DONE


def test_equal_duplicates_are_one(tmp_path):
    """A zombie and its successor record the same outcome with other timings: one run, two attempts."""
    write(tmp_path, "a-0-0", DONE)
    write(tmp_path, "a-0-1", replace(DONE, measured=Measurements(train_seconds=9.0)))
    merged = read_records(tmp_path)["vit-s0"]
    assert merged.count == 2
    assert merged.record.result == Result(test_accuracy=0.5)


@pytest.mark.parametrize(
    "change", [{"result": Result(test_accuracy=0.6)}, {"status": "diverged"}, {"curves": {"epoch": [2.0]}}]
)
def test_unequal_duplicates_are_refused_by_name(tmp_path, change):
    """If two outcomes of one run differ, neither is used: both files are named."""
    write(tmp_path, "a-0-0", DONE)
    write(tmp_path, "b-0-0", replace(DONE, **change))
    with pytest.raises(UserError) as caught:
        read_records(tmp_path)
    assert "vit-s0" in caught.value.summary()
    assert "a-0-0.jsonl:1" in caught.value.summary()
    assert "b-0-0.jsonl:1" in caught.value.summary()


def test_success_wins_over_failure_in_any_order(tmp_path):
    """A failed attempt before or after doesn't hide an outcome; without an outcome the newest failure counts."""
    failed = replace(DONE, status="failed", result=Result(), curves={}, reason="out of memory")
    write(tmp_path, "a-0-0", failed)
    assert read_records(tmp_path)["vit-s0"].record.status == "failed"
    write(tmp_path, "b-0-0", DONE)
    write(tmp_path, "c-0-0", failed)
    assert read_records(tmp_path)["vit-s0"].record.status == "done"


def test_an_incomplete_last_line_is_ignored(tmp_path):
    """A writer that was killed in the middle of a line loses that line only."""
    write(tmp_path, "a-0-0", DONE)
    path = tmp_path / "a-0-0.jsonl"
    path.write_text(path.read_text() + json.dumps(replace(DONE, run_id="vit-s1").to_json())[:40])
    assert list(read_records(tmp_path)) == ["vit-s0"]
    assert len(list(read_json_lines(path, hint=""))) == 1


def test_a_file_has_one_writer(tmp_path):
    """Files are created exclusively: a second writer of the same name is refused by the system."""
    JsonLinesWriter(tmp_path / "a-0-0.jsonl").close()
    with pytest.raises(FileExistsError):
        JsonLinesWriter(tmp_path / "a-0-0.jsonl")


def test_nan_is_not_written(tmp_path):
    """NaN is no JSON: it must have been replaced by a missing value before."""
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path, "a-0-0", replace(DONE, result=Result(test_accuracy=float("nan"))))


def test_an_immutable_file_stays(tmp_path):
    """Writing the same content again does nothing; other content is refused, by the file's name."""
    write_new(tmp_path / "x.json", {"a": 1})
    write_new(tmp_path / "x.json", {"a": 1})
    with pytest.raises(UserError, match=r"x\.json"):
        write_new(tmp_path / "x.json", {"a": 2})


def test_a_writers_name_can_be_read_back():
    """Launch, task and restart are in the name of every file that a worker writes."""
    assert Writer.parse(str(Writer("20261122t143501x9f3a", 12, 3))) == Writer("20261122t143501x9f3a", 12, 3)


def test_a_damaged_line_is_named(tmp_path):
    """A complete line that is no JSON is neither ignored nor a traceback: its file and line are named."""
    (tmp_path / "a.jsonl").write_text(f'{json.dumps(DONE.to_json())}\n{{"run_id" 2}}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl:2: this is damaged .*delete the line and launch again"):
        read_records(tmp_path)


IMPOSSIBLE = {
    "accuracy of 5": {"result": {"val_accuracy": 5}},
    "accuracy -1": {"result": {"val_accuracy": -1}},
    "accuracy as text": {"result": {"val_accuracy": "0.5"}},
    "accuracy true": {"result": {"val_accuracy": True}},
    "no accuracy": {"result": {}},
    "null results": {"result": None},
    "unequal curves": {"curves": {"epoch": [1, 2], "val_loss": [0.5]}},
    "curve above 1": {"curves": {"val_accuracy": [1.5]}},
    "unknown status": {"status": "finished"},
    "integer id": {"run_id": 7},
    "list as id": {"run_id": ["vit-s1"]},
    "path as id": {"run_id": "../vit-s1"},
    "other images": {"correct": {"test": "AAAA"}},
    "no base64": {"correct": {"test": "?"}},
    "negative time": {"measured": {"train_seconds": -1}},
    "cost as text": {"cost": {"macs": "3"}},
    "run null": {"run": None},
    "batch of 0": {"run": {**RUN, "train": {"epochs": 1, "batch_size": 0}}},
    "option of another type": {"run": {**RUN, "augment": {"flip": 3}}},
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_record_that_cannot_be_true_is_named_and_counts_for_nothing(tmp_path, capsys, name):
    """Its run is missing, whatever else is recorded counts, and the notice has file and line, once."""
    write(tmp_path, "a-0-0", DONE)
    path = tmp_path / "a-0-0.jsonl"
    document = {**DONE.to_json(), "run_id": "vit-s1"} | IMPOSSIBLE[name]
    path.write_text(path.read_text() + json.dumps(document) + "\n")
    assert list(read_records(tmp_path)) == list(read_records(tmp_path)) == ["vit-s0"]
    told = capsys.readouterr().err
    assert f"{path}:2: " in told and told.count("count for nothing") == 1

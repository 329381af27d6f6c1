"""Columns of the run table that are read from a record's fingerprint, old records included."""

from __future__ import annotations

from study.analysis.protocol_check import ASPECTS
from study.records.record import Record
from study.records.table import FINGERPRINT, fingerprint_entry
from study.training.device import DeviceChoice
from study.training.fingerprint import make_fingerprint


def test_an_older_name_is_read_as_the_present_one() -> None:
    """What older records call `depthwise` is the column `kernels`; what nobody recorded is missing."""
    old = Record("a", "done", {}, {}, {}, fingerprint={"depthwise": "plain", "threads": 2})
    assert [fingerprint_entry(old, name) for name in ("kernels", "threads", "optimizer")] == ["plain", 2, None]
    assert fingerprint_entry(None, "kernels") is None


def test_all_that_is_recorded_of_the_execution_is_a_column_or_a_version() -> None:
    """No entry of a fingerprint is lost on the way to the table, and the report says of each whether it was equal."""
    made = make_fingerprint(DeviceChoice("cpu"), memory_layout="contiguous", micro_batches=1)
    elsewhere = {name for name in made if name.endswith("_version")} | {"cpu_capability"}
    assert set(made) - elsewhere == set(FINGERPRINT)
    assert {*ASPECTS["device"], *ASPECTS["execution"]} == {*FINGERPRINT, "stacked"}  # a column of older tables

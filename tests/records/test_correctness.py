"""Correctness per image: what is packed comes back, and what equal runs must reproduce includes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from example_sweeps import patch_size
from test_record import DONE, write

from study.analysis.report_files import read_report_folder, write_tables
from study.analysis.report_tables import combine_studies
from study.errors import UserError
from study.records.correctness import decode_correctness, pack_correctness, unpack_correctness
from study.records.record import read_records
from study.rng import stream

SAME = replace(DONE, correct={"test": pack_correctness(np.array([True, False, True]))})


@pytest.mark.parametrize("images", [1, 7, 8, 9, 360, 10_000])
def test_what_is_packed_comes_back(images: int) -> None:
    """Law: packing loses nothing, at one bit an image and whole bytes, whatever the number of images."""
    correct = stream(0, "correctness", images).random(images) < 0.9
    packed = decode_correctness(pack_correctness(correct), images)
    assert len(packed) == (images + 7) // 8
    assert [bool(byte >> (7 - bit) & 1) for byte in packed for bit in range(8)][:images] == correct.tolist()
    np.testing.assert_array_equal(unpack_correctness(packed, images), correct)


def test_ten_thousand_images_take_less_than_2_kb_a_run(tmp_path) -> None:
    """The sizes that docs/data.md states: characters of a record, and bytes of the worst case (a coin per image) in Parquet."""
    texts = [pack_correctness(stream(0, "coins", run).random(10_000) < 0.5) for run in range(100)]
    assert {len(text) for text in texts} == {1668}
    rows = [
        (f"convmixer-p1-d112-s{run}-1d55ba2088", "test", 10_000, decode_correctness(texts[run], 10_000)) for run in range(100)
    ]
    sweep = patch_size(seeds=3).tables
    write_tables(replace(sweep, correctness=pd.DataFrame(rows, columns=["run_id", "split", "images", "correct"])), tmp_path)
    assert 1250 < (tmp_path / "correctness.parquet").stat().st_size / 100 < 1400
    again = read_report_folder(tmp_path).correctness
    assert list(again.itertuples(index=False, name=None)) == rows
    write_tables(sweep, tmp_path)
    assert not (tmp_path / "correctness.parquet").exists() and read_report_folder(tmp_path).correctness.empty


def test_a_comparison_keeps_each_studys_correctness() -> None:
    """Run ids go with the study's name, as in the other tables; a study without correctness adds none."""
    kept = pd.DataFrame({"run_id": ["a"], "split": "test", "images": 8, "correct": [b"1"]})
    first = replace(patch_size(seeds=3).tables, correctness=kept)
    second = replace(first, facts=replace(first.facts, name="other"), correctness=pd.DataFrame())
    assert combine_studies([first, second]).correctness.to_dict("list") == {**kept.to_dict("list"), "run_id": ["example/a"]}
    assert combine_studies([second]).correctness.empty


def test_other_numbers_of_images_are_refused() -> None:
    """A record whose bits are not of the images that its run names is damaged."""
    with pytest.raises(UserError, match="16 images"):
        decode_correctness(pack_correctness(np.ones(17, bool)), 16)
    with pytest.raises(UserError, match="16 images"):
        decode_correctness("AAA", 16)  # cut off


def test_equal_accuracy_with_other_images_correct_is_a_contradiction(tmp_path) -> None:
    """Two outcomes of a run that agree in all figures but not in which images were correct don't have the same bits."""
    write(tmp_path, "a-0-0", SAME)
    write(tmp_path, "b-0-0", replace(SAME, correct={"test": pack_correctness(np.array([True, True, False]))}))
    with pytest.raises(UserError, match="two outcomes of run vit-s0 differ"):
        read_records(tmp_path)


@pytest.mark.parametrize("order", [(DONE, SAME), (SAME, DONE)])
def test_an_outcome_without_correctness_contradicts_none(tmp_path, order) -> None:
    """An attempt from before correctness was kept agrees with a later one, and the one that has it counts."""
    for number, record in enumerate(order):
        write(tmp_path, f"a-0-{number}", record)
    assert read_records(tmp_path)["vit-s0"].record == SAME

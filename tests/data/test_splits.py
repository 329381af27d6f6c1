"""Laws of splits: subsets are nested and stratified, test images never move, bad labels are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_folders import CLASSES, folder_options, silent, write_folder

from study.config.options import DataOptions, ResolvedData
from study.data import describe_dataset, prepare_dataset
from study.data.digits import read_digits
from study.data.image_folder import scan_folder
from study.data.splits import Split, Splits, StoredImages, load_splits
from study.data.stratified_order import draw_seed_order
from study.errors import UserError


def digits(seed: int | None = None, **options: Any) -> Splits:
    """The fixed splits, or a seed's."""
    chosen = DataOptions(name="digits", split="fixed" if seed is None else "by_seed", **options)
    return load_splits(chosen, describe_dataset(chosen), seed=seed)


def same(a: Split, b: Split) -> bool:
    return all(torch.equal(getattr(a, field), getattr(b, field)) for field in ("images", "labels", "indices"))


def prefix(split: Split, count: int) -> Split:
    return Split(split.stored, split.rows[:count], split.labels[:count], split.indices[:count])


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_a_smaller_subset_is_contained_in_a_larger_one_and_other_splits_are_unchanged(seed: int | None) -> None:
    """train_images and test_images take prefixes; the validation split is the same for every subset."""
    whole, half = digits(seed), digits(seed, train_images=600)
    few = digits(seed, train_images=50, test_images=100)
    assert same(half.train, prefix(whole.train, 600))
    assert same(few.train, prefix(half.train, 50))
    assert same(few.test, prefix(whole.test, 100))
    assert same(few.val, whole.val) and same(half.test, whole.test)
    assert set(few.train.labels.tolist()) == set(range(10))


def test_seeds_divide_the_same_images_differently() -> None:
    """Test images are the fixed ones, and never others; training and validation images are all others, each once."""
    fixed = digits()
    others = set(range(1797)) - set(fixed.test.indices.tolist())
    validated = {}
    for seed in range(20):
        parts = digits(seed)
        assert same(parts.test, fixed.test) and parts.info == fixed.info
        images = [*parts.val.indices.tolist(), *parts.train.indices.tolist()]
        assert len(images) == len(set(images)) and set(images) == others
        assert same(parts.train_and_val, digits(seed).train_and_val) and images == parts.train_and_val.indices.tolist()
        validated[seed] = frozenset(parts.val.indices.tolist())
    assert len({*validated.values(), frozenset(fixed.val.indices.tolist())}) == 21


def test_validation_images_are_drawn_evenly() -> None:
    """Over 400 seeds, how often images of a class are validated varies as for independent draws (chi-squared, 6 sd)."""
    labels, seeds = digits().train_and_val.labels.numpy(), 400
    counts = np.bincount(np.concatenate([draw_seed_order(labels, seed)[:180] for seed in range(seeds)]), minlength=len(labels))
    for label in range(10):
        share = np.sum(labels[:180] == label) / np.sum(labels == label)
        found = counts[labels == label]
        statistic = np.sum((found - seeds * share) ** 2) / (seeds * share * (1 - share))
        assert abs(statistic - (len(found) - 1)) < 6 * np.sqrt(2 * len(found))


def test_every_seed_has_the_fixed_splits_number_of_images_of_each_class(tmp_path: Path) -> None:
    """So a split that lacks a class lacks it under every seed, and is refused before a run; classes may be unequal."""
    root = write_folder(tmp_path / "set", train=41, test=3)
    for name, kept in (("bee", 12), ("cat", 8)):
        for path in sorted((root / "train" / name).iterdir())[kept:]:
            path.unlink()
    options = folder_options(root, val_fraction=0.15, train_images=33)
    found = prepare_dataset(options, workers=1, report=silent)
    images = StoredImages.open(options, found)
    expected = images.divide("fixed", 0)
    for seed in range(10):
        parts = images.divide("by_seed", seed)
        for name in ("train", "val", "test", "train_and_val"):
            split, part = getattr(parts, name), "test" if name == "test" else "train"
            assert split.labels.bincount().tolist() == getattr(expected, name).labels.bincount().tolist()
            assert np.array_equal(split.labels, scan_folder(root).labels[part][split.indices])


def test_a_fixed_split_is_a_piece_of_the_stored_order() -> None:
    """Whatever the seed; validation images first, as in all versions, so that recorded runs can be repeated."""
    _, stored = read_digits(8)
    for seed in (None, 3):
        options = DataOptions(name="digits", train_images=500)
        parts = load_splits(options, describe_dataset(options), seed=seed)
        pieces = ((parts.val, "train", slice(180)), (parts.train, "train", slice(180, 680)), (parts.test, "test", slice(599)))
        for split, part, piece in pieces:
            assert np.array_equal(split.indices, stored.order[part][piece])
            assert np.array_equal(split.images, stored.images[part][piece])
            assert np.array_equal(split.labels, stored.labels[part][piece])


@pytest.mark.parametrize("seed", [None, 4])
def test_train_and_val_is_the_union_without_test_images(seed: int | None) -> None:
    """Final runs may train on exactly the training and the validation images."""
    parts = digits(seed, train_images=300)
    together = set(parts.train_and_val.indices.tolist())
    assert together == set(parts.train.indices.tolist()) | set(parts.val.indices.tolist())
    assert len(together) == 480
    assert not together & set(parts.test.indices.tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_images": 1019}, "data.train_images: digits has 1,018 to choose from (got 1019)"),
        ({"test_images": 600}, "data.test_images: digits has 599 to choose from (got 600)"),
        ({"train_images": 9}, "data.train_images: 10 classes need at least as many images (got 9)"),
        (
            {"val_fraction": 0.003},
            "data.val_fraction: leaves 5 validation images for 10 classes, which need one each: at least 0.005565",
        ),
    ],
)
def test_an_impossible_subset_is_refused_with_the_numbers(options: dict[str, Any], message: str) -> None:
    """More images than exist, fewer than classes, a class missing from a split: each error names its key and count."""
    with pytest.raises(UserError) as refused:
        describe_dataset(DataOptions(name="digits", **options))
    assert message in str(refused.value)


def test_two_wrong_counts_are_reported_at_once() -> None:
    """One error names both."""
    with pytest.raises(UserError) as refused:
        describe_dataset(DataOptions(name="cifar10", train_images=45_001, test_images=5))
    assert len(refused.value.problems) == 2


def test_splits_of_a_folder_are_memory_mapped_and_never_copied(tmp_path: Path) -> None:
    """The images of all splits share the pages of one file each; writing to a tensor never reaches the file."""
    options = folder_options(write_folder(tmp_path / "set"), val_fraction=0.2)
    found = prepare_dataset(options, workers=1, report=silent)
    splits = load_splits(options, found)
    maps = Path(f"/proc/{os.getpid()}/maps")
    if maps.exists():
        own = [line for line in maps.read_text().splitlines() if line.endswith("train_images.npy") and str(tmp_path) in line]
        assert len(own) == 1
    assert splits.val.stored.data_ptr() == splits.train.stored.data_ptr()
    assert [len(splits.train), len(splits.val), len(splits.test)] == [48, 12, 18]
    assert splits.val.labels.bincount().tolist() == [4, 4, 4]
    before = splits.train.images
    splits.train.stored.zero_()
    assert torch.equal(load_splits(options, found).train.images, before)


def test_a_resolved_run_reads_by_digest_and_never_reads_the_root(tmp_path: Path) -> None:
    """On a compute node the folder may be absent: the digest finds the cache; a wrong digest is refused."""
    options = folder_options(write_folder(tmp_path / "set"))
    found = prepare_dataset(options, workers=1, report=silent)
    resolved = {
        "digest": found.digest,
        "image_size": found.image_size,
        "train_images": found.train_images,
        "val_images": found.val_images,
        "test_images": found.test_images,
        "num_classes": found.num_classes,
        "channels": found.channels,
        "root": "/nowhere",
    }
    data = ResolvedData.model_validate(options.model_dump() | resolved)
    assert describe_dataset(data) == found
    assert len(load_splits(data, describe_dataset(data)).train) == found.train_images
    with pytest.raises(UserError, match="not prepared here"):
        describe_dataset(data.model_copy(update={"digest": "0" * 64}))
    digits_now = {"name": "digits", "image_size": 8, "train_images": 1018, "test_images": 599}
    changed = ResolvedData.model_validate(data.model_dump() | digits_now)
    with pytest.raises(UserError, match="has changed since the run was planned"):
        describe_dataset(changed)


@pytest.mark.parametrize("label", [-1, len(CLASSES)])
def test_a_label_out_of_range_is_refused_by_number(tmp_path: Path, label: int) -> None:
    """A damaged label array is caught before the first step, with what was found and what is allowed."""
    options = folder_options(write_folder(tmp_path / "set"))
    found = prepare_dataset(options, workers=1, report=silent)
    path = next((tmp_path / "cache").glob("folder-*/train_labels.npy"))
    labels = np.load(path)
    labels[[3, 5]] = label
    np.save(path, labels)
    with pytest.raises(UserError) as refused:
        load_splits(options, found)
    assert f"labels of folder must be in 0..2; 2 of the train set are not (got [{label}])" in str(refused.value)


@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy", "train_order.npy", "facts.json"])
@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: os.truncate(path, 0),
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)),
    ],
)
def test_a_damaged_store_is_told_and_prepared_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], object]
) -> None:
    """Loading refuses it and names the remedy, which then leaves the bytes that were there before."""
    options = folder_options(write_folder(tmp_path / "set"))
    found = prepare_dataset(options, workers=1, report=silent)
    [store] = (tmp_path / "cache").glob("folder-*")
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    damage(store / name)
    with pytest.raises(UserError, match=r"study\.prepare"):
        load_splits(options, found)
    assert prepare_dataset(options, workers=1, report=silent) == found
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before
    told = name != "facts.json" or damage is not Path.unlink  # without facts there is no store
    assert ("study.prepare` builds it anew" in capsys.readouterr().err) == told
    assert len(load_splits(options, found).train) == found.train_images


def test_loading_unprepared_images_names_the_command(tmp_path: Path) -> None:
    """A published set is known but not in the cache: the error names the command to run."""
    options = DataOptions(name="cifar10", cache=str(tmp_path))
    with pytest.raises(UserError, match=r"cifar10 is not prepared at 32 px: run `python -m study.prepare SWEEP` first"):
        load_splits(options, describe_dataset(options))

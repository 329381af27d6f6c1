"""Laws of prepared folders: torchvision's pixels, decoded once, resumed where interrupted, the same from any process."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import CLASSES, acquire_lock, folder_options, prepare_first_chunk, prepare_in_process, silent, write_folder
from PIL import Image

from study.data import DatasetInfo, describe_dataset, prepare_dataset
from study.data.cache import hold_build_lock
from study.data.folder_decoder import CHUNK_ROWS
from study.data.splits import load_splits
from study.data.torchvision_schema import declare_missing_operators

declare_missing_operators()

from torchvision.datasets import ImageFolder  # noqa: E402  the schemas come first
from torchvision.transforms import InterpolationMode  # noqa: E402
from torchvision.transforms.v2 import functional as F  # noqa: E402


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)


def stores(cache: Path) -> dict[str, bytes]:
    """Every finished store's files with their content."""
    return {str(path.relative_to(cache)): path.read_bytes() for path in sorted(cache.glob("folder-*/*"))}


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_images_labels_and_classes_are_those_of_torchvisions_image_folder(tmp_path: Path, suffix: str) -> None:
    """At the files' own size every pixel and label equals ImageFolder's at the position that `indices` names."""
    root = write_folder(tmp_path / "set", suffix=suffix)
    options = folder_options(root)
    splits = load_splits(options, prepare_dataset(options, workers=1, report=silent))
    assert splits.info.class_names == tuple(ImageFolder(root / "train").classes) == CLASSES
    for split, part in ((splits.train_and_val, "train"), (splits.test, "test")):
        source = ImageFolder(root / part)
        assert sorted(split.indices.tolist()) == list(range(len(source)))
        for image, label, at in zip(split.images, split.labels, split.indices, strict=True):
            pillow, expected = source[int(at)]
            assert int(label) == expected
            assert np.array_equal(image.numpy(), pixels(pillow))


@pytest.mark.parametrize(("width", "height"), [(40, 40), (48, 36), (7, 9)])
def test_another_size_is_torchvisions_antialiased_resize_of_the_centred_square(tmp_path: Path, width: int, height: int) -> None:
    """Reduced and enlarged images equal crop and resize by torchvision on Pillow; a tensor's resize is near."""
    root = write_folder(tmp_path / "set", train=4, test=2)
    random = np.random.default_rng(1)
    for path in root.rglob("*.png"):
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    options = folder_options(root, image_size=16, val_fraction=0.3)
    splits = load_splits(options, prepare_dataset(options, workers=1, report=silent))
    source, side = ImageFolder(root / "test"), min(width, height)
    for image, at in zip(splits.test.images, splits.test.indices, strict=True):
        square = F.center_crop(source[int(at)][0], [side, side])
        assert np.array_equal(image.numpy(), pixels(F.resize(square, [16, 16], InterpolationMode.BICUBIC, antialias=True)))
        tensor = F.resize(F.pil_to_tensor(square), [16, 16], InterpolationMode.BICUBIC, antialias=True)
        assert (tensor.int() - image.int()).abs().max() <= 2


def test_mean_and_deviation_are_of_the_training_images(tmp_path: Path) -> None:
    """They equal numpy's over all training pixels; the test set is not used."""
    options = folder_options(write_folder(tmp_path / "set"))
    splits = load_splits(options, prepare_dataset(options, workers=1, report=silent))
    values = splits.train_and_val.images.numpy() / 255
    np.testing.assert_allclose(splits.info.mean, values.mean(axis=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(splits.info.std, values.std(axis=(0, 2, 3)), atol=1e-6)


def test_many_processes_write_the_bytes_of_one(tmp_path: Path) -> None:
    """Two workers and none write equal stores, byte by byte."""
    root = write_folder(tmp_path / "set", train=CHUNK_ROWS // 3 + 10)
    for workers, cache in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        prepare_dataset(folder_options(root, cache=str(cache)), workers=workers, report=silent)
    assert stores(tmp_path / "one") == stores(tmp_path / "two")


def test_an_unchanged_folder_is_not_decoded_again_and_a_changed_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is used while every path, size and time is the same, and refused once one differs."""
    root = write_folder(tmp_path / "set")
    options = folder_options(root)
    first = prepare_dataset(options, workers=1, report=silent)
    with monkeypatch.context() as patched:
        patched.setattr("study.data.folder_decoder.decode_image", None)
        assert prepare_dataset(options, workers=1, report=silent) == describe_dataset(options) == first
    some = root / "train" / CLASSES[0] / "000.png"
    shutil.copy(root / "train" / CLASSES[1] / "000.png", some)
    os.utime(some, ns=(1, 1))
    with pytest.raises(Exception, match=r"not prepared, or changed since: run `python -m study.prepare SWEEP` first"):
        describe_dataset(options)
    assert prepare_dataset(options, workers=1, report=silent).digest != first.digest


def test_the_digest_is_of_the_content_not_of_its_path_or_time(tmp_path: Path) -> None:
    """A copy elsewhere with other times has the same digest and shares the store; other pixels have another."""
    root = write_folder(tmp_path / "set")
    first = prepare_dataset(folder_options(root), workers=1, report=silent)
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(root, copy, copy_function=shutil.copyfile)
    assert prepare_dataset(folder_options(copy, cache=str(tmp_path / "cache")), workers=1, report=silent) == first
    assert len(list((tmp_path / "cache").glob("folder-*"))) == 1
    assert not list((tmp_path / "cache" / "building").iterdir())


def test_val_is_the_test_set_where_there_is_no_test_folder(tmp_path: Path) -> None:
    """val/ alone is the test set; where test/ exists, val/ is not read."""
    only_val = folder_options(write_folder(tmp_path / "a" / "set", test_name="val"))
    both = folder_options(write_folder(tmp_path / "b" / "set"))
    shutil.copytree(tmp_path / "a" / "set" / "val" / CLASSES[0], tmp_path / "b" / "set" / "val" / "another class")
    assert prepare_dataset(only_val, workers=1, report=silent).test_images == 18
    assert prepare_dataset(both, workers=1, report=silent).test_images == 18


def test_other_files_are_ignored_and_subfolders_are_read(tmp_path: Path) -> None:
    """Hidden files, notes and nested folders: only images count, at any depth, in capitals too."""
    root = write_folder(tmp_path / "set")
    (root / "train" / CLASSES[0] / "notes.txt").write_text("no image")
    (root / "train" / ".DS_Store").write_text("no class")
    (root / "train" / CLASSES[0] / "._000.png").write_text("no image either")
    (root / "train" / CLASSES[0] / "more").mkdir()
    shutil.copy(root / "train" / CLASSES[0] / "000.png", root / "train" / CLASSES[0] / "more" / "000.PNG")
    found = prepare_dataset(folder_options(root), workers=1, report=silent)
    assert found.train_images + found.val_images == 61


def test_images_of_every_8_bit_mode_are_read_as_rgb(tmp_path: Path) -> None:
    """Gray, palette, transparent and CMYK files give what Pillow's conversion to RGB gives."""
    root = write_folder(tmp_path / "set", train=20, test=2)
    source = Image.open(root / "test" / CLASSES[0] / "000.png").convert("RGB")
    kinds = {"000.png": source.convert("P"), "001.png": source.convert("LA"), "002.png": source.convert("1")}
    kinds |= {"003.png": source.convert("RGBA"), "004.png": source.convert("L"), "005.tif": source.convert("CMYK")}
    folder = root / "test" / CLASSES[0]
    for path in folder.iterdir():
        path.unlink()
    for name, image in kinds.items():
        image.save(folder / name)
    options = folder_options(root)
    splits = load_splits(options, prepare_dataset(options, workers=1, report=silent))
    expected = ImageFolder(root / "test")
    for image, at in zip(splits.test.images, splits.test.indices, strict=True):
        assert np.array_equal(image.numpy(), pixels(expected[int(at)][0]))


class Killed(Exception):
    """Simulates a process that is killed during its work."""


def test_an_interrupted_build_is_resumed_and_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after a chunk, with an incomplete last line in the journal: chunks on disk are not decoded again."""
    root = write_folder(tmp_path / "set", train=CHUNK_ROWS)  # three chunks and one of test images
    whole, broken = (folder_options(root, cache=str(tmp_path / name)) for name in ("whole", "broken"))
    prepare_dataset(whole, workers=1, report=silent)

    def kill(what: str, done: int, total: int) -> None:
        if done >= 2 * CHUNK_ROWS:
            raise Killed

    with pytest.raises(Killed):
        prepare_dataset(broken, workers=1, report=kill)
    journal = next((tmp_path / "broken" / "building").glob("*/journal.jsonl"))
    with open(journal, "a") as lines:
        lines.write('{"part": "train", "start": 512, "sha2')
    seen: list[int] = []
    assert prepare_dataset(broken, workers=1, report=lambda what, done, total: seen.append(done)) == describe_dataset(whole)
    assert seen == [3 * CHUNK_ROWS, 3 * CHUNK_ROWS + 18]
    assert stores(tmp_path / "broken") == stores(tmp_path / "whole")


def _children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def _runs(process: int) -> bool:
    """Whether the process exists and is no zombie (which remains until pid 1 reaps it)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_workers_of_a_killed_process_exit_with_it(tmp_path: Path) -> None:
    """After SIGKILL of the parent, the workers exit by themselves, and the next prepare uses what they decoded."""
    root = write_folder(tmp_path / "set", train=2 * CHUNK_ROWS)
    context = multiprocessing.get_context("spawn")
    messages: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=prepare_first_chunk, args=(folder_options(root), messages))
    process.start()
    assert process.pid is not None and messages.get(timeout=60) > 0
    workers = _children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.join(timeout=60)
    deadline = time.monotonic() + 30
    while any(map(_runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, workers))
    seen: list[int] = []
    prepare_dataset(folder_options(root), workers=1, report=lambda what, done, total: seen.append(done))
    assert seen[0] > CHUNK_ROWS


def test_two_processes_that_prepare_at_once_build_one_store(tmp_path: Path) -> None:
    """Both return the same description; one decoded, the other waited or found the store."""
    options = folder_options(write_folder(tmp_path / "set"))
    context = multiprocessing.get_context("spawn")
    messages: multiprocessing.Queue[DatasetInfo] = context.Queue()
    processes = [context.Process(target=prepare_in_process, args=(options, messages)) for _ in range(2)]
    for process in processes:
        process.start()
    first, second = messages.get(timeout=60), messages.get(timeout=60)
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert first == second == describe_dataset(options)
    assert len(list((tmp_path / "cache").glob("folder-*"))) == 1


def test_waiting_for_a_lock_is_reported(tmp_path: Path) -> None:
    """The second builder reports that it waits, and continues when the first is done."""
    context = multiprocessing.get_context("spawn")
    messages: multiprocessing.Queue[str] = context.Queue()
    with hold_build_lock(tmp_path, "key", silent):
        process = context.Process(target=acquire_lock, args=(tmp_path, messages))
        process.start()
        assert messages.get(timeout=60).startswith("waiting for another process")
        assert process.is_alive()
    assert messages.get(timeout=60) == "acquired"
    process.join(timeout=60)


def test_an_equal_store_that_was_published_meanwhile_is_kept(tmp_path: Path) -> None:
    """A build of content that is stored already leaves the store untouched and is deleted."""
    root = write_folder(tmp_path / "set")
    options = folder_options(root)
    first = prepare_dataset(options, workers=1, report=silent)
    store = next((tmp_path / "cache").glob("folder-*"))
    inode = store.stat().st_ino
    shutil.rmtree(tmp_path / "cache" / "scans")
    assert prepare_dataset(options, workers=1, report=silent) == first
    assert store.stat().st_ino == inode
    assert json.loads((store / "facts.json").read_text())["digest"] == first.digest


def test_images_are_those_of_the_files_after_a_round_through_torch(tmp_path: Path) -> None:
    """A split's tensors are what np.load reads from the store."""
    options = folder_options(write_folder(tmp_path / "set"))
    splits = load_splits(options, prepare_dataset(options, workers=1, report=silent))
    stored = np.load(next((tmp_path / "cache").glob("folder-*")) / "train_images.npy")
    assert torch.equal(splits.train_and_val.images, torch.from_numpy(stored))

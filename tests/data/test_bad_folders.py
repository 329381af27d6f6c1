"""Laws of bad input: everything wrong with a folder or a disk is named, counted and refused before training."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from image_folders import CLASSES, folder_options, silent, write_folder
from PIL import Image

from study.config.options import DataOptions
from study.config.sweep_file import read_sweep
from study.data import NotPrepared, prepare_dataset
from study.data.images import FORMATS
from study.errors import UserError, describe_refusal
from study.planning.sweep_plan import make_plan


def refusal(options: DataOptions, workers: int = 1) -> UserError:
    with pytest.raises(UserError) as refused:
        prepare_dataset(options, workers=workers, report=silent)
    return refused.value


def test_every_bad_image_is_named_with_its_reason_and_counted(tmp_path: Path) -> None:
    """Empty, truncated, foreign and 16-bit files, in train and test: one refusal names all, and nothing is left."""
    root = write_folder(tmp_path / "set", suffix="jpg", size=40)
    bad = [root / "train" / CLASSES[k] / "003.jpg" for k in range(3)] + [root / "test" / CLASSES[1] / "004.jpg"]
    bad[0].write_bytes(b"")
    os.truncate(bad[1], bad[1].stat().st_size // 2)
    bad[2].write_bytes(b"not an image")
    Image.fromarray(np.full((40, 40), 40_000, dtype=np.uint16)).save(bad[3], format="PNG")
    for workers in (1, 2):
        error = refusal(folder_options(root), workers)
        assert "4 of 78 images can't be used" in error.summary()
        reasons = ("empty file", "truncated", "cannot identify", "pixel format I;16")
        for path, reason in zip(bad, reasons, strict=True):
            assert any(problem.place == str(path) and reason in problem.rule for problem in error.problems), reason
        assert not list((tmp_path / "cache").glob("folder-*")) and not list((tmp_path / "cache" / "building").iterdir())


@pytest.mark.parametrize("kind", ["postscript", "pipe", "endless", "huge"])
def test_only_the_formats_that_are_meant_are_decoded(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named .png but is a program, a pipe, a device or too large is reported; nothing hangs, nothing is started."""
    root = write_folder(tmp_path / "set")
    path = root / "train" / CLASSES[0] / "000.png"
    path.unlink()
    match kind:
        case "postscript":
            Image.new("RGB", (12, 12)).save(path, format="EPS")
        case "pipe":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "huge":
            monkeypatch.setattr("study.data.images.MAX_FILE_BYTES", 1000)
            path.write_bytes(bytes(1001))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    error = refusal(folder_options(root, image_size=12))
    reason = {"postscript": "cannot identify", "huge": "larger than"}.get(kind, "not a regular file")
    assert any(problem.place == str(path) and reason in problem.rule for problem in error.problems)


def test_files_of_another_size_need_image_size(tmp_path: Path) -> None:
    """Without image_size all must be of one square size: others are named with both sizes."""
    root = write_folder(tmp_path / "set")
    odd = root / "train" / CLASSES[2] / "005.png"
    Image.new("RGB", (13, 12)).save(odd)
    error = refusal(folder_options(root))
    assert f"{odd}: is 13x12, others 12x12; set data.image_size to resize all" in error.summary()
    assert prepare_dataset(folder_options(root, image_size=12), workers=1, report=silent).image_size == 12
    for path in root.rglob("*.png"):
        Image.new("RGB", (13, 12)).save(path)
    assert "images of 13x12 are not square; set data.image_size" in refusal(folder_options(root)).summary()


def test_missing_and_empty_classes_are_reported_at_once(tmp_path: Path) -> None:
    """A class without a folder on either side and a class without images: each is named with the missing part."""
    root = write_folder(tmp_path / "set")
    shutil.rmtree(root / "test" / CLASSES[0])
    (root / "test" / "dog").mkdir()
    shutil.copy(root / "train" / CLASSES[1] / "000.png", root / "test" / "dog" / "000.png")
    for path in (root / "train" / CLASSES[2]).iterdir():
        path.unlink()
    message = refusal(folder_options(root)).summary()
    assert "class 'ant' is missing in test/" in message
    assert "class 'dog' is missing in train/" in message
    assert "class 'cat' has no images in train/" in message


@pytest.mark.parametrize("parts", [(), ("train",), ("test",)])
def test_a_folder_of_another_layout_raises_an_error_with_the_layout(tmp_path: Path, parts: tuple[str, ...]) -> None:
    """No folder, no train/ or no test images: the error has the rule and what was found instead."""
    root = tmp_path / "set"
    for part in parts:
        (root / part / "ant").mkdir(parents=True)
    message = refusal(folder_options(root)).summary()
    assert "an image folder holds train/<class>/* and test/<class>/* (or val/<class>/*)" in message
    assert (str(list(parts)) if parts else "no such folder") in message


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    """An image that can't be opened is reported by its path, without a traceback."""
    root = write_folder(tmp_path / "set")
    link = root / "train" / CLASSES[0] / "gone.png"
    link.symlink_to(tmp_path / "nowhere.png")
    assert refusal(folder_options(root)).summary() == f"{link}: data.root: No such file or directory"


def test_a_dead_link_in_place_of_a_class_is_named(tmp_path: Path) -> None:
    """In both parts the class would be missing without a word, and a link without an image's suffix would be ignored."""
    root = write_folder(tmp_path / "set")
    for part in ("train", "test"):
        shutil.rmtree(root / part / CLASSES[0])
        (root / part / CLASSES[0]).symlink_to(tmp_path / "nowhere")
    assert refusal(folder_options(root)).summary() == f"{root / 'train' / CLASSES[0]}: data.root: a link that leads nowhere"


def test_every_name_of_an_image_format_is_read_and_other_files_are_counted(tmp_path: Path) -> None:
    """The suffixes that Pillow knows for the formats that are decoded, in any case; whatever isn't read is told."""
    root = write_folder(tmp_path / "set")
    registered = [suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS and suffix != ".pfm"]
    files = sorted((root / "train" / CLASSES[0]).iterdir())
    assert {".jfif", ".jpe", ".pnm"} <= {*registered} and len(registered) < len(files)
    for path, suffix in zip(files, registered, strict=False):
        path.rename(path.with_name(f"{path.stem}-{suffix[1:]}{suffix.upper()}"))
    for name in ("photo.heic", "list.txt", "noise"):
        (root / "train" / CLASSES[1] / name).write_text("")
    info = prepare_dataset(folder_options(root), workers=1, report=silent)
    assert info.train_images + info.val_images == 60
    assert info.notes == ("not read as images: 1 .heic, 1 .txt, 1 without a suffix",)


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    """There is nothing to learn, and the linear baseline can't be fitted."""
    root = write_folder(tmp_path / "set")
    for part, name in [(part, name) for part in ("train", "test") for name in CLASSES[1:]]:
        shutil.rmtree(root / part / name)
    assert "a single class: there is nothing to tell apart" in refusal(folder_options(root)).summary()


def test_unlabelled_test_images_leave_a_labelled_val_to_test_on(tmp_path: Path) -> None:
    """As ImageNet is distributed: the refusal names `data.test_folder`, which chooses the part; a wrong one is refused."""
    root = write_folder(tmp_path / "set", test_name="val")
    (root / "test").mkdir()
    shutil.copy(root / "val" / CLASSES[0] / "000.png", root / "test")
    message = refusal(folder_options(root)).summary()
    assert "no class folders in test/, so its images have no labels; data.test_folder names another" in message
    assert "(here: val)" in message and len(message.splitlines()) == 1
    info = prepare_dataset(folder_options(root, test_folder="val"), workers=1, report=silent)
    (root / "test").rename(tmp_path / "away")
    assert prepare_dataset(folder_options(root), workers=1, report=silent).digest == info.digest and info.test_images == 18
    assert (
        "data.test_folder: no such folder of test images (got 'valid')"
        in refusal(folder_options(root, test_folder="valid")).summary()
    )


def test_images_in_train_and_test_alike_are_told(tmp_path: Path) -> None:
    """Under whatever names: two of 18 test images are files of the training set. It is told each time, also from the cache."""
    root = write_folder(tmp_path / "set")
    for number in (1, 2):
        shutil.copy(root / "train" / CLASSES[2] / "007.png", root / "test" / CLASSES[2] / f"00{number}.png")
    for _ in range(2):
        info = prepare_dataset(folder_options(root), workers=1, report=silent)
        assert info.notes == ("2 of 18 test images are the same files as training images: accuracies on them are no test",)


def test_colors_of_16_bits_are_refused(tmp_path: Path) -> None:
    """Pillow would drop their lower half: PNG, PPM and TIFF with two bytes per channel."""
    root = write_folder(tmp_path / "set")
    pixels = np.random.default_rng(0).integers(0, 65536, (12, 12, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 12, 12, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    framed = (struct.pack(">I", len(b)) + a + b + struct.pack(">I", zlib.crc32(a + b)) for a, b in chunks)
    bad = {
        "png": b"\x89PNG\r\n\x1a\n" + b"".join(framed),
        "ppm": b"P6\n# two bytes\n12 12\n65535\n" + pixels.astype(">u2").tobytes(),
    }
    for suffix, content in bad.items():
        (root / "train" / CLASSES[0] / f"deep.{suffix}").write_bytes(content)
    error = refusal(folder_options(root))
    assert "2 of 80 images can't be used" in error.summary() and error.summary().count("16 bits: 8 bits") == 2


def test_a_class_too_small_for_the_validation_split_is_named(tmp_path: Path) -> None:
    """A class of two images leaves none for a validation split of a tenth."""
    root = write_folder(tmp_path / "set", train=40)
    for path in sorted((root / "train" / CLASSES[1]).iterdir())[2:]:
        path.unlink()
    message = refusal(folder_options(root)).summary()
    assert "data.val_fraction: the val split has no image of 1 class (bee) (got 8)" in message


def test_a_disk_that_is_too_small_is_reported_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Needed and free space are named, and no image is decoded."""
    root = write_folder(tmp_path / "set")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    monkeypatch.setattr("study.data.folder_decoder.decode_chunk", None)
    message = refusal(folder_options(root, image_size=64)).summary()
    assert "not enough disk space: the decoded images take 0.00 GB, and 0.00 GB are free" in message


def disk_error(options: DataOptions) -> str:
    with pytest.raises(OSError, match=r"\[Errno") as refused:
        prepare_dataset(options, workers=1, report=silent)
    return describe_refusal(refused.value)


def test_a_full_disk_or_quota_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocation that fails although space seemed free (a quota, another user) names the folder and the option."""
    root = write_folder(tmp_path / "set")

    def full(handle: int, start: int, size: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    message = disk_error(folder_options(root))
    assert "data.cache=... chooses another folder" in message and "cache: Disk quota exceeded" in message


def test_a_cache_that_cannot_be_written_is_reported_with_its_key(tmp_path: Path) -> None:
    """A cache below a file (root may write anywhere else) is reported with the option that changes it."""
    root = write_folder(tmp_path / "set")
    (tmp_path / "file").write_text("")
    message = disk_error(folder_options(root, cache=str(tmp_path / "file" / "cache")))
    assert "data.cache=... chooses another folder" in message and "file/cache/locks: Not a directory" in message


def test_a_read_only_root_is_accepted(tmp_path: Path) -> None:
    """A folder of images is only read: nothing appears below it."""
    root = write_folder(tmp_path / "set")
    before = sorted(root.rglob("*"))
    for path in (root, *before):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        prepare_dataset(folder_options(root), workers=1, report=silent)
    finally:
        for path in (root, *before):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert sorted(root.rglob("*")) == before


def test_wrong_models_are_reported_before_a_folder_is_prepared(tmp_path: Path) -> None:
    """Hours of decoding need not end in them: the size of the images is enough to know. Right ones only lack the images."""
    root = write_folder(tmp_path / "set")
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"question: q\ndata: {{name: folder, root: {root}, cache: {tmp_path}, image_size: 8}}\nbackbone: convmixer\n"
        "model: {depth: 1, dim: 8, kernel_size: 3, patch_size: 2}\ntrain: {epochs: 1, batch_size: 4}\nseeds: 1\n"
    )
    with pytest.raises(NotPrepared):
        make_plan(read_sweep(path))
    with pytest.raises(UserError, match=r"must divide image_size(.|\n)*not prepared"):
        make_plan(read_sweep(path, ["model.patch_size=3"]))
    with pytest.raises(UserError, match="kernel_size must be odd"):
        make_plan(read_sweep(path, ["model.kernel_size=4"]))

"""Laws of the published sets: torchvision downloads, verifies and reads them; classes and checksums are torchvision's."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import silent
from PIL import Image
from published_archives import Part, example, served, write_cifar, write_fashion_mnist, write_svhn

from study.config.options import DataOptions
from study.data import describe_dataset, prepare_dataset
from study.data.datasets import DATASETS
from study.data.splits import load_splits
from study.data.torchvision_datasets import PUBLISHED_DATASETS, PublishedDataset
from study.data.torchvision_schema import declare_missing_operators
from study.errors import UserError

declare_missing_operators()

from torchvision import datasets  # noqa: E402  the schemas come first

Serve = Callable[[str], dict[str, Part]]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Writes a small archive of a set and points torchvision's class at it; returns its content."""
    archives = tmp_path / "archives"
    archives.mkdir()

    def serve_one(name: str) -> dict[str, Part]:
        known = PUBLISHED_DATASETS[name]
        source = known.source
        parts = example(source.image_size, source.channels, classes=len(source.class_names))
        WRITERS[name](archives, parts, address, monkeypatch)
        train, test = (len(parts[part][0]) for part in ("train", "test"))
        source = dataclasses.replace(source, train_images=train, test_images=test, fraction_of=train)
        monkeypatch.setitem(DATASETS.own, name, dataclasses.replace(known, source=source))
        return parts

    with served(archives) as address:
        yield serve_one


def _cifar(fine: bool, archives: Path, parts: dict[str, Part], address: str, patch: pytest.MonkeyPatch) -> None:
    kind = datasets.CIFAR100 if fine else datasets.CIFAR10
    sums = write_cifar(archives, parts, fine=fine)
    patch.setattr(kind, "url", address + kind.filename)
    patch.setattr(kind, "tgz_md5", sums["archive"])
    patch.setattr(kind, "train_list", [[name, sums[name]] for name, _ in kind.train_list])
    patch.setattr(kind, "test_list", [[name, sums[name]] for name, _ in kind.test_list])
    patch.setattr(kind, "meta", {**kind.meta, "md5": sums[kind.meta["filename"]]})


def _fashion_mnist(archives: Path, parts: dict[str, Part], address: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(datasets.FashionMNIST, "resources", write_fashion_mnist(archives, parts))
    patch.setattr(datasets.FashionMNIST, "mirrors", [address])


def _svhn(archives: Path, parts: dict[str, Part], address: str, patch: pytest.MonkeyPatch) -> None:
    sums = write_svhn(archives, parts)
    files = {part: [f"{address}{part}_32x32.mat", f"{part}_32x32.mat", sums[part]] for part in parts}
    patch.setattr(datasets.SVHN, "split_list", files)


WRITERS: dict[str, Callable[[Path, dict[str, Part], str, pytest.MonkeyPatch], None]] = {
    "cifar10": lambda *given: _cifar(False, *given),
    "cifar100": lambda *given: _cifar(True, *given),
    "fashion_mnist": _fashion_mnist,
    "svhn": _svhn,
}


def options_for(name: str, tmp_path: Path, **options: object) -> DataOptions:
    places = {"root": str(tmp_path / "root"), "cache": str(tmp_path / "cache")}
    return DataOptions.model_validate({"name": name, "val_fraction": 0.34, **places, **options})


@pytest.mark.parametrize("name", sorted(PUBLISHED_DATASETS))
def test_a_set_is_downloaded_by_torchvision_and_stored_as_published(name: str, tmp_path: Path, serve: Serve) -> None:
    """Downloaded over HTTP and read by torchvision's class: every pixel and label equals the archive's."""
    parts = serve(name)
    options = options_for(name, tmp_path)
    splits = load_splits(options, prepare_dataset(options, workers=1, report=silent))
    for split, part in ((splits.train_and_val, "train"), (splits.test, "test")):
        images, labels = parts[part]
        assert sorted(split.indices.tolist()) == list(range(len(images)))
        assert np.array_equal(split.images.numpy().transpose(0, 2, 3, 1), images[split.indices])
        assert np.array_equal(split.labels.numpy(), labels[split.indices])
    assert splits.info == describe_dataset(options)


def test_files_in_the_root_need_no_network(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Existing files are read; a second prepare at another size downloads nothing."""
    serve("cifar10")
    prepare_dataset(options_for("cifar10", tmp_path), workers=1, report=silent)
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/gone.tar.gz")
    larger = options_for("cifar10", tmp_path, image_size=40)
    splits = load_splits(larger, prepare_dataset(larger, workers=1, report=silent))
    native = load_splits(options_for("cifar10", tmp_path), describe_dataset(options_for("cifar10", tmp_path)))
    assert torch.equal(splits.train.indices, native.train.indices)
    for large, small in zip(splits.test.images, native.test.images, strict=True):
        image = Image.fromarray(small.permute(1, 2, 0).numpy()).resize((40, 40), Image.Resampling.BICUBIC)
        assert np.array_equal(large.permute(1, 2, 0).numpy(), np.asarray(image))


def test_without_network_the_file_to_download_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a compute node: one line with the cause, the archive and the folder for it."""
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(UserError) as refused:
        prepare_dataset(options_for("cifar10", tmp_path), workers=1, report=silent)
    message = refused.value.summary()
    assert message.startswith(f"{tmp_path / 'root'}: data.root: cifar10 can be neither read nor downloaded here")
    assert "put cifar-10-python.tar.gz there and run the command again" in message
    assert "is there" not in message and not list((tmp_path / "cache").glob("cifar10-*"))
    (tmp_path / "root" / "cifar-10-python.tar.gz").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"cifar-10-python.tar.gz is there, but cut off or damaged .*: remove it"):
        prepare_dataset(options_for("cifar10", tmp_path), workers=1, report=silent)


def test_a_root_that_cannot_be_written_is_reported_with_its_key(tmp_path: Path, serve: Serve) -> None:
    """A root below a file: the place and data.root, not a traceback."""
    serve("cifar10")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as refused:
        prepare_dataset(options_for("cifar10", tmp_path, root=str(tmp_path / "file" / "root")), workers=1, report=silent)
    assert refused.value.summary().startswith(f"{tmp_path / 'file' / 'root'}: data.root: cifar10 can be neither read nor")


def test_a_truncated_archive_is_refused(tmp_path: Path, serve: Serve) -> None:
    """Content that differs from the published one fails its checksum and leaves no cache."""
    serve("svhn")
    archive = tmp_path / "archives" / "train_32x32.mat"
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(UserError, match="svhn can be neither read nor downloaded"):
        prepare_dataset(options_for("svhn", tmp_path), workers=1, report=silent)
    assert not list((tmp_path / "cache").glob("svhn-*"))


@pytest.mark.parametrize("lost", ["", "archive"])
def test_extracted_files_are_those_of_the_archive(tmp_path: Path, serve: Serve, lost: str) -> None:
    """All-black images of the right size are refused by name, whether or not the archive is there to compare with."""
    serve("fashion_mnist")
    prepare_dataset(options_for("fashion_mnist", tmp_path), workers=1, report=silent)
    images = tmp_path / "root/FashionMNIST/raw/train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:16] + bytes(images.stat().st_size - 16))
    if lost:
        images.with_name(f"{images.name}.gz").unlink()
    again = options_for("fashion_mnist", tmp_path, cache=str(tmp_path / "other"))
    with pytest.raises(UserError, match=images.name):
        prepare_dataset(again, workers=1, report=silent)
    assert not list((tmp_path / "other").glob("fashion_mnist-*"))
    images.unlink()
    prepare_dataset(again, workers=1, report=silent)


def test_another_number_of_images_than_published_is_refused(tmp_path: Path, serve: Serve) -> None:
    """Readable files with fewer images are refused."""
    serve("fashion_mnist")
    known = DATASETS["fashion_mnist"]
    assert isinstance(known, PublishedDataset)
    source = dataclasses.replace(known.source, train_images=60_000, fraction_of=60_000)
    DATASETS.own["fashion_mnist"] = dataclasses.replace(known, source=source)
    with pytest.raises(UserError, match="fashion_mnist has"):
        prepare_dataset(options_for("fashion_mnist", tmp_path), workers=1, report=silent)


def test_checksums_and_class_names_are_torchvisions() -> None:
    """Checksums and class names are those in torchvision's classes."""
    md5 = {
        "cifar10": [datasets.CIFAR10.tgz_md5],
        "cifar100": [datasets.CIFAR100.tgz_md5],
        "fashion_mnist": [checksum for _, checksum in datasets.FashionMNIST.resources],
        "svhn": [datasets.SVHN.split_list[part][2] for part in ("train", "test")],
    }
    for name, sums in md5.items():
        assert PUBLISHED_DATASETS[name].source.digest == hashlib.sha256("\n".join(sums).encode()).hexdigest()
    assert list(PUBLISHED_DATASETS["fashion_mnist"].source.class_names) == datasets.FashionMNIST.classes
    hundred = PUBLISHED_DATASETS["cifar100"].source.class_names
    assert len(set(hundred)) == 100 and list(hundred) == sorted(hundred)
    assert all(name == known.source.name for name, known in PUBLISHED_DATASETS.items())
    assert all(DATASETS[name] is known for name, known in PUBLISHED_DATASETS.items())


@pytest.mark.parametrize(("name", "sizes"), [("cifar10", (45_000, 5_000, 10_000)), ("svhn", (65_931, 7_326, 26_032))])
def test_a_plan_needs_no_file(name: str, sizes: tuple[int, int, int]) -> None:
    """A published set is described before anything is downloaded."""
    found = describe_dataset(DataOptions.model_validate({"name": name, "root": "/nowhere", "cache": "/nowhere"}))
    assert (found.train_images, found.val_images, found.test_images) == sizes


def test_the_schemas_are_declared_once_and_torchvision_imports_with_a_cpu_torch() -> None:
    """A second call declares nothing; nor does any where torch has CUDA."""
    assert declare_missing_operators() is declare_missing_operators()
    assert (declare_missing_operators() is None) or torch.version.cuda is None
    assert "torchvision" in sys.modules

"""The published sets: what is known of each before it is downloaded, and how torchvision downloads and reads it.

Sizes, classes and checksums are properties of the published archives, so a sweep can be planned without any file.
The digest is the sha256 of the published md5 sums, which torchvision checks the files against. Means and standard
deviations are those that recipes for these sets use (of training images at their own size); a run at another
`image_size` keeps them.
Sources: Krizhevsky, "Learning multiple layers of features from tiny images", 2009; Xiao et al., "Fashion-MNIST",
arXiv 1708.07747; Netzer et al., "Reading digits in natural images", 2011.
"""

import gzip
import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from study.config.options import DataOptions
from study.data.cache import STORED_PARTS, ImageArrays, ReportProgress
from study.data.data_source import DataSource, prepare_store
from study.data.dataset_info import DatasetInfo, SourceInfo, select_images
from study.data.images import Pixels
from study.data.stratified_order import Int64Array
from study.errors import Problem, UserError


@dataclass(frozen=True)
class PublishedDataset(DataSource):
    """A published data set at its own image size, and the torchvision class that downloads and reads it."""

    torchvision_class: str
    archives: Mapping[str, str]  # below data.root, with their md5 sums
    source: SourceInfo

    def describe(self, options: DataOptions) -> DatasetInfo:
        return select_images(self._resized(options), options)

    def prepare(self, options: DataOptions, *, workers: int, report: ReportProgress) -> DatasetInfo:
        self.describe(options)  # raises before a download
        return prepare_store(
            self._resized(options), options, read=lambda: read_published(self, Path(options.root)), report=report
        )

    def _resized(self, options: DataOptions) -> SourceInfo:
        return replace(self.source, image_size=options.image_size or self.source.image_size)


def read_published(published: PublishedDataset, root: Path) -> ImageArrays:
    """Both parts of a set, downloaded where `root` lacks them; raises UserError if that fails."""
    known = published.source
    try:
        with warnings.catch_warnings():
            # CIFAR's pickles of 2009 write numpy's `align` as a number, which numpy 2.4 deprecates.
            warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
            parts = {part: _read_part(published, root, part) for part in STORED_PARTS}
    except (OSError, RuntimeError, ValueError, AssertionError, EOFError) as error:
        reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        damaged = [name for name, md5 in published.archives.items() if (root / name).is_file() and _md5(root / name) != md5]
        there = (
            f"{', '.join(damaged)} is there, but cut off or damaged (its checksum is another): remove it; " if damaged else ""
        )
        rule = (
            f"{known.name} can be neither read nor downloaded here ({reason}); {there}"
            f"without network access, put {', '.join(damaged or published.archives)} there and run the command again"
        )
        raise UserError(Problem(rule, place=str(root), key="data.root")) from error
    if published.torchvision_class == "FashionMNIST":
        _check_extracted(root)
    counts = {part: len(images) for part, (images, _) in parts.items()}
    expected = {"train": known.train_images, "test": known.test_images}
    if counts != expected:
        raise UserError(Problem(f"{known.name} has {expected} images", place=str(root), value=counts))
    return parts


def _read_part(published: PublishedDataset, root: Path, part: str) -> tuple[Pixels, Int64Array]:
    """Images uint8 `n h w 3` or `n h w` and labels int64 `n` of one part."""
    from study.data.torchvision_schema import declare_missing_operators

    declare_missing_operators()
    from torchvision import datasets

    if published.torchvision_class == "SVHN":  # the only one that stores `n c h w`
        svhn = datasets.SVHN(root, split=part, download=True)
        return svhn.data.transpose(0, 2, 3, 1), svhn.labels.astype(np.int64)
    dataset = getattr(datasets, published.torchvision_class)(root, train=part == "train", download=True)
    return np.asarray(dataset.data), np.asarray(dataset.targets, dtype=np.int64)


def _check_extracted(root: Path) -> None:
    """Raise UserError unless FashionMNIST's extracted files are those of the published archives.

    torchvision checks the archives when it downloads them, but of the extracted files only that they exist.
    """
    from torchvision import datasets

    folder = root / "FashionMNIST/raw"
    for name, md5 in datasets.FashionMNIST.resources:
        archive, extracted = folder / name, folder / name.removesuffix(".gz")
        packed = archive.read_bytes() if archive.is_file() else b""
        if hashlib.md5(packed, usedforsecurity=False).hexdigest() != md5:
            rule = f"the published archive is missing or damaged here, so {extracted.name} beside it can't be checked"
            raise UserError(Problem(f"{rule}: put the archive here, or remove both files to have it downloaded", str(archive)))
        if gzip.decompress(packed) != extracted.read_bytes():
            rule = f"differs from what {name} contains: remove it, and it is extracted anew"
            raise UserError(Problem(rule, place=str(extracted), key="data.root"))


_FASHION_CLASSES = tuple("T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot".split(", "))
_CIFAR100_CLASSES = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm""".split()
)


def _digest(archives: Mapping[str, str]) -> str:
    return hashlib.sha256("\n".join(archives.values()).encode()).hexdigest()


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


_CIFAR10 = {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}
_CIFAR100 = {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"}
_FASHION = {
    "FashionMNIST/raw/train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "FashionMNIST/raw/train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "FashionMNIST/raw/t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
_SVHN = {"train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373", "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3"}


PUBLISHED_DATASETS = {
    "cifar10": PublishedDataset(
        torchvision_class="CIFAR10",
        archives=_CIFAR10,
        source=SourceInfo(
            name="cifar10",
            digest=_digest(_CIFAR10),
            image_size=32,
            channels=3,
            class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            train_images=50_000,
            test_images=10_000,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2471, 0.2435, 0.2616),
            fraction_of=50_000,
        ),
    ),
    "cifar100": PublishedDataset(
        torchvision_class="CIFAR100",
        archives=_CIFAR100,
        source=SourceInfo(
            name="cifar100",
            digest=_digest(_CIFAR100),
            image_size=32,
            channels=3,
            class_names=_CIFAR100_CLASSES,
            train_images=50_000,
            test_images=10_000,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
            fraction_of=50_000,
        ),
    ),
    "fashion_mnist": PublishedDataset(
        torchvision_class="FashionMNIST",
        archives=_FASHION,
        source=SourceInfo(
            name="fashion_mnist",
            digest=_digest(_FASHION),
            image_size=28,
            channels=1,
            class_names=_FASHION_CLASSES,
            train_images=60_000,
            test_images=10_000,
            mean=(0.2860,),
            std=(0.3530,),
            fraction_of=60_000,
        ),
    ),
    "svhn": PublishedDataset(
        torchvision_class="SVHN",
        archives=_SVHN,
        source=SourceInfo(
            name="svhn",
            digest=_digest(_SVHN),
            image_size=32,
            channels=3,
            class_names=tuple("0123456789"),
            train_images=73_257,
            test_images=26_032,
            mean=(0.4377, 0.4438, 0.4728),
            std=(0.1980, 0.2010, 0.1970),
            fraction_of=73_257,
        ),
    ),
}

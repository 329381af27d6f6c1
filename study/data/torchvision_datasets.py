"""The published sets: what is known of each before it is downloaded, and how torchvision fetches and reads it.

Sizes, classes and checksums are facts of the published archives, so a sweep is planned without any file at hand.
The digest is the sha256 of the published md5 sums, which torchvision holds the files against. Means and standard
deviations are those that recipes for these sets use (of training images at their own size); a run at another
`image_size` keeps them.
Sources: Krizhevsky, "Learning multiple layers of features from tiny images", 2009; Xiao et al., "Fashion-MNIST",
arXiv 1708.07747; Netzer et al., "Reading digits in natural images", 2011.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from study.data.dataset_info import SourceInfo
from study.data.images import Pixels
from study.data.stratified_order import Integers
from study.errors import Problem, UserError

Parts = dict[str, tuple[Pixels, Integers]]  # per stored array: images `n h w c`, labels `n`


@dataclass(frozen=True)
class Published:
    """A published data set; `read` fetches what is missing below a root and gives its parts."""

    name: str
    md5: tuple[str, ...]  # of the archives
    image_size: int
    channels: int
    class_names: tuple[str, ...]
    train_images: int
    test_images: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: str  # what a user without network puts below data.root
    read: Callable[[Path], Parts]

    def stored(self, image_size: int | None) -> SourceInfo:
        """What is known of the set at `image_size` (None: its own) before anything is fetched."""
        return SourceInfo(
            name=self.name,
            digest=hashlib.sha256("\n".join(self.md5).encode()).hexdigest(),
            image_size=image_size or self.image_size,
            channels=self.channels,
            class_names=self.class_names,
            train_images=self.train_images,
            test_images=self.test_images,
            mean=self.mean,
            std=self.std,
            fraction_of=self.train_images,
        )


def read(published: Published, root: Path) -> Parts:
    """The parts of a set, downloaded where `root` lacks them; raises UserError where that fails."""
    try:
        with warnings.catch_warnings():
            # CIFAR's pickles of 2009 write numpy's `align` as a number, which numpy 2.4 deprecates.
            warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
            parts = published.read(root)
    except (OSError, RuntimeError, ValueError, AssertionError, EOFError) as error:
        raise UserError(Problem(_unreadable(published, error), place=str(root), key="data.root")) from error
    counts = {name: len(images) for name, (images, _) in parts.items()}
    expected = {"train": published.train_images, "test": published.test_images}
    if counts != expected:
        raise UserError(Problem(f"{published.name} has {expected} images", place=str(root), value=counts))
    return parts


def _unreadable(published: Published, error: Exception) -> str:
    told = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
    return (
        f"{published.name} can be neither read nor downloaded here ({told}); "
        f"where there is no network, put {published.files} there and run the command again"
    )


def _cifar(name: str) -> Callable[[Path], Parts]:
    def read_cifar(root: Path) -> Parts:
        datasets = _torchvision_datasets()
        kind = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
        sets = {"train": kind(root, train=True, download=True), "test": kind(root, train=False, download=True)}
        return {part: (one.data, np.asarray(one.targets, dtype=np.int64)) for part, one in sets.items()}

    return read_cifar


def _fashion_mnist(root: Path) -> Parts:
    kind = _torchvision_datasets().FashionMNIST
    sets = {"train": kind(root, train=True, download=True), "test": kind(root, train=False, download=True)}
    return {part: (one.data.numpy()[..., None], one.targets.numpy().astype(np.int64)) for part, one in sets.items()}


def _svhn(root: Path) -> Parts:
    kind = _torchvision_datasets().SVHN
    sets = {part: kind(root, split=part, download=True) for part in ("train", "test")}
    return {part: (one.data.transpose(0, 2, 3, 1), one.labels.astype(np.int64)) for part, one in sets.items()}


def _torchvision_datasets() -> Any:  # the module; torchvision carries no types
    from study.data.torchvision_schema import declare_missing_operators

    declare_missing_operators()
    from torchvision import datasets

    return datasets


CIFAR100_CLASSES = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm""".split()
)

CIFAR10 = Published(
    name="cifar10",
    md5=("c58f30108f718f92721af3b95e74349a",),
    image_size=32,
    channels=3,
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    train_images=50_000,
    test_images=10_000,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2471, 0.2435, 0.2616),
    files="cifar-10-python.tar.gz",
    read=_cifar("cifar10"),
)

CIFAR100 = Published(
    name="cifar100",
    md5=("eb9058c3a382ffc7106e4002c42a8d85",),
    image_size=32,
    channels=3,
    class_names=CIFAR100_CLASSES,
    train_images=50_000,
    test_images=10_000,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    files="cifar-100-python.tar.gz",
    read=_cifar("cifar100"),
)

FASHION_MNIST = Published(
    name="fashion_mnist",
    md5=(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    image_size=28,
    channels=1,
    class_names=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    train_images=60_000,
    test_images=10_000,
    mean=(0.2860,),
    std=(0.3530,),
    files="FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz",
    read=_fashion_mnist,
)

SVHN = Published(
    name="svhn",
    md5=("e26dedcc434d2e4c54c9b2d4a06d8373", "eb5a983be6a315427106f1b164d9cef3"),
    image_size=32,
    channels=3,
    class_names=tuple("0123456789"),
    train_images=73_257,
    test_images=26_032,
    mean=(0.4377, 0.4438, 0.4728),
    std=(0.1980, 0.2010, 0.1970),
    files="train_32x32.mat and test_32x32.mat",
    read=_svhn,
)

PUBLISHED = {one.name: one for one in (CIFAR10, CIFAR100, FASHION_MNIST, SVHN)}

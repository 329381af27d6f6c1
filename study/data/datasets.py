"""The registry of data sets, and what every command asks of one: its description, and images that are ready.

To add one, write a `DataSource` (or the function that an `ArrayDataset` reads) and register it in `DATASETS`.
"""

from study.config.options import DataOptions, ResolvedData
from study.data.cache import ReportProgress
from study.data.data_source import DataSource
from study.data.dataset_info import DatasetInfo
from study.data.decoded_folder import DecodedFolder
from study.data.digits import Digits
from study.data.torchvision_datasets import PUBLISHED_DATASETS
from study.errors import Problem, UserError
from study.registries import Registry

DATASETS = Registry("data set", DataSource, calls={})  # type: ignore[type-abstract]  # its subclasses are what is registered
DATASETS.register("digits", Digits())
DATASETS.register("cifar10", PUBLISHED_DATASETS["cifar10"])
DATASETS.register("cifar100", PUBLISHED_DATASETS["cifar100"])
DATASETS.register("fashion_mnist", PUBLISHED_DATASETS["fashion_mnist"])
DATASETS.register("svhn", PUBLISHED_DATASETS["svhn"])
DATASETS.register("folder", DecodedFolder())


def describe_dataset(options: DataOptions) -> DatasetInfo:
    """The data set that the options choose; raises UserError where it must be prepared first or has too few images.

    It is cheap and needs no torch.
    """
    info = DATASETS.find(options.name, key="data.name").describe(options)
    if isinstance(options, ResolvedData) and options.digest != info.digest:
        raise UserError(Problem(f"{info.name} has changed since the run was planned", key="data.digest"))
    return info


def prepare_dataset(options: DataOptions, *, workers: int, report: ReportProgress) -> DatasetInfo:
    """Download and decode what isn't in the cache yet, with `workers` processes; safe when run twice at a time.

    `report(what, done, total)` is called as the work proceeds. Raises UserError for unusable images (all of them at once),
    a folder that can't be written to, a full disk, a failed download, and whatever `describe_dataset` refuses.
    """
    return DATASETS.find(options.name, key="data.name").prepare(options, workers=workers, report=report)

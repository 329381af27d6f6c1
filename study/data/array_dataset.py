"""Data sets that a function reads as arrays, for plug-ins: `DATASETS.register("shapes", ArrayDataset(read_shapes))`."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from study.config.options import DataOptions, ResolvedData
from study.data.cache import STORED_PARTS, ImageArrays, ReportProgress, read_source_info, store_path
from study.data.data_source import DataSource, describe_store, prepare_store
from study.data.dataset_info import DatasetInfo, SourceInfo, check_labels, select_images
from study.data.images import Pixels, mean_and_std, sum_moments
from study.data.stratified_order import draw_stratified_order
from study.errors import Problem, UserError


@dataclass(frozen=True)
class LabelledImages:
    """Images uint8 `n h w 3` or `n h w` with integer labels `n`, positions in `class_names`, of both parts."""

    train: tuple[Pixels, npt.NDArray[np.int64]]
    test: tuple[Pixels, npt.NDArray[np.int64]]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ArrayDataset(DataSource):
    """A data set that `read` returns, given the folder `data.root`; it is stored in the cache, which workers read."""

    read: Callable[[Path], LabelledImages]

    def describe(self, options: DataOptions) -> DatasetInfo:
        if isinstance(options, ResolvedData):
            store = store_path(Path(options.cache), name=options.name, digest=options.digest, image_size=options.image_size)
            if read_source_info(store) is not None:
                return describe_store(store, options)
        source, parts = self._read(options)
        info = select_images(source, options)
        check_labels(info, {part: labels[draw_stratified_order(labels, part)] for part, (_, labels) in parts.items()})
        return info

    def prepare(self, options: DataOptions, *, workers: int, report: ReportProgress) -> DatasetInfo:
        source, parts = self._read(options)
        return prepare_store(source, options, read=lambda: parts, report=report)

    def _read(self, options: DataOptions) -> tuple[SourceInfo, ImageArrays]:
        found = self.read(Path(options.root))
        digest = hashlib.sha256(repr(found.class_names).encode())
        parts = {part: getattr(found, part) for part in STORED_PARTS}
        for part, (images, labels) in parts.items():
            if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
                rule = f"the {part} images of {options.name} are uint8 `n h w 3` or `n h w`"
                raise UserError(Problem(rule, key="data.name", value=f"{images.dtype} {images.shape}"))
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                rule = f"the {part} labels of {options.name} are int64, one for each of {len(images):,} images"
                raise UserError(Problem(rule, key="data.name", value=f"{labels.dtype} {labels.shape}"))
            digest.update(f"{part} {images.shape}".encode() + images.tobytes() + labels.tobytes())
        images = found.train[0]
        pixels = images.reshape(*images.shape[:3], -1).transpose(0, 3, 1, 2)
        mean, std = mean_and_std(sum_moments(pixels), pixels[:, 0].size)
        source = SourceInfo(
            name=options.name,
            digest=digest.hexdigest(),
            image_size=options.image_size or images.shape[1],
            channels=pixels.shape[1],
            class_names=found.class_names,
            train_images=len(images),
            test_images=len(found.test[0]),
            mean=mean,
            std=std,
            fraction_of=len(images),
        )
        return source, parts

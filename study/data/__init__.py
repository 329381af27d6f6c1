"""Images and labels: which data sets exist, how they are decoded once, split, and loaded onto a device.

`describe_dataset(options)` describes a data set without reading its images, `prepare_dataset(options)` downloads and
decodes it, and `study.data.splits.load_splits(options, info)` gives its splits to training. The first two don't import torch.
"""

from study.data.data_source import NotPrepared
from study.data.dataset_info import DatasetInfo
from study.data.datasets import describe_dataset, prepare_dataset

__all__ = ["DatasetInfo", "NotPrepared", "describe_dataset", "prepare_dataset"]

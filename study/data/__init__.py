"""Images and labels: which data sets exist, how they are decoded once, split, and fed to a device.

`facts(options)` says what a data set is without reading its images, `prepare(options)` fetches and decodes it,
`study.data.splits.load(options, facts)` hands its splits to training. The first two don't import torch.
"""

from study.data.dataset_facts import DataFacts
from study.data.datasets import Unprepared, facts, prepare

__all__ = ["DataFacts", "Unprepared", "facts", "prepare"]

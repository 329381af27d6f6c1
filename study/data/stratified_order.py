"""One fixed stratified order per data set, of which every split and every subset is a contiguous piece.

The images of a source are stored in this order: first the validation split, then the training images. So a split
is a slice of one memory-mapped array, a subset is a prefix of its split, and a smaller subset lies within a larger
one. The order depends on the labels alone: no run's seed moves an image from one split to another.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from study.rng import stream

Integers = npt.NDArray[np.int64]


def stratified_order(labels: Integers, split: str) -> Integers:
    """An order `n` of the positions of `labels` `n` in which every stretch holds the classes in proportion.

    Where all classes have equally many images, a prefix of k images per class holds exactly k of each; otherwise a
    class is off its share by about one image. Within a class the order is random, keyed by the split's name alone.
    """
    shuffled = stream("stratified order", split).permutation(len(labels))
    classes, label, count = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    by_class = np.argsort(label, kind="stable")
    within = np.empty(len(labels), dtype=np.int64)
    within[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(count) - count, count)
    # Class c enters at the places (0 + u_c) / count_c, (1 + u_c) / count_c, ... of the way. The offsets u_c differ, or
    # classes of equal size would all enter at the same places and a short prefix would lack every one of them.
    offset = (stream("stratified order", split, "offsets").permutation(len(classes)) + 0.5) / len(classes)
    place = (within + offset[label]) / count[label]
    return shuffled[np.argsort(place, kind="stable")].astype(np.int64)

"""One fixed stratified order per data set, of which every split and every subset is a contiguous piece.

The images of a source are stored in this order: first the validation split, then the training images. So a split
is a slice of one memory-mapped array, a subset is a prefix of its split, and a smaller subset is contained in a larger
one. The order depends on the labels alone: no run's seed moves an image from one split to another.
"""

import numpy as np
import numpy.typing as npt

from study.rng import stream

Int64Array = npt.NDArray[np.int64]


def draw_stratified_order(labels: Int64Array, split: str) -> Int64Array:
    """An order `n` of the positions of `labels` `n` in which every stretch holds the classes in proportion.

    Where all classes have equally many images, a prefix of k images per class holds exactly k of each; otherwise a
    class deviates from its share by about one image. Within a class the order is random, keyed by the split's name alone.
    """
    shuffled = stream("stratified order", split).permutation(len(labels))
    classes, label, count = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    by_class = np.argsort(label, kind="stable")
    rank = np.empty(len(labels), dtype=np.int64)  # of each image within its class
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(count) - count, count)
    # The k-th image of class c is placed at (k + u_c) / count_c of the whole. The offsets u_c differ: with equal ones,
    # classes of equal size would all be placed at the same points, and a short prefix would lack some of them.
    offset = (stream("stratified order", split, "offsets").permutation(len(classes)) + 0.5) / len(classes)
    place = (rank + offset[label]) / count[label]
    return shuffled[np.argsort(place, kind="stable")].astype(np.int64)

"""One stratified order per data set, and one per seed, of which every split and every subset is a contiguous piece.

The images of a source are stored in the fixed order, which depends on the labels alone. A seed's order, for
`data.split: by_seed`, exchanges images of a class with each other, so its classes are in the same sequence. In both, the
validation split comes first, then the training images: a subset is a prefix of its split, a smaller one is contained in
a larger one, and a split has equally many images of each class under every seed.
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


def draw_seed_order(labels: Int64Array, seed: int) -> Int64Array:
    """A seed's order `n` of stored rows with labels `n`: in the place of each row a random one of its class."""
    shuffled = stream(seed, "split").permutation(len(labels))
    order = np.empty(len(labels), dtype=np.int64)
    order[np.argsort(labels, kind="stable")] = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return order

"""Whether two layers represent images alike: linear CKA, unbiased, from minibatches.

Kornblith et al., "Similarity of neural network representations revisited", ICML 2019; with the unbiased estimator of HSIC by
Song et al., "Feature selection via dependence maximization", JMLR 2012, equation 5, averaged over minibatches as in Nguyen,
Raghu and Kornblith, "Do wide and deep networks learn the same things?", ICLR 2021, equations 2 and 3.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from study.backbones.base import Backbone
from study.probing.kept_network import Measured, grid_tokens, record_outputs

_BATCH = 128  # images; those left over are not used, unless there are fewer
LEAST_IMAGES = 4  # that the unbiased estimator needs


def center_gram(features: Tensor) -> Tensor:
    """The matrix K of inner products of features b m, centered so that <K, L> / (b (b - 3)) is the unbiased HSIC: b b."""
    flat = features.flatten(1)
    gram = (flat @ flat.T).double().fill_diagonal_(0)
    n, rows = len(gram), gram.sum(dim=1)
    centered = gram - (rows[:, None] + rows) / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    return centered.fill_diagonal_(0)


def describe_layers(model: Backbone, images: Tensor) -> Tensor:
    """The centered matrices of every layer and minibatch of images `n c h w`: `layers batches (b b)`.

    Raises AssertionError below four images.
    """
    assert len(images) >= LEAST_IMAGES, "unbiased CKA needs four images"
    size = min(_BATCH, len(images))
    found = []
    for batch in torch.split(images[: len(images) // size * size], size):
        with torch.inference_mode(), record_outputs(model) as outputs:
            model(batch)
            grams = [center_gram(grid_tokens(output, model.spec)).flatten() for output in outputs]
            found.append(torch.stack(grams).float().cpu())
    return torch.stack(found, dim=1)


def compute_cka(one: Tensor, other: Tensor) -> Measured:
    """CKA of each layer of one network with each of another, from `describe_layers` of the same images.

    1 for outputs that are equal up to a rotation and a scale, about 0 for independent ones (the estimate may be negative); NaN
    where a layer's outputs don't differ between images.
    """
    flat, others = one.flatten(1).double(), other.flatten(1).double()
    common = (flat @ others.T).numpy()
    own, their = ((part**2).sum(dim=1).numpy() for part in (flat, others))
    scale = np.sqrt(np.outer(own, their))
    return np.asarray(np.divide(common, scale, out=np.full_like(common, np.nan), where=scale > 0))


def match_depths(depth: int, other: int) -> Sequence[tuple[int, int]]:
    """Pairs of layers at the same fraction of two depths, stem and last block included: every layer of the shallower one."""
    if depth > other:
        return [(late, early) for early, late in match_depths(other, depth)]
    return [(layer, round(layer * other / depth)) for layer in range(depth + 1)]

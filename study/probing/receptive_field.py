"""The effective receptive field: how strongly the central token of each layer depends on each pixel of the image.

Luo et al., "Understanding the effective receptive field in deep convolutional neural networks", NeurIPS 2016: the absolute
gradient of the central output with respect to the input, averaged over images. A token has many features, whose sum has no
gradient after a layer norm: each image takes a random sign for each feature instead.
"""

import numpy as np
import torch
from torch import Tensor

from study.backbones.base import Backbone
from study.backbones.specification import BackboneSpec
from study.probing.kept_network import Measured, grid_tokens, record_outputs
from study.rng import stream

SHARES = (0.5, 0.95)
"""Of a field's mass, whose radii are measured."""

_BATCH = 32  # images; each layer's gradient is another backward pass through the same graph
_ALMOST = 1e-9  # rounding of sums


def measure_receptive_fields(model: Backbone, images: Tensor) -> Measured:
    """The field of every layer's central token over images `b c h w`, summed over channels: `layers h w`, each sums to 1.

    The central token is the one right of and below the center where the grid has an even number of rows. A layer that does
    not depend on the image at all has a field of zeros.
    """
    spec = model.spec
    central, total = (spec.grid // 2) * spec.grid + spec.grid // 2, None
    for number, batch in enumerate(torch.split(images, _BATCH)):
        inputs = batch.clone().requires_grad_()
        with record_outputs(model) as outputs, torch.enable_grad():
            model(inputs)
        fields = []
        for output in outputs:
            token = grid_tokens(output, spec)[:, central]
            signs = torch.from_numpy(stream("probe", "signs", number).choice((-1.0, 1.0), tuple(token.shape))).to(token)
            (gradient,) = torch.autograd.grad((signs * token).sum(), inputs, retain_graph=True)
            fields.append(gradient.abs().sum(dim=(0, 1)).double().cpu().numpy())
        total = np.stack(fields) if total is None else total + np.stack(fields)
    assert total is not None, "at least one image"
    mass = total.sum(axis=(1, 2), keepdims=True)
    return np.asarray(np.divide(total, mass, out=np.zeros_like(total), where=mass > 0))


def find_radii(field: Measured, spec: BackboneSpec) -> dict[float, float]:
    """By share, the radius in pixels around the center of the central token within which a field `h w` has that share.

    The distance is that of pixels' centers; 0 means the token's own pixel, with patches of one pixel. NaN for a field of zeros.
    """
    if not field.any():
        return dict.fromkeys(SHARES, float("nan"))
    doubled = 2 * np.arange(spec.image_size) + 1 - (2 * (spec.grid // 2) + 1) * spec.patch_size  # twice the distance, whole
    squares = (doubled[:, None] ** 2 + doubled**2).ravel()
    order = np.argsort(squares, kind="stable")
    mass, reached = np.cumsum(field.ravel()[order]), squares[order]
    return {share: float(np.sqrt(reached[np.searchsorted(mass, share - _ALMOST)]) / 2) for share in SHARES}

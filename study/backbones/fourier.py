"""Token mixers in the frequency domain, with the cost of their Fourier transforms.

Half-precision tokens are transformed in float32, as there are no complex numbers of their precision on most devices.
"""

import torch
from torch import Tensor, nn

from study.backbones.closed_form import PartCost, fft_macs
from study.backbones.specification import BackboneSpec


class FourierMixing(nn.Module):
    """The real part of the Fourier transform over positions and features, without weights: b n d -> b n d.

    Lee-Thorp et al., "FNet: mixing tokens with Fourier transforms", NAACL 2022, equation 3, over the tokens in row-major
    order. Divided by sqrt(n d), so that outputs are as large as inputs whatever the number of tokens.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.fft.fft2(_to_single(tokens), norm="ortho").real.to(tokens.dtype)


class GlobalFilter(nn.Module):
    """Each feature is filtered by a weight per spatial frequency, a circular convolution of the whole grid: b d h w -> b d h w.

    Rao et al., "Global filter networks for image classification", NeurIPS 2021, equations 5 to 7.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        # Real and imaginary parts of the non-negative half of the frequencies, to which the other half is conjugate.
        self.frequency_filter = nn.Parameter(torch.ones(spec.dim, spec.grid, spec.grid // 2 + 1, 2))

    def forward(self, grid: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(_to_single(grid), norm="ortho")
        filtered = spectrum * torch.view_as_complex(_to_single(self.frequency_filter))
        return torch.fft.irfft2(filtered, s=grid.shape[-2:], norm="ortho").to(grid.dtype)


def _to_single(values: Tensor) -> Tensor:
    """In float32, or float64 where they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def fourier_cost(spec: BackboneSpec) -> PartCost:
    """One real transform of n x d numbers to as many complex ones."""
    points = spec.sequence * spec.dim
    return PartCost(macs=fft_macs(points), activation_elements=2 * points)


def global_filter_cost(spec: BackboneSpec) -> PartCost:
    """Two real transforms per feature, and between them one complex product per frequency, which is four real ones."""
    frequencies = spec.dim * spec.grid * (spec.grid // 2 + 1)
    return PartCost(
        params=2 * frequencies,
        macs=2 * spec.dim * fft_macs(spec.tokens) + 4 * frequencies,
        activation_elements=4 * frequencies + spec.dim * spec.tokens,
    )

"""Random bits on the device, keyed by image: where a mask has more numbers than the host could draw for a whole epoch.

Number k of an image is a hash of its key and of k: the integer hash "lowbias32" (C. Wellons, "Prospecting for hash functions",
2018) of a counter and one half of the key, then a part of it again with the other half, so that no key continues another's
numbers. It depends on neither the batch nor the device: sums and products of integers wrap around alike everywhere.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

VALUES = 2**16
_GOLDEN, _FIRST, _SECOND = -1640531527, 2146121005, -2073254261  # 0x9e3779b9, 0x7feb352d, 0x846ca68b as int32


def draw_keys(generator: np.random.Generator, images: int) -> Tensor:
    """A key for each image, int32 `n 2`."""
    return torch.from_numpy(generator.integers(-(2**31), 2**31, (images, 2), dtype=np.int32))


def hash_keys(keys: Tensor, count: int) -> Tensor:
    """`count` integers for each of the keys int32 `b 2`, int16 `b count`, uniform over all 2^16 values."""
    first, second = (half[:, None] for half in keys.unbind(1))
    mixed = torch.arange((count + 1) // 2, dtype=torch.int32, device=keys.device) * _GOLDEN + first
    mixed.bitwise_xor_(_shift(mixed, 16)).mul_(_FIRST)
    mixed.bitwise_xor_(_shift(mixed, 15)).mul_(_SECOND)
    mixed.bitwise_xor_(_shift(mixed, 16)).add_(second)
    mixed.bitwise_xor_(_shift(mixed, 16)).mul_(_FIRST)
    mixed.bitwise_xor_(_shift(mixed, 15))
    return mixed.view(torch.int16)[:, :count]


def _shift(words: Tensor, bits: int) -> Tensor:
    """Words of 32 bits, shifted to the right, with zeros from the left."""
    return (words >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def draw_normal(keys: Tensor, count: int) -> Tensor:
    """`count` normal numbers for each of the keys int32 `b 2`, float32 `b count`: quantiles of 2^16 equal shares."""
    return _tabulate_quantiles(keys.device)[hash_keys(keys, count).long() + VALUES // 2]


@cache
def _tabulate_quantiles(device: torch.device) -> Tensor:
    from scipy.special import ndtri  # slow to load

    return torch.from_numpy(ndtri((np.arange(VALUES) + 0.5) / VALUES)).float().to(device)

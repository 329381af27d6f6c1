"""Attention over all tokens or over a neighborhood, with the positions that act on queries and keys, and what each costs."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.backbones.closed_form import PartCost, attention_cost, linear_cost
from study.backbones.specification import BackboneSpec


class SelfAttention(nn.Module):
    """Every token sums the values of all tokens, weighted by query-key agreement: b n d -> b n d.

    Vaswani et al., "Attention is all you need", 2017, section 3.2. `heads` must divide `dim`. One linear layer makes
    queries, keys and values, in this order, each as h heads of d/h features; torch picks the fused kernel.
    `relative` adds a learned bias per head and offset of two grid positions to their agreement.
    """

    def __init__(self, spec: BackboneSpec, *, relative: bool = False) -> None:
        super().__init__()
        self.heads = spec.get_int("heads")
        self.qkv = nn.Linear(spec.dim, 3 * spec.dim)
        self.out = nn.Linear(spec.dim, spec.dim)
        self.bias = RelativeBias(self.heads, spec) if relative else None

    def forward(self, tokens: Tensor) -> Tensor:
        b, n, d = tokens.shape
        q, k, v = split_heads(self.qkv(tokens), self.heads)
        bias = None if self.bias is None else self.bias().to(q.dtype)
        attended = functional.scaled_dot_product_attention(q, k, v, bias)  # b h n d/h
        return self.out(attended.transpose(1, 2).reshape(b, n, d))


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values: b n (3 h e) -> three of b h n e."""
    b, n, features = qkv.shape
    # With chunks along the features, the three gradients are concatenated in the layout that the linear layer reads.
    q, k, v = (part.view(b, n, heads, features // 3 // heads).transpose(1, 2) for part in qkv.chunk(3, dim=2))
    return q, k, v


class RelativeBias(nn.Module):
    """A bias for each head and each offset between grid positions: h n n; zero from and to tokens off the grid.

    Liu et al., "Swin transformer", ICCV 2021, equation 4, with a window of the whole grid.
    """

    index: Tensor  # int64 (h w) (h w)

    def __init__(self, heads: int, spec: BackboneSpec) -> None:
        super().__init__()
        grid, self.prefix = spec.grid, spec.sequence - spec.tokens
        self.relative_bias = nn.Parameter(torch.zeros(heads, (2 * grid - 1) ** 2))
        y, x = torch.arange(grid).repeat_interleave(grid), torch.arange(grid).repeat(grid)
        down, right = (axis[:, None] - axis + grid - 1 for axis in (y, x))
        self.register_buffer("index", down * (2 * grid - 1) + right, persistent=False)

    def forward(self) -> Tensor:
        return functional.pad(self.relative_bias[:, self.index], (self.prefix, 0, self.prefix, 0))


class LocalAttention(nn.Module):
    """Attention of each position to the k x k positions around it, as far as they are on the grid: b n d -> b n d.

    Ramachandran et al., "Stand-alone self-attention in vision models", NeurIPS 2019, equation 2, without its relative
    embeddings. It reaches as far as a convolution with this kernel. The windows of keys and values are copies, k x k times
    the tokens; they are counted whole, also where they cover what is outside the grid.
    """

    outside: Tensor  # bool (h w) (k k)

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.heads, self.kernel_size, self.grid = spec.get_int("heads"), spec.get_int("kernel_size"), spec.grid
        self.qkv = nn.Linear(spec.dim, 3 * spec.dim)
        self.out = nn.Linear(spec.dim, spec.dim)
        at = torch.arange(spec.grid)[:, None] + torch.arange(self.kernel_size) - self.kernel_size // 2
        off = (at < 0) | (at >= spec.grid)  # g k, for rows and columns alike
        outside = off[:, None, :, None] | off[None, :, None, :]
        self.register_buffer("outside", outside.reshape(spec.tokens, -1), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        b, n, d = tokens.shape
        q, k, v = split_heads(self.qkv(tokens), self.heads)
        scores = (q / q.shape[-1] ** 0.5).unsqueeze(3) @ self._windows(k).transpose(3, 4)  # b h n 1 (k k)
        weights = scores.masked_fill(self.outside[:, None], float("-inf")).softmax(dim=-1)
        attended = (weights @ self._windows(v)).squeeze(3)  # b h n e
        return self.out(attended.transpose(1, 2).reshape(b, n, d))

    def _windows(self, features: Tensor) -> Tensor:
        """The k x k positions around each, zeros off the grid: b h n e -> b h n (k k) e."""
        b, h, n, e = features.shape
        grid = features.transpose(2, 3).reshape(b, h * e, self.grid, self.grid)
        windows = functional.unfold(grid, self.kernel_size, padding=self.kernel_size // 2)
        return windows.view(b, h, e, self.kernel_size**2, n).permute(0, 1, 4, 3, 2)


def self_attention_cost(spec: BackboneSpec, *, relative: bool = False) -> PartCost:
    heads = spec.get_int("heads")
    bias = PartCost(params=heads * (2 * spec.grid - 1) ** 2 if relative else 0)
    return attention_cost(spec.sequence, spec.dim, heads) + bias


def local_attention_cost(spec: BackboneSpec) -> PartCost:
    n, d, window = spec.tokens, spec.dim, spec.get_int("kernel_size") ** 2
    products = PartCost(macs=2 * n * window * d, activation_elements=n * (spec.get_int("heads") * window + d))
    return linear_cost(n, d, 3 * d) + products + linear_cost(n, d, d)

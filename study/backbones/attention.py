"""Attention over all tokens or over a neighborhood, with the positions that act on queries and keys, and what each costs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.backbones.closed_form import PartCost, attention_cost, linear_cost, norm_cost
from study.backbones.layers import build_feature_norm
from study.backbones.specification import ROTARY_POSITIONS, BackboneSpec, SequenceSpec

_ROPE_BASE = 100.0


class Attention(nn.Module):
    """What attention over any set of tokens has: queries, keys and values, in h heads of d/h features, and their output.

    One linear layer makes all three, in this order. `qk_norm` normalizes queries and keys, each head by itself (Dehghani et
    al., "Scaling vision transformers to 22 billion parameters", ICML 2023); `rope` rotates them by their position.
    """

    def __init__(self, spec: SequenceSpec) -> None:
        super().__init__()
        self.heads = spec.get_int("heads")
        self.qkv = nn.Linear(spec.dim, 3 * spec.dim, spec.bias)
        self.q_norm = self.k_norm = self.rotary = None
        if spec.get_int("qk_norm"):
            self.q_norm, self.k_norm = (build_feature_norm(spec.norm, spec.dim // self.heads) for _ in range(2))
        if spec.position_embedding in ROTARY_POSITIONS:
            self.rotary = RotaryPositions(spec, spec.dim // self.heads)
        self.out = nn.Linear(spec.dim, spec.dim, spec.bias)
        self.drop_weights: Callable[[Tensor], Tensor] | None = None  # set by training, which drops some of them

    def split_heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, b h n d/h each, of tokens b n d."""
        b, n, d = tokens.shape
        # With chunks along the features, the three gradients are concatenated in the layout that the linear layer reads.
        q, k, v = (part.view(b, n, self.heads, d // self.heads).transpose(1, 2) for part in self.qkv(tokens).chunk(3, dim=2))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return (q, k, v) if self.rotary is None else (self.rotary(q), self.rotary(k), v)


class RotaryPositions(nn.Module):
    """Rotates pairs of features by an angle that grows with the position: b h n e -> b h n e; extra tokens stay.

    Su et al., "RoFormer", 2021, in two dimensions as RoPE-axial in Heo et al., "Rotary position embedding for vision
    transformer", ECCV 2024: half of the pairs turn with the row, half with the column, at frequencies from 1 to about 1/100.
    By the convention of `closed_form` it has no MACs, as all that is elementwise.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, spec: BackboneSpec, features: int) -> None:
        super().__init__()
        frequencies = _ROPE_BASE ** (-torch.arange(features // 4) / (features // 4))
        at = torch.arange(spec.grid)[:, None] * frequencies
        angles = torch.cat([at.repeat_interleave(spec.grid, dim=0), at.repeat(spec.grid, 1)], dim=1)  # n, rows then columns
        angles = functional.pad(angles, (0, 0, spec.extra_tokens, 0)).repeat_interleave(2, dim=1)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        quarter_turn = torch.stack([-features[..., 1::2], features[..., ::2]], dim=-1).flatten(-2)
        return (features * self.cosine + quarter_turn * self.sine).to(features.dtype)


class SelfAttention(Attention):
    """Every token sums the values of all tokens, weighted by query-key agreement: b n d -> b n d.

    Vaswani et al., "Attention is all you need", 2017, section 3.2; torch picks the fused kernel. `relative` adds a learned bias
    per head and offset of two grid positions to their agreement.
    """

    def __init__(self, spec: SequenceSpec, *, relative: bool = False) -> None:
        super().__init__(spec)
        self.relative = RelativeBias(self.heads, spec) if relative else None

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.split_heads(tokens)
        if self.drop_weights is None or not self.training:
            bias = None if self.relative is None else self.relative().to(q.dtype)
            attended = functional.scaled_dot_product_attention(q, k, v, bias)  # b h n d/h
        else:
            attended = self.drop_weights(self._weigh_tokens(q, k)) @ v
        return self.out(attended.transpose(1, 2).reshape(tokens.shape))

    def attention_weights(self, tokens: Tensor) -> Tensor:
        """The weights of each token's sum over the values of all tokens, which `study.probe` measures: b n d -> b h n n."""
        q, k, _ = self.split_heads(tokens)
        return self._weigh_tokens(q, k)

    def _weigh_tokens(self, q: Tensor, k: Tensor) -> Tensor:
        """b h n n."""
        scores = (q / q.shape[-1] ** 0.5) @ k.transpose(2, 3)
        return (scores if self.relative is None else scores + self.relative().to(q.dtype)).softmax(dim=-1)


class RelativeBias(nn.Module):
    """A bias for each head and each offset between grid positions: h n n; zero from and to tokens off the grid.

    Liu et al., "Swin transformer", ICCV 2021, equation 4, with a window of the whole grid.
    """

    index: Tensor  # int64 (h w) (h w)

    def __init__(self, heads: int, spec: BackboneSpec) -> None:
        super().__init__()
        grid, self.extra_tokens = spec.grid, spec.extra_tokens
        self.relative_bias = nn.Parameter(torch.zeros(heads, (2 * grid - 1) ** 2))
        y, x = torch.arange(grid).repeat_interleave(grid), torch.arange(grid).repeat(grid)
        down, right = (axis[:, None] - axis + grid - 1 for axis in (y, x))
        self.register_buffer("index", down * (2 * grid - 1) + right, persistent=False)

    def forward(self) -> Tensor:
        return functional.pad(self.relative_bias[:, self.index], (self.extra_tokens, 0, self.extra_tokens, 0))


class LocalAttention(Attention):
    """Attention of each position to the k x k positions around it, as far as they are on the grid: b n d -> b n d.

    Ramachandran et al., "Stand-alone self-attention in vision models", NeurIPS 2019, equation 2, without its relative
    embeddings. It reaches as far as a convolution with this kernel. The windows of keys and values are copies, k x k times
    the tokens; they are counted whole, also where they cover what is outside the grid.
    """

    outside: Tensor  # bool (h w) (k k)

    def __init__(self, spec: SequenceSpec) -> None:
        super().__init__(spec)
        self.kernel_size, self.grid = spec.get_int("kernel_size"), spec.grid
        at = torch.arange(spec.grid)[:, None] + torch.arange(self.kernel_size) - self.kernel_size // 2
        off = (at < 0) | (at >= spec.grid)  # g k, for rows and columns alike
        outside = off[:, None, :, None] | off[None, :, None, :]
        self.register_buffer("outside", outside.reshape(spec.tokens, -1), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.split_heads(tokens)
        weights = self._weigh_windows(q, k)
        weights = weights if self.drop_weights is None else self.drop_weights(weights)
        attended = (weights @ self._windows(v)).squeeze(3)  # b h n e
        return self.out(attended.transpose(1, 2).reshape(tokens.shape))

    def attention_weights(self, tokens: Tensor) -> Tensor:
        """The weights of each token's sum over the values of all tokens, 0 outside its window: b n d -> b h n n."""
        q, k, _ = self.split_heads(tokens)
        weights = self._weigh_windows(q, k).squeeze(3)  # b h n (k k)
        positions = torch.arange(q.shape[2], dtype=q.dtype, device=q.device).view(1, 1, -1, 1)
        inside = self._windows(positions).squeeze(4).long().expand_as(weights)  # 0 off the grid, where the weight is 0
        return weights.new_zeros(*q.shape[:3], q.shape[2]).scatter_add(3, inside, weights)

    def _weigh_windows(self, q: Tensor, k: Tensor) -> Tensor:
        """b h n 1 (k k), zero off the grid."""
        scores = (q / q.shape[-1] ** 0.5).unsqueeze(3) @ self._windows(k).transpose(3, 4)
        return scores.masked_fill(self.outside[:, None], float("-inf")).softmax(dim=-1)

    def _windows(self, features: Tensor) -> Tensor:
        """The k x k positions around each, zeros off the grid: b h n e -> b h n (k k) e."""
        b, h, n, e = features.shape
        grid = features.transpose(2, 3).reshape(b, h * e, self.grid, self.grid)
        windows = functional.unfold(grid, self.kernel_size, padding=self.kernel_size // 2)
        return windows.view(b, h, e, self.kernel_size**2, n).permute(0, 1, 4, 3, 2)


def self_attention_cost(spec: SequenceSpec, *, relative: bool = False) -> PartCost:
    heads = spec.get_int("heads")
    bias = PartCost(params=heads * (2 * spec.grid - 1) ** 2 if relative else 0)
    return attention_cost(spec.sequence, spec.dim, heads, spec.bias) + _qk_norm_cost(spec) + bias


def local_attention_cost(spec: SequenceSpec) -> PartCost:
    n, d, window = spec.tokens, spec.dim, spec.get_int("kernel_size") ** 2
    products = PartCost(macs=2 * n * window * d, activation_elements=n * (spec.get_int("heads") * window + d))
    return linear_cost(n, d, 3 * d, spec.bias) + products + linear_cost(n, d, d, spec.bias) + _qk_norm_cost(spec)


def _qk_norm_cost(spec: SequenceSpec) -> PartCost:
    return spec.get_int("qk_norm") * 2 * norm_cost(spec.dim // spec.get_int("heads"), spec.norm)

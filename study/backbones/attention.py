"""Multi-head self-attention: the token mixer of ViT."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class SelfAttention(nn.Module):
    """Every token sums the values of all tokens, weighted by query-key agreement: b n d -> b n d.

    Vaswani et al., "Attention is all you need", 2017, section 3.2. `heads` must divide `dim`. One linear layer makes
    queries, keys and values, in this order, each as h heads of d/h features; torch picks the fused kernel.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        b, n, d = tokens.shape
        # With chunks along the features, the three gradients are concatenated in the layout that the linear layer reads.
        q, k, v = (part.view(b, n, self.heads, d // self.heads).transpose(1, 2) for part in self.qkv(tokens).chunk(3, dim=2))
        attended = functional.scaled_dot_product_attention(q, k, v)  # b h n d/h
        mixed: Tensor = self.out(attended.transpose(1, 2).reshape(b, n, d))
        return mixed

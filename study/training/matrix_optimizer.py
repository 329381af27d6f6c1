"""Muon on the matrices of blocks, AdamW on everything else, as one optimizer.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024 (torch.optim.Muon), with steps as large as those
of AdamW by Liu et al., "Muon is scalable for LLM training", 2025, equation 4, so that one learning rate serves both. 1x1
convolutions are matrices, so that a ConvMixer isn't left to AdamW. Larger kernels, depthwise ones among them, are none, and
neither are the stem, the head, positions, norms and biases. The matrix of queries, keys and values is taken as one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from study.config.options import TrainOptions


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a weight of this name, which decays, is a linear map between the features or the tokens of a block."""
    return name.startswith("blocks.") and (parameter.ndim == 2 or (parameter.ndim == 4 and parameter.shape[2:] == (1, 1)))


class MatrixOptimizer(torch.optim.Optimizer):
    """Moves the groups `matrices` by Muon, through views of two axes, and the groups `others` by AdamW.

    A group's "lr" is a tensor of one number.
    """

    def __init__(self, matrices: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], *, train: TrainOptions) -> None:
        self._views: list[tuple[nn.Parameter, Tensor]] = []
        viewed = []
        for group in matrices:
            views = [(matrix, matrix.detach().view(len(matrix), -1)) for matrix in group["params"]]  # of the same memory
            viewed.append({**group, "params": [view for _, view in views]})
            self._views += views
        self._parts: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(viewed, momentum=train.momentum, adjust_lr_fn="match_rms_adamw"),
            "adamw": torch.optim.AdamW(others, betas=train.betas, eps=train.eps, fused=True),
        }
        self._collect_groups()

    def _collect_groups(self) -> None:
        self.param_groups = [group for part in self._parts.values() for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._parts["adamw"].zero_grad(set_to_none)
        for matrix, _ in self._views:
            matrix.grad = None

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for matrix, view in self._views:
            view.grad = None if matrix.grad is None else matrix.grad.flatten(1)
        for part in self._parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(saved[name])
        self._collect_groups()

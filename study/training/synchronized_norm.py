"""BatchNorm over the whole batch of a training by several processes, each of which holds an equal part of it.

On a GPU it is torch's SyncBatchNorm, which refuses CPU tensors; on a CPU it is the one here. Names of parameters and buffers
don't change, and neither do the results, within rounding. With means m_r and variances v_r of R equal parts the batch has mean
m = mean(m_r) and variance mean(v_r + (m_r - m)^2); the gradient needs two more sums over the batch (Ioffe & Szegedy, "Batch
normalization", ICML 2015, section 3).
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from study.training.distributed import require_peers


def synchronize_norms(model: nn.Module, *, device: torch.device) -> None:
    """Replace every BatchNorm in the model by one over all ranks of torch's default process group."""
    if device.type == "cuda":
        # In place, as a backbone is no norm itself.
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, SynchronizedBatchNorm(norm))


class SynchronizedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over all ranks: b d ... -> b d .... It takes over a norm's parameters and statistics, under the same names."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        assert norm.affine and norm.track_running_stats and norm.momentum is not None
        super().__init__(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self.train(norm.training)

    def _check_input_dim(self, features: Tensor) -> None:
        assert features.ndim >= 2

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        normalized, mean, variance = _Normalize.apply(features, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        count = features.numel() // self.num_features * distributed.get_world_size()
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        found: Tensor = normalized
        return found


class _Normalize(torch.autograd.Function):
    """Features normalized by the whole batch's mean and variance, and those two, which are not differentiated."""

    @staticmethod
    def forward(context: Any, features: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        axes = [axis for axis in range(features.ndim) if axis != 1]
        own_variance, own_mean = torch.var_mean(features.to(weight.dtype), dim=axes, correction=0)
        own = torch.stack([own_mean, own_variance])
        found = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        with require_peers():
            distributed.all_gather(found, own)
        means, variances = torch.stack(found).unbind(1)
        mean = means.mean(dim=0)
        variance = (variances + (means - mean) ** 2).mean(dim=0)
        context.save_for_backward(features, weight, mean, variance)
        context.eps = eps
        context.mark_non_differentiable(mean, variance)
        return functional.batch_norm(features, mean, variance, weight, bias, training=False, eps=eps), mean, variance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features, weight, mean, variance = context.saved_tensors
        shape = [-1 if axis == 1 else 1 for axis in range(features.ndim)]
        # The gradient of a norm with constant mean and variance; the part through mean and variance is subtracted below.
        for_features, for_weight, for_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, features, weight, mean, variance, None, None, False, context.eps, [True, True, True]
        )
        sums = torch.stack([for_weight, for_bias])
        with require_peers():
            distributed.all_reduce(sums)
        along, level = sums / (features.numel() // len(mean) * distributed.get_world_size())
        deviation = (variance + context.eps).rsqrt()
        slope = weight * deviation**2 * along
        offset = weight * deviation * level - slope * mean
        correction = features * slope.view(shape) + offset.view(shape)
        return for_features - correction.to(for_features.dtype), for_weight, for_bias, None

"""The optimizers, and their learning rate.

AdamW (Loshchilov & Hutter, Decoupled weight decay regularization, 2019) and SGD with Nesterov's momentum take one kernel over
all parameters; Muon is in `study.training.matrix_optimizer`. Decay is added to SGD's gradient, as in torch and in the recipes
that train with it; the others' is decoupled.

To add one, write how it is constructed and register it in `OPTIMIZERS`.

The learning rate is a function of the step, counted from 0, so that a resumed run needs no schedule state. Warm-up rises
linearly and reaches the peak at its last step; the first step after it is at the peak and the last step of training still
moves the weights. `one_cycle` keeps the published recipe's own convention, in which the very last step has learning rate 0.

The rate is a tensor on the device: writing a new value into it needs no recompilation and no transfer that the
host waits for. torch's fused kernel takes such a tensor on GPU and CPU alike and was the fastest of its three forms on
a CPU too (AVX-512 Xeon, ConvMixer-48/4, one thread: fused 0.4 ms a step, foreach 0.8 ms, plain loop 1.2 ms).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from study.config.options import TrainOptions
from study.errors import Problem, UserError
from study.registries import Registry
from study.training.matrix_optimizer import MatrixOptimizer, is_hidden_matrix

NOT_MATRICES = ("positions", "class_token", "registers", "relative_bias")
"""Parameters with two or more dimensions that are offsets, not linear maps."""

ONE_CYCLE_PROGRESS = (0.0, 2 / 5, 4 / 5, 1.0)
ONE_CYCLE_LEVELS = (0.0, 1.0, 1 / 20, 0.0)
"""Knots of the piecewise linear schedule of locuslab/convmixer-cifar10, train.py: 0, peak, peak / 20, 0."""


Groups = list[dict[str, Any]]
"""Groups of parameters as torch's optimizers take them, each with its `weight_decay` and its `lr`, a tensor that is written
at each step."""


@dataclass(frozen=True)
class OptimizerPart:
    """How to construct an optimizer, from groups of parameters, groups of hidden matrices and the options.

    There are no groups of matrices unless the optimizer takes them apart; then they are in no other group. `implementation` is
    the optimizer's name in the execution fingerprint. All that a resume needs must be in its state dict.
    """

    construct: Callable[[Groups, Groups, TrainOptions], torch.optim.Optimizer]
    implementation: str
    takes_matrices: bool = False


OPTIMIZERS = Registry("optimizer", OptimizerPart, calls={"construct": ("the groups", "the matrices", "the options")})
OPTIMIZERS.register(
    "adamw",
    OptimizerPart(
        lambda groups, _, train: torch.optim.AdamW(groups, betas=train.betas, eps=train.eps, fused=True),
        implementation="adamw, fused",
    ),
)
OPTIMIZERS.register(
    "sgd",
    OptimizerPart(
        lambda groups, _, train: torch.optim.SGD(groups, momentum=train.momentum, nesterov=True, fused=True),
        implementation="sgd, fused",
    ),
)
OPTIMIZERS.register(
    "muon",
    OptimizerPart(
        lambda groups, matrices, train: MatrixOptimizer(matrices, groups, train=train),
        implementation="muon; adamw, fused",
        takes_matrices=True,
    ),
)


def build_optimizer(model: nn.Module, train: TrainOptions, *, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters; by `train.decay` all of them decay, or kernels and matrices alone."""
    part = OPTIMIZERS.find(train.optimizer, key="train.optimizer")
    groups: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    scales = find_rate_scales([name for name, _ in model.named_parameters()], train.layer_decay)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim >= 2 and not any(word in NOT_MATRICES for word in name.split("."))
        is_apart = part.takes_matrices and is_matrix and is_hidden_matrix(name, parameter)
        stays = not (is_matrix or train.decay == "all")
        decay, lr = 0.0 if stays else train.weight_decay, torch.zeros((), device=device)
        group = {"params": [], "weight_decay": decay, "lr": lr, "lr_scale": scales[name]}
        groups.setdefault((is_apart, stays, scales[name]), group)["params"].append(parameter)
    matrices, others = ([groups[key] for key in sorted(groups) if key[0] == apart] for apart in (True, False))
    return part.construct(others, matrices, train)


def find_rate_scales(names: Sequence[str], layer_decay: float) -> dict[str, float]:
    """Each parameter's factor of the learning rate: 1 in the classifier, and `layer_decay` times as much in each layer before.

    Bao et al., "BEiT", ICLR 2022, with the layers of timm's `param_groups_layer_decay`: the stem, each block, the classifier;
    the last norm belongs to the last block.
    """
    numbers = [int(name.split(".")[1]) for name in names if name.startswith("blocks.")]
    depth = 1 + max(numbers, default=-1)

    def count_layers_after(name: str) -> int:
        if name.startswith("stem."):
            return depth + 1
        return depth - int(name.split(".")[1]) if name.startswith("blocks.") else int(name.startswith("head.norm."))

    return {name: layer_decay ** count_layers_after(name) for name in names}


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"].fill_(rate * group.get("lr_scale", 1.0))  # checkpoints of version 0.2 have none


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Load a state dict from the CPU; torch moves the moments to the parameters' device, but not the learning rate."""
    device = optimizer.param_groups[0]["lr"].device
    optimizer.load_state_dict(dict(saved))
    for group in optimizer.param_groups:
        group["lr"] = group["lr"].to(device)


def count_epoch_steps(train_images: int, batch_size: int) -> int:
    """Optimizer steps of one epoch: full batches only, as every batch must have one shape.

    The images left over differ from epoch to epoch with the shuffle. Raises UserError where there's no full batch.
    """
    if batch_size > train_images:
        rule = f"a batch can't be larger than the training set, which has {train_images} images"
        raise UserError(Problem(rule, key="train.batch_size", value=batch_size))
    return train_images // batch_size


def learning_rate(step: int, train: TrainOptions, *, epoch_steps: int) -> float:
    """The learning rate of optimizer step `step`, counted from 0, in epochs of `epoch_steps`."""
    steps = train.count_steps(epoch_steps)
    assert 0 <= step < steps, f"step {step} of {steps}"
    if train.schedule == "one_cycle":
        return train.lr * float(np.interp((step + 1) / steps, ONE_CYCLE_PROGRESS, ONE_CYCLE_LEVELS))
    warmup = round(train.warmup_epochs * epoch_steps)
    if step < warmup:
        return train.lr * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / (steps - train.cooldown_epochs * epoch_steps - warmup))  # below 1 without a cooldown
    floor = min(train.min_lr, train.lr)
    match train.schedule:
        case "cosine":  # Loshchilov and Hutter, SGDR (2017), equation 5, one cycle
            return floor + (train.lr - floor) * ((1 + math.cos(math.pi * progress)) / 2)
        case "linear":
            return floor + (train.lr - floor) * (1 - progress)
        case "constant":
            return train.lr

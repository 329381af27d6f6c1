"""Everything that a training carries from one step to the next: a checkpoint holds exactly this.

There is no generator state, as all random numbers are keyed (`study.rng`).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from study.backbones.base import Backbone
from study.config.run import Run
from study.training.distributed import SINGLE_RANK, Ranks
from study.training.dropout import Dropout
from study.training.fingerprint import Fingerprint, find_changes
from study.training.optimizer import build_optimizer, restore_optimizer
from study.training.outcome import CURVE_NAMES, Curves, Resume
from study.training.stochastic_depth import StochasticDepth


class WeightAverage:
    """An exponential moving average of the weights (EMA), for evaluation only: a copy of `model` that training never reads.

    The decay warms up as min(decay, (1 + t) / (10 + t)) after t updates, TensorFlow's `ExponentialMovingAverage` with
    `num_updates`: a short training would otherwise be judged by its initial weights (0.999 ** 270 = 0.76). Floating-point
    buffers (BatchNorm's running statistics) are averaged with the weights they belong to; counters are copied. torch's
    `AveragedModel` asks the device for its update count in every step, which makes the host wait; this one doesn't.
    """

    def __init__(self, model: nn.Module, *, decay: float):
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Update the average by the weights after optimizer step `step`, counted from 0."""
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        averaged, current = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(averaged, current, 1 - warm_up_decay(self.decay, step))
        for counter, new in pairs:
            if not counter.is_floating_point():
                counter.copy_(new)


def warm_up_decay(decay: float, updates: int) -> float:
    return min(decay, (1 + updates) / (10 + updates))


@dataclass
class TrainingState:
    """The weights and their optimizer, the steps taken, and what was measured so far."""

    model: nn.Module
    module: nn.Module  # what a training step calls: the model, or several ranks' DistributedDataParallel around it
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    dropping: Sequence[StochasticDepth | Dropout]  # keyed, so not saved
    losses: Tensor  # `steps of an epoch`, of the current epoch, on the device
    hits: Tensor  # the same, images classified correctly in training
    curves: Curves = field(default_factory=lambda: {name: [] for name in CURVE_NAMES})
    step: int = 0
    train_seconds: float = 0.0
    peak_memory_mib: float | None = None
    resumes: tuple[Resume, ...] = ()

    @property
    def epochs_done(self) -> int:
        """Trained and validated."""
        return len(self.curves["epoch"])

    @property
    def evaluated_model(self) -> nn.Module:
        """The weights that validation and test figures are computed with."""
        return self.model if self.average is None else self.average.model

    def export(self, fingerprint: Fingerprint) -> dict[str, Any]:
        """The state as tensors and plain values. The tensors are shared with the training, so write them at once."""
        return {
            "model": clone_views(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else clone_views(self.average.model.state_dict()),
            "losses": self.losses,
            "hits": self.hits,
            "curves": self.curves,
            "step": self.step,
            "train_seconds": self.train_seconds,
            "peak_memory_mib": self.peak_memory_mib,
            "resumes": [{"step": resume.step, "changes": list(resume.changes)} for resume in self.resumes],
            "fingerprint": fingerprint,
        }

    def restore(self, saved: Mapping[str, Any], fingerprint: Fingerprint) -> None:
        """Continue from an exported state, and note in what the execution differs from the one that saved it."""
        self.model.load_state_dict(saved["model"])
        restore_optimizer(self.optimizer, saved["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(saved["scaler"])
        if self.average is not None:
            self.average.model.load_state_dict(saved["average"])
        self.losses.copy_(saved["losses"])
        self.hits.copy_(saved["hits"])
        self.curves = saved["curves"]
        self.step = saved["step"]
        self.train_seconds = saved["train_seconds"]
        self.peak_memory_mib = saved["peak_memory_mib"]
        changes = tuple(find_changes(saved["fingerprint"], fingerprint))
        earlier = tuple(Resume(entry["step"], tuple(entry["changes"])) for entry in saved["resumes"])
        self.resumes = (*earlier, Resume(self.step, changes))


def clone_views(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with copies of those that are views: a file would hold all of the storage that they are views of."""
    return {name: each.clone() if each.untyped_storage().nbytes() > each.nbytes else each for name, each in tensors.items()}


def initial_state(
    model: Backbone, run: Run, *, device: torch.device, epoch_steps: int, ranks: Ranks = SINGLE_RANK
) -> TrainingState:
    """The state before the first step, of a model that is on its device."""
    train = run.train
    # The average is copied from the model before anything hooks into it, as it is only ever evaluated.
    average = WeightAverage(model, decay=train.ema_decay) if train.evaluate == "ema" else None
    images = epoch_steps * train.batch_size
    dropping: list[StochasticDepth | Dropout] = []
    if train.attention_dropout or train.mlp_dropout or train.head_dropout:
        dropping.append(Dropout(model, train, seed=run.seed, images=images, device=device))
    if train.stochastic_depth:
        dropping.append(StochasticDepth(model, rate=train.stochastic_depth, seed=run.seed, images=images, device=device))
    return TrainingState(
        model=model,
        module=ranks.wrap(model),
        optimizer=build_optimizer(model, train, device=device),
        scaler=torch.amp.GradScaler(device.type, enabled=train.precision == "fp16"),
        average=average,
        dropping=dropping,
        losses=torch.zeros(epoch_steps, device=device),
        hits=torch.zeros(epoch_steps, device=device),
    )

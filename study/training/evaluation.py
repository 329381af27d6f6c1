"""Top-1, top-5 and cross-entropy of a model on one split, without augmentation, label smoothing or mixing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from study.training.distributed import SINGLE_RANK, Ranks


@dataclass(frozen=True)
class Predictions:
    """Per image, in stored order: the label, the class with the greatest probability, and that probability."""

    label: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float32]

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the predicted class is the label."""
        return np.equal(self.predicted, self.label)


@dataclass(frozen=True)
class Evaluation:
    """Means over a split; `top5` is None with five classes or fewer, where it is always 1. `loss` is in nats."""

    accuracy: float
    top5: float | None
    loss: float
    predictions: Predictions


class SelectOutputs(nn.Module):
    """A model with some of its outputs, in another order: b c h w -> b k."""

    def __init__(self, model: nn.Module, outputs: Sequence[int]) -> None:
        super().__init__()
        self.model, self.outputs = model, list(outputs)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits[:, self.outputs]


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, autocast: torch.autocast, ranks: Ranks = SINGLE_RANK
) -> Evaluation:
    """Evaluate `model` on batches of normalized images `b c h w` and labels `b` of all ranks.

    The host waits once, at the end.
    """
    training = [module for module in model.modules() if module.training]  # not those of a frozen body
    model.eval()
    logits, labels = [], []
    for images, label in batches:
        with autocast:
            logits.append(model(images).float())
        labels.append(label)
    for module in training:
        module.training = True
    return compute_metrics(ranks.gather(logits), ranks.gather(labels))


def compute_metrics(logits: Tensor, labels: Tensor) -> Evaluation:
    """The metrics of logits `n k` and labels `n`. Means are taken in double precision over all images at once."""
    loss = F.cross_entropy(logits, labels, reduction="none").double().mean()
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = ranked == labels[:, None]
    predicted = ranked[:, 0]
    probability = logits.softmax(dim=1).gather(1, ranked[:, :1])[:, 0]
    return Evaluation(
        accuracy=hits[:, 0].double().mean().item(),
        top5=hits.any(dim=1).double().mean().item() if logits.shape[1] > 5 else None,
        loss=loss.item(),
        predictions=Predictions(labels.cpu().numpy(), predicted.cpu().numpy(), probability.cpu().numpy()),
    )

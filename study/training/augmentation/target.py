"""The training target of a batch of images: one label each, or two where images were mixed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Target:
    """Labels int64 `b`; where images are mixed also their partners' labels `b` and the weight of `labels`, float `b`.

    The loss of an image is weight x loss(labels) + (1 - weight) x loss(partners).
    """

    labels: Tensor
    partners: Tensor | None = None
    weight: Tensor | None = None

    def chunk(self, parts: int) -> list[Target]:
        """The targets of the parts of the batch, as `Tensor.chunk` makes them of its images."""
        labels = self.labels.chunk(parts)
        if self.partners is None or self.weight is None:
            return [Target(own) for own in labels]
        columns = labels, self.partners.chunk(parts), self.weight.chunk(parts)
        return [Target(*column) for column in zip(*columns, strict=True)]

"""The peers, implemented as in public recipes.

(b) timm's model and a plain training step: forward, cross-entropy, backward, AdamW with its defaults; tensors contiguous or
channels_last, eager or compiled; the batch is already on the device. Low precision uses autocast, fp16 a gradient scaler.

(a) The usual CIFAR-10 loop, as in the public ConvMixer, ViT and Mixer repositories for CIFAR-10: images decoded to PIL one by
one, transformed by torchvision in the workers of a DataLoader, contiguous tensors copied at each step, autocast and a
gradient scaler on a GPU, loss and number of correct predictions read back with `.item()` in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.subjects import CIFAR10_MEAN, CIFAR10_STD, Subject, timm_model
from study.data.splits import Split
from study.data.torchvision_schema import declare_missing_operators

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
RATE, DECAY = 1e-3, 0.005

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # images and labels -> loss and logits


def plain_step(model: nn.Module, *, device: torch.device, precision: str) -> Step:
    """One training step as in tutorials."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != "fp32"):
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        return loss, logits

    return step


def timm_step(
    subject: Subject, *, layout: str, compiled: bool, batch_size: int, device: torch.device, precision: str
) -> Callable[[], object]:
    """Peer (b): one step on a batch that is already on the device."""
    model = timm_model(subject).to(device)
    model.to(memory_format=MEMORY_FORMATS[layout])  # type: ignore[call-overload]
    images = torch.randn(batch_size, 3, subject.image_size, subject.image_size)
    images = images.to(device, memory_format=MEMORY_FORMATS[layout])
    labels = (torch.arange(batch_size) % 10).to(device)
    if compiled:
        model.compile()
    step = plain_step(model, device=device, precision=precision)
    return lambda: step(images, labels)


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images in memory, converted to PIL and transformed one by one, as in torchvision's CIFAR10."""

    def __init__(self, split: Split, transform: Callable[[Any], Tensor]) -> None:
        self.images = split.images.permute(0, 2, 3, 1).numpy()
        self.labels = split.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[at])), self.labels[at]


def usual_loader(split: Split, *, batch_size: int, workers: int) -> DataLoader[tuple[Tensor, int]]:
    """Flip and RandAugment of the 25-epoch recipe in PIL, then tensors and normalization."""
    declare_missing_operators()
    from torchvision import transforms

    steps = [
        transforms.RandomHorizontalFlip(),
        transforms.RandAugment(num_ops=2, magnitude=12),
        transforms.ToTensor(),
        transforms.Normalize(CIFAR10_MEAN, CIFAR10_STD),
    ]
    data = PilImages(split, transforms.Compose(steps))
    return DataLoader(data, batch_size=batch_size, shuffle=True, num_workers=workers, drop_last=True)


def usual_epoch(step: Step, batches: Iterable[tuple[Tensor, Tensor]], *, device: torch.device) -> tuple[float, int]:
    """Peer (a): mean loss and correct predictions of one pass over `batches`, from a loader or already on the device."""
    total, hits, seen = 0.0, 0, 0
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        loss, logits = step(images, labels)
        total += loss.item() * len(labels)
        hits += int((logits.argmax(dim=1) == labels).sum().item())
        seen += len(labels)
    return total / seen, hits

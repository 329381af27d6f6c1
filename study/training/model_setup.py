"""A run's model, ready to train: on its device, in its memory layout, compiled or not, with the device's kernels."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch

from study.backbones import build_backbone
from study.backbones.base import Backbone
from study.config.options import Compiled, Variant
from study.config.run import Run
from study.cpu_kernels.compiler import KernelsUnavailable
from study.cpu_kernels.extension import install_kernels, load_extension
from study.cpu_kernels.freed_memory import keep_freed_memory
from study.training.device import DeviceChoice
from study.training.distributed import SINGLE_RANK, Ranks
from study.training.memory_layout import LAYOUT_NAMES, MEMORY_FORMATS, choose_memory_format
from study.training.starting_weights import load_start
from study.training.synchronized_norm import synchronize_norms


@dataclass(frozen=True)
class PreparedModel:
    """An initialized model that is ready to train, and the entries of the execution fingerprint that concern it."""

    model: Backbone
    layout: torch.memory_format
    kernels: str
    compiled: Compiled | None

    @property
    def variant(self) -> Variant:
        return Variant(memory_layout=LAYOUT_NAMES[self.layout], compiled=self.compiled)


def with_cpu_kernels(choice: DeviceChoice, environment: Mapping[str, str], *, compiled: bool = True) -> DeviceChoice:
    """The device with the compiled CPU kernels where it is a CPU, unless not `compiled`; without a compiler it warns.

    The process keeps memory that it frees from here on (`study.cpu_kernels.freed_memory`).
    """
    if choice.kind != "cpu":
        return choice
    keep_freed_memory()
    if not compiled:
        return choice
    try:
        return replace(choice, extension=load_extension(environment))
    except KernelsUnavailable as error:
        print(f"training without compiled CPU kernels, which is slower: {error}", file=sys.stderr, flush=True)
        return choice


def prepare_model(
    run: Run, choice: DeviceChoice, *, variant: Variant | None = None, ranks: Ranks = SINGLE_RANK
) -> PreparedModel:
    """Build the model of `run` on the device `choice`, with norms that see the batch of all `ranks`, and what it starts from.

    `variant` is the fastest one on this device, where that was measured. torch compiles a model when it is first called, and
    doesn't compile its copies. Several ranks don't compile, as their norms communicate.
    """
    model = build_backbone(run.model, seed=run.seed)
    load_start(model, run)
    layout = choose_memory_format(model) if variant is None else MEMORY_FORMATS[variant.memory_layout]
    compiled = None if variant is None or ranks.size > 1 else variant.compiled
    if ranks.size > 1:
        synchronize_norms(model, device=choice.device)
    if run.train.freeze == "body":
        freeze_body(model)
    model.to(device=choice.device).to(memory_format=layout)  # type: ignore[call-overload]
    extension = choice.extension if run.train.precision == "fp32" and compiled is None else None
    kernels = install_kernels(model, extension)
    if compiled is not None:
        model.compile(mode=compiled)
    return PreparedModel(model, layout, kernels, compiled)


def freeze_body(model: Backbone) -> None:
    """Keep all but the classifier as it is: no gradients, and its norms as in evaluation."""
    model.requires_grad_(False)
    classifier = model.get_submodule("head.classifier").requires_grad_(True)
    for part in (model.stem, model.blocks, *model.head.children()):
        if part is not classifier and next(part.parameters(), None) is not None:
            part.eval()


@contextmanager
def eager_mode(prepared: PreparedModel) -> Iterator[None]:
    """Inside, a compiled model runs in eager mode: evaluation is too rare to be worth another compilation."""
    with torch.compiler.set_stance("force_eager") if prepared.compiled else nullcontext():
        yield

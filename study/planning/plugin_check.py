"""Checks of the models that plug-ins contribute to, before anything is launched."""

from collections.abc import Iterable

import torch

from study.backbones import BACKBONES, build_backbone
from study.backbones.metaformer import MetaFormerSpec
from study.backbones.specification import BackboneSpec
from study.backbones.token_mixers import TOKEN_MIXERS
from study.config.run import Run
from study.data.datasets import DATASETS
from study.errors import Problem, UserError
from study.registries import Plugin, PluginPart
from study.training.augmentation.policies import AUGMENTATIONS
from study.training.optimizer import OPTIMIZERS


def find_model_parts(spec: BackboneSpec) -> list[PluginPart]:
    """The parts of plug-ins that a model consists of."""
    mixers = spec.mixers if isinstance(spec, MetaFormerSpec) else []
    found = [BACKBONES.find_plugin_part(spec.backbone), *map(TOKEN_MIXERS.find_plugin_part, mixers)]
    return list({part.place: part for part in found if part}.values())


def find_plugins(run: Run) -> tuple[Plugin, ...]:
    """The plug-ins whose code a run executes."""
    others = (
        DATASETS.find_plugin_part(run.data.name),
        AUGMENTATIONS.find_plugin_part(run.augment.auto_augment),
        OPTIMIZERS.find_plugin_part(run.train.optimizer),
    )
    return tuple(dict.fromkeys(part.plugin for part in (*find_model_parts(run.model), *others) if part))


def check_plugin_models(specs: Iterable[BackboneSpec]) -> None:
    """Build every model with a plug-in's part twice and apply it once, to two images.

    Raises UserError, at the line of the registration, where the two differ or the outputs are no logits `b k`.
    """
    problems = []
    for spec in specs:
        if not (parts := find_model_parts(spec)):
            continue
        place = parts[0].place
        first, second = (build_backbone(spec, seed=0).eval() for _ in range(2))
        ours, others = first.state_dict(), second.state_dict()
        if ours.keys() != others.keys() or not all(torch.equal(ours[name], others[name]) for name in ours):
            rule = "two models with the same seed differ: weights come from torch's generator alone, which is seeded"
            problems.append(Problem(rule, place, spec.short_name))
        images = torch.linspace(-1, 1, 2 * spec.in_channels * spec.image_size**2)
        with torch.no_grad():
            logits = first(images.view(2, spec.in_channels, spec.image_size, spec.image_size))
        if not isinstance(logits, torch.Tensor) or logits.shape != (2, spec.num_classes):
            found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            rule = f"a model maps images (2, {spec.in_channels}, {spec.image_size}, {spec.image_size}) to logits"
            problems.append(Problem(f"{rule} (2, {spec.num_classes})", place, spec.short_name, found))
    if problems:
        raise UserError(*problems)

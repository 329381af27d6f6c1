"""The registry of backbones: one line per architecture, and the one way to build them.

`build("vit", image_size=32, in_channels=3, num_classes=10, patch_size=4, dim=96, depth=3)` returns a module that maps
float images b c h w to logits b k; `build("vit_base_patch16")` returns a published variant. To add a backbone, write its
file (specification, closed-form cost, module) and register it in `BACKBONES`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError

from study.backbones.base import Architecture, Backbone
from study.backbones.convmixer import CONVMIXER
from study.backbones.convnext import CONVNEXT
from study.backbones.initialization import initialize, matched_distribution
from study.backbones.metaformer import METAFORMER
from study.backbones.mlp_mixer import MLP_MIXER
from study.backbones.specification import BackboneSpec
from study.backbones.vit import VIT
from study.errors import Problem, UserError
from study.registries import Registry

BACKBONES = Registry("backbone", Architecture, calls={"construct": ("the specification",)})
BACKBONES.register("convmixer", CONVMIXER)
BACKBONES.register("vit", VIT)
BACKBONES.register("mlp_mixer", MLP_MIXER)
BACKBONES.register("convnext", CONVNEXT)
BACKBONES.register("metaformer", METAFORMER)


def names() -> tuple[str, ...]:
    """The registered backbones."""
    return tuple(BACKBONES)


def variants() -> tuple[str, ...]:
    """The published variants, each a backbone with its paper's sizes and initialization."""
    return tuple(variant for architecture in BACKBONES.values() for variant in architecture.variants)


def get_architecture(name: str) -> Architecture:
    """The registry's entry of a backbone or published variant; raises UserError for an unknown name."""
    for backbone, architecture in BACKBONES.items():
        if name == backbone or name in architecture.variants:
            return architecture
    raise UserError(Problem("unknown backbone", value=name, choices=names() + variants()))


def get_spec_class(name: str) -> type[BackboneSpec]:
    """The specification class of a backbone or published variant; raises UserError for an unknown name."""
    return get_architecture(name).specification


def specify(name: str, settings: Mapping[str, object]) -> BackboneSpec:
    """The specification of a backbone with these settings, or of a published variant with these settings changed.

    Raises UserError with one problem per setting that breaks a rule.
    """
    architecture = get_architecture(name)
    try:
        return architecture.specification.model_validate({**architecture.variants.get(name, {}), **settings})
    except ValidationError as error:
        raise UserError(*_list_problems(error, architecture.specification)) from None


def build(name: str, *, seed: int = 0, **settings: Any) -> Backbone:
    """A newly initialized backbone or published variant: float images b c h w -> logits b k.

    The settings are the fields of the backbone's specification, which validates them: any other keyword, a value of
    another type and a combination that cannot be built raise UserError. This is the only function of the project
    that takes `**settings`: one public function for many specifications, each of which is strict.
    """
    return build_backbone(specify(name, settings), seed=seed)


def build_backbone(spec: BackboneSpec, seed: int = 0) -> Backbone:
    """The backbone of a specification, initialized from the seed's random streams; on the CPU, in float32.

    torch's own generator is not changed.
    """
    architecture = BACKBONES[spec.backbone]
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        model = architecture.construct(spec)
    if spec.initialization == "own":
        return model
    rule = architecture.paper_distribution if spec.initialization == "paper" else matched_distribution
    assert rule is not None, f"{spec.backbone} has no paper initialization, yet its specification allowed it"
    initialize(model, seed, rule=rule)
    return model


def _list_problems(error: ValidationError, specification: type[BackboneSpec]) -> list[Problem]:
    """A specification's validation errors as problems, without defaults that could not be derived because of them."""
    problems = []
    for entry in error.errors(include_url=False):
        setting, name = ".".join(map(str, entry["loc"])), specification.backbone
        if entry["type"] == "extra_forbidden":
            problems.append(Problem(f"{name} has no such setting", key=setting, choices=tuple(specification.model_fields)))
        elif entry["type"] == "missing":
            problems.append(Problem(f"{name} needs this setting", key=setting))
        elif entry["type"] != "default_factory_not_called":
            rule = entry["msg"].removeprefix("Value error, ")
            problems.append(Problem(rule, key=setting, value=entry["input"]))
    return problems

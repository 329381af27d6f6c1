"""The registry of backbones: one line per architecture, and the one way to build them.

`build("vit", image_size=32, in_channels=3, num_classes=10, patch_size=4, dim=96, depth=3)` gives a module that maps
float images b c h w to logits b k; `build("vit_base_patch16")` gives a published variant. To add a backbone, write its
file (specification, closed-form cost, module) and add its line to `BACKBONES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError

from study.backbones import convmixer, convnext, metaformer, mlp_mixer, vit
from study.backbones.base import Architecture, Backbone
from study.backbones.initialization import initialise, matched
from study.backbones.specification import BackboneSpec
from study.errors import Problem, UserError

BACKBONES: Mapping[str, Architecture] = {
    "convmixer": convmixer.ARCHITECTURE,
    "vit": vit.ARCHITECTURE,
    "mlp_mixer": mlp_mixer.ARCHITECTURE,
    "convnext": convnext.ARCHITECTURE,
    "metaformer": metaformer.ARCHITECTURE,
}


def names() -> tuple[str, ...]:
    """The registered backbones."""
    return tuple(BACKBONES)


def variants() -> tuple[str, ...]:
    """The published variants, each a backbone with its paper's sizes and initialization."""
    return tuple(variant for architecture in BACKBONES.values() for variant in architecture.published)


def architecture(name: str) -> Architecture:
    """What is registered for a backbone, or for the backbone of a published variant; UserError for an unknown name."""
    for backbone, entry in BACKBONES.items():
        if name == backbone or name in entry.published:
            return entry
    raise UserError(Problem("unknown backbone", value=name, choices=names() + variants()))


def specification(name: str) -> type[BackboneSpec]:
    """The specification class of a backbone or variant; UserError for an unknown name."""
    return architecture(name).specification


def specify(name: str, settings: Mapping[str, object]) -> BackboneSpec:
    """The specification of a backbone with these settings, or of a published variant with these settings changed.

    UserError with one problem per setting that breaks a rule.
    """
    entry = architecture(name)
    try:
        return entry.specification.model_validate({**entry.published.get(name, {}), **settings})
    except ValidationError as error:
        raise UserError(*problems(error, entry.specification)) from None


def build(name: str, *, seed: int = 0, **settings: Any) -> Backbone:
    """A freshly initialised backbone or published variant: float images b c h w -> logits b k.

    The settings are the fields of the backbone's specification, and validated by it: any other keyword, a value of
    another type and a combination that cannot be built are a UserError. This is the only function of the project
    that takes `**settings`: it is the public, keyword-only door to many specifications, and opens onto strict ones.
    """
    return build_spec(specify(name, settings), seed=seed)


def build_spec(spec: BackboneSpec, seed: int = 0) -> Backbone:
    """The backbone that a specification describes, initialised from the seed's streams; on the CPU, in float32.

    torch's own generator is left as it was.
    """
    entry = BACKBONES[spec.backbone]
    with torch.random.fork_rng(devices=[]):
        model = entry.construct(spec)
    rule = entry.paper if spec.initialization == "paper" else matched
    assert rule is not None, f"{spec.backbone} has no initialization of its own, yet its specification allowed it"
    initialise(model, seed, rule=rule)
    return model


def problems(error: ValidationError, kind: type[BackboneSpec]) -> list[Problem]:
    """What a specification found wrong, in a user's words; defaults that could not be derived are no news."""
    found = []
    for entry in error.errors(include_url=False):
        setting = ".".join(map(str, entry["loc"]))
        if entry["type"] == "extra_forbidden":
            found.append(Problem(f"{kind.backbone} has no such setting", key=setting, choices=tuple(kind.model_fields)))
        elif entry["type"] == "missing":
            found.append(Problem(f"{kind.backbone} needs this setting", key=setting))
        elif entry["type"] != "default_factory_not_called":
            rule = entry["msg"].removeprefix("Value error, ")
            found.append(Problem(rule, key=setting, value=entry["input"]))
    return found

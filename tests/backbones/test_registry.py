"""Laws of the registry: every name can be built, and nothing else is accepted."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from study.backbones import build, build_backbone, get_spec_class, names, specify, variants
from study.backbones.closed_form import MODEL_PARTS
from study.errors import UserError

SMALL = {"image_size": 8, "in_channels": 3, "num_classes": 5, "patch_size": 2, "dim": 32, "depth": 2}


@pytest.mark.parametrize("name", names())
def test_every_backbone_trains(name: str) -> None:
    """Images b c h w become logits b k, and every trainable parameter gets a gradient from the loss."""
    model = build(name, **SMALL)
    logits = model(torch.rand(4, 3, 8, 8))
    assert logits.shape == (4, 5)
    functional.cross_entropy(logits, torch.arange(4)).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", names())
def test_every_parameter_has_a_part(name: str) -> None:
    """Each parameter belongs to one of four parts, and each part has parameters."""
    model = build(name, **SMALL)
    assert {model.parameter_part(parameter) for parameter, _ in model.named_parameters()} == set(MODEL_PARTS)


@pytest.mark.parametrize("name", names())
def test_a_specification_is_complete(name: str) -> None:
    """Its dump holds plain values only, and makes the same specification, equal and of equal hash."""
    spec = specify(name, SMALL)
    dump = spec.model_dump()
    assert all(value is None or isinstance(value, int | str) for value in dump.values())
    again = get_spec_class(name).model_validate(dump)
    assert again == spec
    assert hash(again) == hash(spec)
    assert build_backbone(spec).spec == spec


@pytest.mark.parametrize("name", names())
def test_unknown_keywords_are_refused(name: str) -> None:
    """An unknown keyword is reported with the nearest valid one."""
    with pytest.raises(UserError, match="did you mean 'depth'"):
        build(name, **SMALL, dept=3)


def test_unknown_backbones_are_refused() -> None:
    """An unknown name is reported with the valid names and the nearest."""
    with pytest.raises(UserError, match="did you mean 'convmixer'"):
        build("convmixr", **SMALL)


@pytest.mark.parametrize(
    ("name", "settings", "rule"),
    [
        ("vit", {"patch_size": 3}, "patch_size must divide image_size: 8 is divisible by 1, 2, 4, 8"),
        ("vit", {"heads": 5}, "heads must divide dim: 32 is divisible by 1, 2, 4, 8, 16, 32"),
        ("convmixer", {"kernel_size": 4}, "must be odd"),
        ("convmixer", {"kernel_size": 9}, "must not exceed twice the token grid: 4 x 4 tokens allow 7"),
        ("mlp_mixer", {"depth": 0}, "greater than or equal to 1"),
        ("mlp_mixer", {"dim": "32"}, "valid integer"),
        ("mlp_mixer", {"depth": True}, "valid integer"),
        ("convmixer", {"heads": 2}, "convmixer has no such setting"),
    ],
)
def test_invalid_settings_are_refused(name: str, settings: dict[str, object], rule: str) -> None:
    """Each broken rule is reported, at the setting that breaks it."""
    with pytest.raises(UserError) as refusal:
        build(name, **(SMALL | settings))
    assert len(refusal.value.problems) == 1
    assert refusal.value.problems[0].key == next(iter(settings))
    assert rule in refusal.value.problems[0].rule


def test_all_mistakes_are_reported_at_once() -> None:
    """Three mistakes make three problems, and a default that could not be derived is no fourth."""
    settings = {key: value for key, value in SMALL.items() if key != "depth"} | {"dim": 0, "color": 1}
    with pytest.raises(UserError) as refusal:
        build("vit", **settings)
    assert sorted(problem.key for problem in refusal.value.problems) == ["color", "depth", "dim"]


def test_variants_are_settings_that_can_be_changed() -> None:
    """A published variant is built by its name, and explicit settings replace its own."""
    spec = specify("vit_tiny_patch16", {"num_classes": 10})
    assert (spec.backbone, spec.dim, spec.num_classes) == ("vit", 192, 10)
    assert not set(variants()) & set(names())
    with pytest.raises(UserError, match="did you mean 'vit_base_patch16'"):
        specify("vit_base_patch61", {})

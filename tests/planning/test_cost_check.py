"""Laws of verification: each architecture is counted once, and a false closed form is found."""

from __future__ import annotations

import pytest

from study.backbones import names, specify
from study.backbones.closed_form import Cost, PartCost
from study.backbones.vit import ViTSpec
from study.planning.traced_cost import verify_costs

SMALL = {"image_size": 8, "in_channels": 3, "num_classes": 5, "patch_size": 2, "dim": 32, "depth": 3}


def test_each_architecture_is_traced_once() -> None:
    """Runs that share one, and depths that only repeat a block, are one architecture."""
    specs = [specify(name, SMALL) for name in names()]
    deeper = [spec.with_options({"depth": 7}) for spec in specs]
    assert verify_costs([*specs, *specs, *deeper, specify("vit", SMALL | {"dim": 64})]) == len(specs) + 1


def test_a_false_closed_form_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed form that forgets one MAC is named."""
    spec, true = specify("vit", SMALL), ViTSpec.closed_form

    def false(self: ViTSpec) -> Cost:
        parts = true(self).parts
        return Cost({**parts, "head": parts["head"] + PartCost(macs=-1)})

    monkeypatch.setattr(ViTSpec, "closed_form", false)
    with pytest.raises(AssertionError, match="the closed form of vit is wrong"):
        verify_costs([spec])

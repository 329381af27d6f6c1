"""Laws of verification: each architecture is counted once, and a false closed form is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.backbones import names, specify
from study.backbones.closed_form import Cost, PartCost
from study.backbones.vit import ViTSpec
from study.planning.traced_cost import verify_costs

SMALL = {"image_size": 8, "in_channels": 3, "num_classes": 5, "patch_size": 2, "dim": 32, "depth": 3}


def test_what_was_counted_is_remembered(tmp_path: Path) -> None:
    """A second look counts nothing, also at another depth; a new architecture is counted alone."""
    specs = [specify(name, SMALL) for name in names()]
    assert verify_costs(specs * 2, cache=tmp_path) == len(specs)
    assert verify_costs([spec.with_options({"depth": 7}) for spec in specs], cache=tmp_path) == 0
    assert verify_costs([*specs, specify("vit", SMALL | {"dim": 64})], cache=tmp_path) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_false_closed_form_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed form that forgets one MAC is named, and not remembered as true."""
    spec, true = specify("vit", SMALL), ViTSpec.closed_form

    def false(self: ViTSpec) -> Cost:
        parts = true(self).parts
        return Cost({**parts, "head": parts["head"] + PartCost(macs=-1)})

    monkeypatch.setattr(ViTSpec, "closed_form", false)
    with pytest.raises(AssertionError, match="the closed form of vit is wrong"):
        verify_costs([spec], cache=tmp_path)
    monkeypatch.undo()
    assert verify_costs([spec], cache=tmp_path) == 1

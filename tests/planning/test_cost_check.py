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


@pytest.mark.parametrize("content", [b"", b"null", b"{}", b"[1, [", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_list_is_made_anew(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """All sweeps share it: what can't be used is named and traced again, and the next look counts nothing."""
    spec = specify("vit", SMALL)
    verify_costs([spec], cache=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert verify_costs([spec], cache=tmp_path) == 1 and str(path) in capsys.readouterr().err
    assert verify_costs([spec], cache=tmp_path) == 0 and capsys.readouterr().err == ""


def test_a_disk_that_can_only_be_read_is_no_reason_to_stop(tmp_path: Path) -> None:
    """Where the list can't be written, architectures are traced each time."""
    (tmp_path / "file").touch()
    assert [verify_costs([specify("vit", SMALL)], cache=tmp_path / "file") for _ in range(2)] == [1, 1]


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

"""Laws of weights in files: the right ones are loaded whole, all others are refused with a message and nothing is loaded."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm_weights import to_timm
from torch import Tensor

from study.backbones import build_backbone, names, specify
from study.backbones.weight_files import load_weights
from study.errors import UserError

SMALL = {"image_size": 8, "in_channels": 3, "num_classes": 5, "patch_size": 2, "dim": 32, "depth": 2}
VIT = specify("vit", SMALL | {"pooling": "class_token"})


def state() -> dict[str, Tensor]:
    """A ViT's weights."""
    return build_backbone(VIT).state_dict()


def refusal(path: Path) -> str:
    """The message of the error that a file of other weights raises."""
    with pytest.raises(UserError) as error:
        load_weights(path, VIT)
    assert error.value.problems[0].place == str(path)
    return str(error.value)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_saved_weights_are_loaded(name: str, suffix: str, tmp_path: Path) -> None:
    """Weights are equal bit for bit from both file formats, and the model accepts them strictly."""
    spec = specify(name, SMALL)
    saved = build_backbone(spec, seed=5).state_dict()
    path = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(saved, path)
    loaded = load_weights(path, spec)
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[key], saved[key]) for key in saved)
    build_backbone(spec).load_state_dict(loaded)


@pytest.mark.parametrize("name", ["convmixer", "vit", "mlp_mixer"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_timms_names_are_converted(name: str, wrapper: str | None, tmp_path: Path) -> None:
    """A file with timm's names loads under our names, also where the checkpoint wraps its weights."""
    spec = specify(name, SMALL)
    saved = build_backbone(spec, seed=5).state_dict()
    content = to_timm(saved, name)
    torch.save(content if wrapper is None else {wrapper: content, "epoch": 3}, tmp_path / "timm.pth")
    loaded = load_weights(tmp_path / "timm.pth", spec)
    assert all(torch.equal(loaded[key], saved[key]) for key in saved)


def test_another_models_weights_are_refused(tmp_path: Path) -> None:
    """Weights of another family, in our names or timm's, are refused and the expected model is named."""
    other = build_backbone(specify("convmixer", SMALL)).state_dict()
    save_file(other, tmp_path / "a.safetensors")
    save_file(to_timm(other, "convmixer"), tmp_path / "b.safetensors")
    for name in ("a", "b"):
        assert "not the weights of vit with image_size 8, patch_size 2, dim 32, depth 2, 5 classes" in refusal(
            tmp_path / f"{name}.safetensors"
        )


def test_missing_and_unexpected_names_are_listed(tmp_path: Path) -> None:
    """Missing tensors, unexpected ones and those of another shape are listed by name."""
    weights = state()
    weights["head.classifier.extra"] = weights.pop("head.classifier.bias")
    weights["head.norm.weight"] = torch.ones(16)
    save_file(weights, tmp_path / "w.safetensors")
    message = refusal(tmp_path / "w.safetensors")
    assert "1 missing: head.classifier.bias" in message
    assert "1 unexpected: head.classifier.extra" in message
    assert "1 of another shape: head.norm.weight is 16 instead of 32" in message


def test_another_image_size_is_reported_by_its_positions(tmp_path: Path) -> None:
    """Weights for another image size differ in the shape of their positions, which the message says."""
    larger = build_backbone(specify("vit", SMALL | {"pooling": "class_token", "image_size": 16}))
    save_file(larger.state_dict(), tmp_path / "w.safetensors")
    assert "stem.positions.table is 1 x 65 x 32 instead of 1 x 17 x 32" in refusal(tmp_path / "w.safetensors")


class Planted:
    """An object whose unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.path,))


def test_pickled_objects_are_refused_unexecuted(tmp_path: Path) -> None:
    """A checkpoint that holds objects is refused, and none of them is unpickled."""
    torch.save({"model": state(), "planted": Planted(tmp_path / "planted")}, tmp_path / "w.pt")
    assert "pickled objects" in refusal(tmp_path / "w.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Planted(tmp_path / "planted")))
    assert "pickled objects" in refusal(tmp_path / "plain.pkl")
    assert not (tmp_path / "planted").exists()


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    """A missing, an empty, a truncated and a foreign file raise errors that say so."""
    assert "no such weights file" in refusal(tmp_path / "none.safetensors")
    save_file(state(), tmp_path / "whole.safetensors")
    torch.save(state(), tmp_path / "whole.pt")
    for suffix in ("safetensors", "pt"):
        truncated = tmp_path / f"truncated.{suffix}"
        truncated.write_bytes((tmp_path / f"whole.{suffix}").read_bytes()[:1000])
        assert "not a readable weights file" in refusal(truncated)
        (tmp_path / f"empty.{suffix}").touch()
        assert "not a readable weights file" in refusal(tmp_path / f"empty.{suffix}")
    torch.save([1, 2], tmp_path / "list.pt")
    assert "maps names to tensors" in refusal(tmp_path / "list.pt")

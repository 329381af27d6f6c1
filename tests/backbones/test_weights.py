"""Laws of weights in files: the right ones are loaded whole, all others are refused with a message and nothing is loaded."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from study.backbones import build_backbone, names, specify
from study.backbones.resampling import resample_patch_embedding
from study.backbones.weight_files import CLASSIFIER, load_weights, read_weights_file
from study.backbones.weight_files import convert_to_timm as to_timm
from study.errors import UserError

SMALL = {"image_size": 8, "in_channels": 3, "num_classes": 5, "patch_size": 2, "dim": 32, "depth": 2}
VIT = specify("vit", SMALL | {"pooling": "class_token"})


def state() -> dict[str, Tensor]:
    """A ViT's weights."""
    return build_backbone(VIT).state_dict()


def refusal(path: Path) -> str:
    """The message of the error that a file of other weights raises."""
    with pytest.raises(UserError) as error:
        load_weights(read_weights_file(path), VIT)
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
    loaded = load_weights(read_weights_file(path), spec).state
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
    loaded = load_weights(read_weights_file(tmp_path / "timm.pth"), spec).state
    assert all(torch.equal(loaded[key], saved[key]) for key in saved)


def prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


@pytest.mark.parametrize("theirs", [False, True])
@pytest.mark.parametrize("form", ["ddp", "compiled", "timm", "lightning", "ema", "optimizer", "safetensors as bin"])
def test_weights_are_found_in_the_forms_that_training_scripts_save(form: str, theirs: bool, tmp_path: Path) -> None:
    """Prefixes of DDP, compiled models and Lightning, wrappers, what stands beside them, a wrong suffix: the same bits."""
    ours = state()
    content = to_timm(ours, "vit") if theirs else ours
    other = {"epoch": 3, "args": argparse.Namespace(lr=0.1, out=Path("a")), "best": np.float64(0.5)}
    average = nn.Module()
    average.register_buffer("n_averaged", torch.tensor(3))
    forms = {
        "ddp": prefixed("module.", content),
        "compiled": {name.replace("blocks.", "blocks._orig_mod."): tensor for name, tensor in content.items()},
        "timm": {"state_dict": content, "arch": "vit", "version": 2, **other},
        "lightning": {"state_dict": {**prefixed("model.", content), "criterion.weight": torch.ones(5)}, "hyper_parameters": {}},
        "ema": {"model_ema": {**prefixed("module.", content), **average.state_dict()}, **other},
        "optimizer": {
            "model": prefixed("_orig_mod.module.", content),
            "optimizer": {"state": {n: {"exp_avg": tensor} for n, tensor in enumerate(content.values())}},
        },
    }
    if form in forms:
        torch.save(forms[form], tmp_path / "w.bin")
    else:
        save_file(content, tmp_path / "w.bin")
    loaded = load_weights(read_weights_file(tmp_path / "w.bin"), VIT).state
    assert loaded.keys() == ours.keys() and all(torch.equal(loaded[name], ours[name]) for name in ours)


def test_of_several_sets_of_weights_one_is_named(tmp_path: Path) -> None:
    """Averaged weights beside the others: none is read without being named, and the name chooses between them."""
    content = {"state_dict": state(), "state_dict_ema": prefixed("module.", {name: w + 1 for name, w in state().items()})}
    torch.save(content, tmp_path / "w.pth")
    assert "several sets of weights: --key" in refusal(tmp_path / "w.pth")
    assert "valid: state_dict, state_dict_ema.module" in refusal(tmp_path / "w.pth")
    for key, more in (("state_dict", 0), ("state_dict_ema", 1)):
        loaded = load_weights(read_weights_file(tmp_path / "w.pth"), VIT, key=key)
        assert torch.equal(loaded.state["head.norm.weight"], state()["head.norm.weight"] + more) and key in loaded.key
    with pytest.raises(UserError, match="valid: state_dict"):
        load_weights(read_weights_file(tmp_path / "w.pth"), VIT, key="state")


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """NaN and infinities would be scored as some class; integers and sparse tensors are no weights either."""
    weights = state()
    weights["head.norm.weight"][3], weights["head.norm.bias"][0] = torch.nan, torch.inf
    save_file(weights, tmp_path / "w.safetensors")
    assert "NaN or infinite values in head.norm.bias, head.norm.weight" in refusal(tmp_path / "w.safetensors")
    weights = state() | {"head.norm.weight": torch.ones(32, dtype=torch.int32), "head.norm.bias": torch.zeros(32).to_sparse()}
    torch.save(weights, tmp_path / "w.pt")
    message = refusal(tmp_path / "w.pt")
    assert "2 of another type" in message
    assert "head.norm.weight is int32, strided" in message and "head.norm.bias is float32, sparse_coo" in message


@pytest.mark.parametrize("image_size", [6, 16])
def test_positions_are_resampled_as_timm_does_it(image_size: int, tmp_path: Path) -> None:
    """From 4 x 4 to fewer and to more tokens, the class token's kept; all other weights are the file's."""
    import timm.layers

    spec = VIT.with_options({"image_size": image_size})
    weights = build_backbone(VIT, seed=5).state_dict()
    weights["stem.positions.table"].normal_()
    save_file(weights, tmp_path / "w.safetensors")
    loaded = load_weights(read_weights_file(tmp_path / "w.safetensors"), spec, resample=True)
    expected = timm.layers.resample_abs_pos_embed(weights["stem.positions.table"], [spec.grid, spec.grid], num_prefix_tokens=1)
    assert loaded.grid == 4 and torch.allclose(loaded.state["stem.positions.table"], expected, atol=1e-6)
    assert all(torch.equal(loaded.state[name], weights[name]) for name in weights if name != "stem.positions.table")


@pytest.mark.parametrize(("patch_size", "image_size"), [(1, 8), (4, 8), (4, 16), (8, 8)])
def test_patch_embeddings_are_resampled_as_timm_does_it(patch_size: int, image_size: int, tmp_path: Path) -> None:
    """From patches of 2 pixels to smaller and larger ones, at the same grid and at another."""
    import timm.layers

    spec = VIT.with_options({"patch_size": patch_size, "image_size": image_size})
    weights = build_backbone(VIT, seed=5).state_dict()
    save_file(weights, tmp_path / "w.safetensors")
    loaded = load_weights(read_weights_file(tmp_path / "w.safetensors"), spec, resample=True)
    name = "stem.patch_embedding.projection.weight"
    expected = timm.layers.resample_patch_embed(weights[name], [patch_size, patch_size])
    torch.testing.assert_close(loaded.state[name], expected, rtol=0, atol=1e-5)
    assert loaded.patch_size == 2 and loaded.grid == (None if spec.grid == 4 else 4)
    kept = weights.keys() - {name, "stem.positions.table"}
    assert all(torch.equal(loaded.state[each], weights[each]) for each in kept)
    with pytest.raises(UserError, match=rf"{name} is 32 x 3 x 2 x 2 instead of 32 x 3 x {patch_size} x {patch_size}"):
        load_weights(read_weights_file(tmp_path / "w.safetensors"), spec)


@pytest.mark.parametrize("larger", [3, 4, 7])
def test_a_larger_patch_embeds_a_resized_patch_as_the_smaller_one_did(larger: int) -> None:
    """What the pseudo-inverse is for: the inner products of patches and filters stay."""
    patches, weight = torch.randn(5, 3, 2, 2), torch.randn(8, 3, 2, 2)
    resized = functional.interpolate(patches, size=(larger, larger), mode="bicubic", antialias=True)
    expected = functional.conv2d(patches, weight)
    torch.testing.assert_close(functional.conv2d(resized, resample_patch_embedding(weight, larger)), expected)


def test_the_classifier_may_be_left_out(tmp_path: Path) -> None:
    """One of other classes and a missing one are left out where that is asked for, nothing else is; one that fits is kept."""
    weights, other = state(), VIT.with_options({"num_classes": 7})
    save_file(weights, tmp_path / "w.safetensors")
    save_file({name: tensor for name, tensor in weights.items() if "classifier" not in name}, tmp_path / "none.safetensors")
    whole, headless = (read_weights_file(tmp_path / f"{name}.safetensors") for name in ("w", "none"))
    assert load_weights(whole, VIT, classifier=False).state.keys() == weights.keys()
    for file, spec in ((whole, other), (headless, VIT), (headless, other)):
        assert load_weights(file, spec, classifier=False).state.keys() == weights.keys() - set(CLASSIFIER)
        with pytest.raises(UserError, match=r"head\.classifier"):
            load_weights(file, spec)
    del weights["head.norm.bias"]
    save_file(weights, tmp_path / "less.safetensors")
    with pytest.raises(UserError, match=r"1 missing: head\.norm\.bias"):
        load_weights(read_weights_file(tmp_path / "less.safetensors"), other, classifier=False)


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

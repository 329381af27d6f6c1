"""Weights in files: read whole or not at all, in our names or timm's, for exactly the model that was asked for.

Only tensors are read: safetensors, or torch files under `weights_only`, which unpickles nothing else.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from study.backbones import architecture
from study.backbones.specification import BackboneSpec
from study.errors import Problem, UserError

WRAPPERS = ("state_dict", "model")  # keys under which published checkpoints keep their weights
SHOWN = 4  # names per problem

State = Mapping[str, Tensor]


def load_weights(path: Path, spec: BackboneSpec) -> dict[str, Tensor]:
    """The state dict in a file, in our names, with exactly the names and shapes of the specification's model.

    UserError for a file that can't be read or holds pickled objects, and for weights of another model; nothing is
    ever loaded in part.
    """
    found = read_tensors(path)
    expected = expected_state(spec)
    if not found.keys() & expected.keys() and architecture(spec.backbone).timm_names:
        try:
            found = from_timm(found, spec.backbone)
        except UserError as error:
            raise UserError(_other_model(path, spec), *error.problems) from None
    mistakes = differences(found, expected)
    if mistakes:
        raise UserError(_other_model(path, spec), *mistakes)
    return found


def from_timm(state: State, backbone: str) -> dict[str, Tensor]:
    """timm's weights of a family (convmixer, vit, mlp_mixer) under our names; UserError naming what has no place.

    Shapes and values stay as they are: the models compute the same, so only the names differ.
    """
    names = [(theirs, ours) for ours, theirs in architecture(backbone).timm_names]
    return _renamed(state, names, place=f"no place in {backbone} for timm's")


def to_timm(state: State, backbone: str) -> dict[str, Tensor]:
    """Our weights of a family under timm's names, the reverse of `from_timm`; UserError for what timm does not have."""
    return _renamed(state, architecture(backbone).timm_names, place=f"timm's {backbone} has no")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors or torch file, on the CPU; UserError if it can't be read or holds anything else."""
    if not path.is_file():
        raise UserError(Problem("no such weights file", place=str(path)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that torch did not write, which it goes on to refuse
            content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError:
        rule = "this file holds pickled objects other than tensors, or is no torch file; pickles are never executed"
        raise UserError(Problem(f"{rule}: convert it to safetensors", place=str(path))) from None
    except Exception as error:  # on bytes that aren't theirs the readers raise whatever they stumble over
        reason = str(error).splitlines()[0] if str(error) else "it ends early"
        raise UserError(Problem(f"not a readable weights file: {reason}", place=str(path))) from None
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(Problem("a weights file maps names to tensors; this one holds something else", place=str(path)))
    return dict(content)


def expected_state(spec: BackboneSpec) -> dict[str, Tensor]:
    """Names and shapes of the specification's weights, as tensors without memory."""
    with torch.device("meta"):
        return architecture(spec.backbone).construct(spec).state_dict()


def differences(found: State, expected: State) -> list[Problem]:
    """What keeps weights from being the expected ones: missing names, unexpected names, other shapes."""
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    shapes = [
        f"{name} is {_shape(found[name])} instead of {_shape(expected[name])}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    told = [("missing", sorted(missing)), ("unexpected", sorted(unexpected)), ("of another shape", shapes)]
    return [Problem(f"{len(names)} {kind}: {_shortened(names)}") for kind, names in told if names]


def _renamed(state: State, names: Sequence[tuple[str, str]], *, place: str) -> dict[str, Tensor]:
    """Each tensor under the other side's name; a name is a module's path, `*` a block's number, and maybe a leaf."""
    patterns = [
        (re.compile(re.escape(before).replace(r"\*", r"(\d+)") + r"(\.\w+)?"), after.replace("*", r"\1"), "*" in before)
        for before, after in names
    ]
    renamed, homeless = {}, []
    for name, tensor in state.items():
        for pattern, after, numbered in patterns:
            if match := pattern.fullmatch(name):
                renamed[match.expand(after) + (match[2 if numbered else 1] or "")] = tensor
                break
        else:
            homeless.append(name)
    if homeless:
        raise UserError(Problem(f"{place} {_shortened(sorted(homeless))}"))
    return renamed


def _other_model(path: Path, spec: BackboneSpec) -> Problem:
    sizes = f"image_size {spec.image_size}, patch_size {spec.patch_size}, dim {spec.dim}, depth {spec.depth}"
    return Problem(f"not the weights of {spec.backbone} with {sizes}, {spec.num_classes} classes", place=str(path))


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"


def _shortened(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")

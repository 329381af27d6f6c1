"""Weights in files: read whole or not at all, in our names or timm's, for exactly the model that is expected.

Only tensors are read: safetensors, or torch files with `weights_only`, which refuses all other pickled objects.
"""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from study.backbones.registry import get_architecture
from study.backbones.specification import BackboneSpec
from study.errors import Problem, UserError, and_more

_WRAPPERS = ("state_dict", "model")  # keys under which published checkpoints keep their weights
_LISTED = 4  # names per problem

StateDict = Mapping[str, Tensor]


def load_weights(path: Path, spec: BackboneSpec) -> dict[str, Tensor]:
    """The state dict in a file, in our names, with exactly the names and shapes of the specification's model.

    Raises UserError for a file that can't be read or holds pickled objects, and for weights of another model; weights are
    never loaded in part.
    """
    state, expected = _read_tensors(path), make_meta_state(spec)
    sizes = f"image_size {spec.image_size}, patch_size {spec.patch_size}, dim {spec.dim}, depth {spec.depth}"
    other_model = Problem(f"not the weights of {spec.backbone} with {sizes}, {spec.num_classes} classes", place=str(path))
    if not state.keys() & expected.keys() and get_architecture(spec.backbone).timm_names:
        try:
            state = convert_from_timm(state, spec.backbone)
        except UserError as error:
            raise UserError(other_model, *error.problems) from None
    reshaped = [
        f"{name} is {_format_shape(state[name])} instead of {_format_shape(tensor)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    differences = [
        ("missing", sorted(expected.keys() - state.keys())),
        ("unexpected", sorted(state.keys() - expected.keys())),
        ("of another shape", reshaped),
    ]
    problems = [Problem(f"{len(names)} {kind}: {', '.join(and_more(names, _LISTED))}") for kind, names in differences if names]
    if problems:
        raise UserError(other_model, *problems)
    return state


def convert_from_timm(state: StateDict, backbone: str) -> dict[str, Tensor]:
    """timm's weights of a family (convmixer, vit, mlp_mixer) in our names; raises UserError naming tensors without one.

    Shapes and values are unchanged: the models compute the same, so only the names differ.
    """
    patterns = [
        (re.compile(re.escape(theirs).replace(r"\*", r"(\d+)") + r"(\.\w+)?"), ours.replace("*", r"\1"), "*" in theirs)
        for ours, theirs in get_architecture(backbone).timm_names
    ]  # a name is a module's path, in which `*` is a block's number, and perhaps a parameter's
    renamed, unknown = {}, []
    for name, tensor in state.items():
        for pattern, ours, numbered in patterns:
            if match := pattern.fullmatch(name):
                renamed[match.expand(ours) + (match[2 if numbered else 1] or "")] = tensor
                break
        else:
            unknown.append(name)
    if unknown:
        raise UserError(Problem(f"{backbone} has no counterpart of timm's {', '.join(and_more(sorted(unknown), _LISTED))}"))
    return renamed


def make_meta_state(spec: BackboneSpec) -> dict[str, Tensor]:
    """Names and shapes of the specification's weights, as tensors without memory."""
    with torch.device("meta"):
        return get_architecture(spec.backbone).construct(spec).state_dict()


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors or torch file, on the CPU."""
    if not path.is_file():
        raise UserError(Problem("no such weights file", place=str(path)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that torch did not write, which it then refuses
            content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError:
        rule = "this file holds pickled objects other than tensors, or is no torch file; pickles are never executed"
        raise UserError(Problem(f"{rule}: convert it to safetensors", place=str(path))) from None
    except Exception as error:  # for foreign bytes the readers raise many types
        reason = str(error).splitlines()[0] if str(error) else "it ends early"
        raise UserError(Problem(f"not a readable weights file: {reason}", place=str(path))) from None
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(Problem("a weights file maps names to tensors; this one holds something else", place=str(path)))
    return dict(content)


def _format_shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"

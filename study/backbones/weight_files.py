"""Weights in files: read whole or not at all, in our names or timm's, for exactly the model that is expected.

Only tensors are read: safetensors, or torch files with `weights_only`, which refuses all pickled objects but a few inert
types that checkpoints hold beside their weights. Where in a checkpoint the weights are, and which prefix a wrapper gave
their names, is not asked: every set of names that is the model's is found, at any depth.
"""

import argparse
import hashlib
import io
import pathlib
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from study.atomic_io import read_regular
from study.backbones.registry import get_architecture
from study.backbones.resampling import count_grid, resample_patch_embedding, resample_positions
from study.backbones.specification import BackboneSpec
from study.errors import Problem, UserError, and_more

_SCALAR: Any = np.float64().__reduce__()[0]  # rebuilds NumPy's scalars; NumPy 1 pickled it under another name
_INERT: tuple[Any, ...] = (
    argparse.Namespace,
    pathlib.PosixPath,
    np.dtype,
    np.dtypes.Float64DType,
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),
)
"""Types that training scripts keep beside the weights: timm's arguments, paths, best accuracies as NumPy scalars."""
_LISTED = 4  # names per problem
_DEPTH = 20
MAX_WEIGHTS_BYTES = 1 << 38
_POSITIONS = re.compile(r"stem\.positions\.(inner\.)?table")
_PATCHES = "stem.patch_embedding.projection.weight"
CLASSIFIER = ("head.classifier.weight", "head.classifier.bias")

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class WeightsFile:
    """All tensors of a file by their dotted paths, on the CPU, and the SHA-256 of its content."""

    path: Path
    sha256: str
    tensors: StateDict


@dataclass(frozen=True)
class LoadedWeights:
    """A state dict in our names, where in its file it was, and in what it was fitted to the model.

    Where the classifier is replaced, the state has none.
    """

    state: dict[str, Tensor]
    key: str  # "state_dict_ema", or "" where the file is the state dict
    grid: int | None = None  # tokens along one side, from which positions were resampled
    patch_size: int | None = None  # pixels, from which the patch embedding was resampled

    def describe_resampling(self, spec: BackboneSpec) -> list[str]:
        """What was resampled to fit the specification's model, in words."""
        positions = (
            f"position embeddings resampled from {self.grid} x {self.grid} to {spec.grid} x {spec.grid} tokens (bicubic)"
        )
        patches = f"patch embedding resampled from {self.patch_size} to {spec.patch_size} pixels (FlexiViT's pseudo-inverse)"
        return [line for line, done in ((positions, self.grid), (patches, self.patch_size)) if done]


def load_weights(
    file: WeightsFile, spec: BackboneSpec, *, key: str | None = None, resample: bool = False, classifier: bool = True
) -> LoadedWeights:
    """The state dict in a file, in our names, with exactly the names and shapes of the specification's model.

    `key` chooses among several, such as `state_dict` and `state_dict_ema`. With `resample`, learned positions of another grid
    and patch embeddings of another patch size are resampled to the specification's. Without `classifier`, one that the file
    lacks or that is of other classes is left out.

    Raises UserError for weights of another model, for values that aren't finite, and where several state dicts fit; otherwise
    weights are never loaded in part.
    """
    expected = make_meta_state(spec)
    required = expected.keys() if classifier else expected.keys() - set(CLASSIFIER)
    path, groups = file.path, _list_groups(file.tensors)
    found = {name: _in_our_names(group, expected, spec.backbone) for name, group in groups.items()}
    whole = [name for name, state in found.items() if state.keys() >= required and len(state) == len(groups[name])]
    chosen = [name for name in whole if key is None or f"{name}.".startswith(f"{key}.")]
    if len(chosen) > 1 or (whole and not chosen):
        rule = "the file holds several sets of weights" if len(whole) > 1 else "no weights of this model are there"
        raise UserError(Problem(f"{rule}: --key names those to read", str(path), "--key", key, choices=whole))
    name = chosen[0] if chosen else max(found, key=lambda name: (len(found[name]), -len(name)))
    loaded = LoadedWeights(found[name] if chosen else _convert(groups[name], found[name], path, spec), name)
    loaded = _resample(loaded, spec) if resample else loaded
    if not classifier and any(
        name not in loaded.state or loaded.state[name].shape != expected[name].shape for name in CLASSIFIER
    ):
        loaded = replace(loaded, state={name: tensor for name, tensor in loaded.state.items() if name not in CLASSIFIER})
        expected = {name: tensor for name, tensor in expected.items() if name not in CLASSIFIER}
    if differences := _list_differences(loaded.state, expected):
        raise UserError(_other_model(path, spec), *differences)
    if unusable := sorted(name for name, tensor in loaded.state.items() if not tensor.isfinite().all()):
        raise UserError(Problem(f"NaN or infinite values in {', '.join(and_more(unusable, _LISTED))}", str(path)))
    return loaded


def _other_model(path: Path, spec: BackboneSpec) -> Problem:
    sizes = f"image_size {spec.image_size}, patch_size {spec.patch_size}, dim {spec.dim}, depth {spec.depth}"
    return Problem(f"not the weights of {spec.backbone} with {sizes}, {spec.num_classes} classes", place=str(path))


def _convert(group: StateDict, found: StateDict, path: Path, spec: BackboneSpec) -> dict[str, Tensor]:
    """Weights that aren't the model's, in our names as far as they have one; for the list of what differs."""
    if group.keys() & found.keys() or not get_architecture(spec.backbone).timm_names:
        return dict(group)
    try:
        return convert_from_timm(group, spec.backbone)
    except UserError as error:
        raise UserError(_other_model(path, spec), *error.problems) from None


def _list_differences(state: StateDict, expected: StateDict) -> list[Problem]:
    common = [(name, state[name], tensor) for name, tensor in expected.items() if name in state]
    differences = {
        "missing": sorted(expected.keys() - state.keys()),
        "unexpected": sorted(state.keys() - expected.keys()),
        "of another shape": [
            f"{name} is {_format_shape(own)} instead of {_format_shape(tensor)}"
            for name, own, tensor in common
            if own.shape != tensor.shape
        ],
        "of another type": [
            f"{name} is {str(own.dtype).removeprefix('torch.')}, {str(own.layout).removeprefix('torch.')}"
            for name, own, tensor in common
            if own.is_floating_point() != tensor.is_floating_point() or own.layout != torch.strided
        ],
    }
    return [
        Problem(f"{len(names)} {kind}: {', '.join(and_more(names, _LISTED))}") for kind, names in differences.items() if names
    ]


def _list_groups(tensors: StateDict) -> dict[str, dict[str, Tensor]]:
    """Every set of tensors below one place: for `a.b.weight` below "", "a" and "a.b". Marks of compiled modules are dropped."""
    groups: dict[str, dict[str, Tensor]] = {"": {}}
    for name, tensor in tensors.items():
        parts = [part for part in name.split(".") if part != "_orig_mod"]
        for depth in range(len(parts)):
            groups.setdefault(".".join(parts[:depth]), {})[".".join(parts[depth:])] = tensor
    return groups


def _in_our_names(group: StateDict, expected: StateDict, backbone: str) -> dict[str, Tensor]:
    """Those tensors of a group that the model has, in our names; where none is in them, from timm's."""
    own = {name: tensor for name, tensor in group.items() if name in expected}
    if own or len(group) > 2 * len(expected):
        return own
    renamed = {name: _rename_from_timm(name, backbone) for name in group}
    return {ours: group[name] for name, ours in renamed.items() if ours is not None and ours in expected}


def _resample(loaded: LoadedWeights, spec: BackboneSpec) -> LoadedWeights:
    """With learned positions at the specification's grid, and a patch embedding at its patch size."""
    extra = spec.sequence - spec.tokens  # class token and registers
    for name, tensor in loaded.state.items():
        if _POSITIONS.fullmatch(name) and (grid := count_grid(tensor, extra=extra)) not in (0, spec.grid):
            resampled = resample_positions(tensor, spec.grid, extra=extra)
            loaded = replace(loaded, state={**loaded.state, name: resampled}, grid=grid)
        if name == _PATCHES and spec.stem == "patchify" and tensor.ndim == 4 and tensor.shape[2] != spec.patch_size:
            resampled = resample_patch_embedding(tensor, spec.patch_size)
            loaded = replace(loaded, state={**loaded.state, name: resampled}, patch_size=tensor.shape[2])
    return loaded


def convert_from_timm(state: StateDict, backbone: str) -> dict[str, Tensor]:
    """timm's weights of a family (convmixer, vit, mlp_mixer) in our names; raises UserError naming tensors without one.

    Shapes and values are unchanged: the models compute the same, so only the names differ.
    """
    names = {name: _rename_from_timm(name, backbone) for name in state}
    if unknown := sorted(name for name, ours in names.items() if ours is None):
        raise UserError(Problem(f"{backbone} has no counterpart of timm's {', '.join(and_more(unknown, _LISTED))}"))
    return {ours: state[name] for name, ours in names.items() if ours is not None}


def convert_to_timm(state: StateDict, backbone: str) -> dict[str, Tensor]:
    """Our weights of a family under timm's names; raises UserError naming tensors without one."""
    renamed, unknown = {}, []
    for name, tensor in state.items():
        block = re.search(r"\.(\d+)\.", name)
        generic = name.replace(block[0], ".*.", 1) if block else name
        theirs = [
            timm + generic.removeprefix(ours)
            for ours, timm in get_architecture(backbone).timm_names
            if generic == ours or generic.rpartition(".")[0] == ours
        ]
        if theirs:
            renamed[theirs[0].replace(".*.", block[0], 1) if block else theirs[0]] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise UserError(Problem(f"timm has no counterpart of {backbone}'s {', '.join(and_more(unknown, _LISTED))}"))
    return renamed


def _rename_from_timm(name: str, backbone: str) -> str | None:
    """Our name of a tensor; a name is a module's path, in which `*` is a block's number, and perhaps a parameter's."""
    for ours, theirs in get_architecture(backbone).timm_names:
        if match := re.fullmatch(re.escape(theirs).replace(r"\*", r"(?P<block>\d+)") + r"(?P<parameter>\.\w+)?", name):
            return ours.replace("*", match.groupdict().get("block") or "") + (match["parameter"] or "")
    return None


def make_meta_state(spec: BackboneSpec) -> dict[str, Tensor]:
    """Names and shapes of the specification's weights, as tensors without memory."""
    with torch.device("meta"):
        return get_architecture(spec.backbone).construct(spec).state_dict()


def read_weights_file(path: Path) -> WeightsFile:
    """All tensors of a safetensors or torch file, which its content says. UserError if it can't be read or holds objects."""
    if not path.is_file():
        raise UserError(Problem("no such weights file", place=str(path)))
    content = read_regular(path, MAX_WEIGHTS_BYTES)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([*_INERT]):
            warnings.simplefilter("ignore")  # about pickles that torch did not write, which it then refuses
            is_safetensors = content[8:9] == b"{" or path.suffix == ".safetensors"
            found = load(content) if is_safetensors else torch.load(io.BytesIO(content), "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        rule = f"this file holds pickled objects other than tensors{f' ({named[1]})' if named else ''}, or is no torch file"
        raise UserError(Problem(f"{rule}; pickles are never executed: convert it to safetensors", place=str(path))) from None
    except Exception as error:  # for foreign bytes the readers raise many types
        reason = str(error).splitlines()[0] if str(error) else "it ends early"
        raise UserError(Problem(f"not a readable weights file: {reason}", place=str(path))) from None
    tensors = dict(_flatten(found))
    if not tensors:
        raise UserError(Problem("a weights file maps names to tensors; this one holds something else", place=str(path)))
    return WeightsFile(path, hashlib.sha256(content).hexdigest(), tensors)


def _flatten(content: object, *, above: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested mappings."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Tensor) and not value.is_meta:  # one without values
            yield f"{above}{key}", value.detach()
        elif above.count(".") < _DEPTH:  # a pickle may hold itself
            yield from _flatten(value, above=f"{above}{key}.")


def _format_shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"

"""Our weights under timm's names, to compare with what `convert_from_timm` reads."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from study.backbones.registry import get_architecture


def to_timm(state: Mapping[str, Tensor], backbone: str) -> dict[str, Tensor]:
    """The tensors of a state dict under timm's names; an assertion fails for one without a counterpart there."""
    renamed = {}
    for name, tensor in state.items():
        block = re.search(r"\.(\d+)\.", name)
        generic = name.replace(block[0], ".*.", 1) if block else name
        theirs = [
            timm + generic.removeprefix(ours)
            for ours, timm in get_architecture(backbone).timm_names
            if generic == ours or generic.rpartition(".")[0] == ours
        ]
        assert len(theirs) == 1, f"{name}: {theirs}"
        renamed[theirs[0].replace(".*.", block[0], 1) if block else theirs[0]] = tensor
    return renamed

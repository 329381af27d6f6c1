"""The format of what a study leaves on disk, and the names that options had in earlier formats.

Records, plans, selections, benchmarks, saved weights and the tables of reports name their `format`; documents without one
have format 1. `upgrade` is the only translation, called wherever a document is read, so that the rest of the package
knows the current names alone. Nothing here imports torch.
"""

import re
from collections.abc import Mapping
from typing import Any

from study.errors import Problem, UserError

FORMAT = 2

FORMER_NAMES: Mapping[str, str] = {"color_jitter": "colour_jitter", "initialization": "initialisation", "stem": "tokeniser"}
"""What options were called in format 1, by their current name."""

FORMER_LEVELS: Mapping[str, Mapping[str, str]] = {"stem": {"conv": "conv_stem"}}
"""How levels were spelled in format 1, by option and current spelling."""

ADDED_OPTIONS: Mapping[str, Any] = {
    "kernel_pixels": None,
    "residual": "depthwise",
    "layer_scale": None,
    "registers": 0,
    "channel_mixer": "mlp",
    "bias": True,
    "qk_norm": False,
}
"""Options of backbones that version 0.1 lacked, with the value at which they change nothing."""

_NAMES = {former: name for name, former in FORMER_NAMES.items()}
_LEVELS = {option: {former: level for level, former in levels.items()} for option, levels in FORMER_LEVELS.items()}
_SECTIONS = ("model", "augment")  # of the renamed options


def upgrade(document: Any) -> Any:
    """A JSON document with current names; one of the current format is returned as it is.

    Options are renamed wherever they occur, bare ("tokeniser") or with their section ("model.tokeniser"). UserError for a
    document that a later version of the project wrote.
    """
    if isinstance(document, dict):
        written = document.get("format", 1)
        if written == FORMAT:
            return document
        if not isinstance(written, int) or isinstance(written, bool) or written < 1:
            raise UserError(Problem(f"a format is a number from 1 to {FORMAT}", key="format", value=written))
        if written > FORMAT:
            raise UserError(Problem(f"format {written} is of a later version of the project; this one reads up to {FORMAT}"))
        return {current_name(key): current_level(current_name(key), upgrade(value)) for key, value in document.items()}
    if isinstance(document, list):
        return [upgrade(entry) for entry in document]
    return current_name(document) if isinstance(document, str) and "." in document else document


def drop_added(model: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's options without later ones that change nothing, to compare models that different versions wrote."""
    return {name: value for name, value in model.items() if name not in ADDED_OPTIONS or value != ADDED_OPTIONS[name]}


def current_name(key: str) -> str:
    """The current name of an option, bare or with its section."""
    section, dot, name = key.rpartition(".")
    return section + dot + _NAMES.get(name, name) if section in ("", *_SECTIONS) else key


def upgrade_override(word: str) -> str:
    """A `key=value` word of the command line in current names and levels."""
    key, _, value = word.partition("=")
    for former, level in _LEVELS.get(current_name(key).rpartition(".")[2], {}).items():
        value = re.sub(rf"\b{former}\b", level, value)
    return f"{current_name(key)}={value}"


def current_level(key: str, value: Any) -> Any:
    """A level of an option (by its current name), or a list of its levels, in the current spelling."""
    levels = _LEVELS.get(key.rpartition(".")[2], {})
    if isinstance(value, list):
        return [current_level(key, level) for level in value] if levels else value
    return levels.get(value, value) if isinstance(value, str) else value


def identity_spelling(options: Mapping[str, Any]) -> dict[str, Any]:
    """A section's options under the names and levels of format 1, which is how identities are hashed.

    So recorded runs, checkpoints, selections and journals from before the renaming still belong to their plans.
    """
    return {
        FORMER_NAMES.get(name, name): FORMER_LEVELS.get(name, {}).get(value, value) if isinstance(value, str) else value
        for name, value in options.items()
    }

"""A sweep is one question: fixed settings plus axes, as the file and the command line give them, every value with its place.

`cells` lays out the grid: the product of all axes and zipped groups, less the exclusions. Nothing is validated against a
backbone here; that needs the data's facts and happens once per cell in `study.planning`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from study.config.options import Options
from study.config.recipes import Recipe

SECTIONS = ("data", "model", "train", "augment", "match")
"""The groups of options, in the order of the flow; an option's key is `section.name`."""

Device = Literal["auto", "cuda", "cpu"]


class Document(Options):
    """The top level of a sweep file; the sections are validated per cell, where all of their values are known."""

    question: str = Field(min_length=1)
    expected: str = ""
    name: str = Field("", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$|^$")
    device: Device = "auto"
    recipe: str | None = None
    backbone: str | None = None
    data: dict[str, Any]
    model: dict[str, Any] = {}
    train: dict[str, Any] = {}
    augment: dict[str, Any] = {}
    match: dict[str, Any] = {}
    backbones: dict[str, dict[str, dict[str, Any]]] = {}
    axes: dict[str, list[Any]] = {}
    zip: list[dict[str, list[Any]]] = []
    exclude: list[dict[str, Any]] = []
    seeds: list[int] = Field(min_length=1)

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("seeds are different integers from 0 up")
        return seeds

    @field_validator("axes")
    @classmethod
    def _axes_have_levels(cls, axes: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for key, levels in axes.items():
            if not levels or len({repr(level) for level in levels}) < len(levels):
                raise ValueError(f"the axis {key} needs at least one level, and no level twice")
        return axes

    @field_validator("zip")
    @classmethod
    def _zipped_axes_are_equally_long(cls, groups: list[dict[str, list[Any]]]) -> list[dict[str, list[Any]]]:
        for group in groups:
            if len({len(levels) for levels in group.values()}) != 1 or not all(group.values()):
                lengths = ", ".join(f"{key}: {len(levels)}" for key, levels in group.items())
                raise ValueError(f"axes zipped together have the same number of levels, at least one ({lengths})")
        return groups


@dataclass(frozen=True)
class Setting:
    """A value and the place that gave it: `sweeps/a.yaml:7`, or `command line`."""

    value: Any
    place: str


Cell = Mapping[str, Setting]
"""One combination of levels: option key -> setting."""


@dataclass(frozen=True)
class Sweep:
    """What was asked, before anything is resolved. `preset`, `base` and `overlays` map `section.name` to settings.

    They are layers: the recipe's preset below the file's sections below the backbone's own below the levels of the axes.
    """

    name: str
    path: str
    question: str
    expected: str
    device: Device
    recipe: Recipe | None
    preset: Cell
    base: Cell
    overlays: Mapping[str, Cell]
    axes: Mapping[str, tuple[Setting, ...]]
    zipped: tuple[Mapping[str, tuple[Setting, ...]], ...]
    exclude: tuple[Cell, ...]
    seeds: tuple[int, ...]
    text: str
    overrides: tuple[str, ...]

    def factors(self) -> dict[str, list[Any]]:
        """Every varied option with its levels, grid axes first."""
        grouped = itertools.chain([self.axes], self.zipped)
        return {key: [level.value for level in levels] for group in grouped for key, levels in group.items()}

    def cells(self) -> Iterator[Cell]:
        """The grid in file order (the last axis varies fastest), without what `exclude` names."""
        groups: list[list[Cell]] = [[{key: level} for level in levels] for key, levels in self.axes.items()]
        for group in self.zipped:
            rows = zip(*group.values(), strict=True)
            groups.append([dict(zip(group, row, strict=True)) for row in rows])
        for combination in itertools.product(*groups):
            cell = {key: setting for part in combination for key, setting in part.items()}
            if not any(self._excluded(cell, rule) for rule in self.exclude):
                yield cell

    def settings(self, cell: Cell) -> Cell:
        """All settings of one cell: the recipe's, then the file's, its backbone's own, and the levels of the axes."""
        merged = {**self.base, **cell}
        overlay = self.overlays.get(merged["backbone"].value, {}) if "backbone" in merged else {}
        return {**self.preset, **self.base, **overlay, **cell}

    def _excluded(self, cell: Cell, rule: Cell) -> bool:
        settings = self.settings(cell)
        return all(key in settings and settings[key].value == wanted.value for key, wanted in rule.items())


def is_option_key(key: str) -> bool:
    """Whether a key has the form of an option that an axis may vary: `backbone`, or `section.name`."""
    return key == "backbone" or re.fullmatch(rf"({'|'.join(SECTIONS)})\.\w+", key) is not None

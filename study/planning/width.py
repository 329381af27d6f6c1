"""How wide a cell's backbone is: as the sweep says, or as its budget decides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study.backbones.specification import BackboneSpec
from study.config.options import MatchOptions, TrainOptions
from study.errors import Problem, UserError, add_location
from study.planning.seconds_budget import paces, solve_pace
from study.planning.width_search import Match, Unreachable, named_budget, solve
from study.records.benchmark_file import read_benchmark


@dataclass(frozen=True)
class Matched:
    """How a run met its budget: what was matched, the target, the signed residual as a fraction of it."""

    by: str
    target: float | None  # params or MACs (whole numbers), or training seconds per 1,000 images
    residual: float | None
    head_dim: int | None
    tolerance: float | None  # of the residual, a fraction of the target


Sized = tuple[BackboneSpec, Matched]


def solved_options(kind: type[BackboneSpec], match: MatchOptions) -> set[str]:
    """The model options that the budget decides; none where there is no budget."""
    return set() if match.by == "none" else set(kind.width_options(match.head_dim, match.head_dim))


@dataclass
class Sizer:
    """Finds widths, and remembers them and what benchmark files say."""

    _solved: dict[str, Sized] = field(default_factory=dict)
    _paces: dict[str, dict[BackboneSpec, float]] = field(default_factory=dict)

    def sized(
        self,
        kind: type[BackboneSpec],
        values: Mapping[str, Any],
        *,
        match: MatchOptions,
        train: TrainOptions,
        places: Mapping[str, str],
    ) -> Sized:
        """The specification at its own width, or at the width that meets the budget, whose options stand at `places`.

        Raises pydantic's ValidationError where the values make no model, UserError where it can't meet the budget.
        """
        recipe = [train.precision, train.batch_size] if match.by == "seconds" else []
        key = json.dumps([kind.backbone, values, match.model_dump(mode="json"), recipe], default=str)
        if key not in self._solved:
            self._solved[key] = self._found(kind, values, match=match, train=train, places=places)
        return self._solved[key]

    def _found(
        self,
        kind: type[BackboneSpec],
        values: Mapping[str, Any],
        *,
        match: MatchOptions,
        train: TrainOptions,
        places: Mapping[str, str],
    ) -> Sized:
        if match.by == "none":
            return kind.model_validate(values), Matched("none", None, None, None, None)
        template = kind.model_validate({**values, "dim": match.head_dim})
        if match.by == "seconds":
            with add_location(places["benchmark"], "match.benchmark"):
                target, solved = match.target, solve_pace(template, measured=self._measured(match, train), match=match)
        else:
            with add_location(places["target"], "match.target"):
                target, solved = _counted(template, match)
        assert not isinstance(target, str)
        return solved.spec, Matched(match.by, target, solved.residual, match.head_dim, match.tolerance)

    def _measured(self, match: MatchOptions, train: TrainOptions) -> dict[BackboneSpec, float]:
        """What the budget's benchmark file says for such a training."""
        assert match.benchmark is not None
        key = json.dumps([match.benchmark, train.precision, train.batch_size])
        if key not in self._paces:
            self._paces[key] = paces(read_benchmark(Path(match.benchmark)), train)
        return self._paces[key]


def _counted(template: BackboneSpec, match: MatchOptions) -> tuple[int, Match]:
    """The budget as a number, given as one or that of a published variant, and the width that meets it."""
    assert match.by in ("params", "macs") and not isinstance(match.target, float | None)
    target = match.target if isinstance(match.target, int) else named_budget(match.target, by=match.by)
    try:
        return target, solve(template, by=match.by, target=target, tolerance=match.tolerance, head_dim=match.head_dim)
    except Unreachable as error:
        raise UserError(Problem(str(error), value=match.target)) from None

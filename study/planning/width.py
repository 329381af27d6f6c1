"""The width of a cell's backbone: as the sweep gives it, or as its budget decides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study.backbones.specification import BackboneSpec
from study.config.options import MatchOptions, TrainOptions
from study.errors import add_location
from study.planning.seconds_budget import read_paces, solve_seconds
from study.planning.width_search import named_budget, solve_width


@dataclass(frozen=True)
class BudgetMatch:
    """How a run met its budget: what was matched, the target, and the signed residual as a fraction of it."""

    by: str
    target: float | None = None  # params or MACs (whole numbers), or training seconds per 1,000 images
    residual: float | None = None
    head_dim: int | None = None
    tolerance: float | None = None  # of the residual, a fraction of the target


def options_set_by_budget(kind: type[BackboneSpec], match: MatchOptions) -> set[str]:
    """The model options that the budget decides; none where there is no budget."""
    return set() if match.by == "none" else set(kind.width_options(match.head_dim, match.head_dim))


@dataclass
class WidthSolver:
    """Solves widths, and keeps the solutions and what benchmark files say."""

    _solved: dict[str, tuple[BackboneSpec, BudgetMatch]] = field(default_factory=dict)
    _paces: dict[str, dict[BackboneSpec, float]] = field(default_factory=dict)

    def solve(
        self,
        kind: type[BackboneSpec],
        values: Mapping[str, Any],
        *,
        match: MatchOptions,
        train: TrainOptions,
        places: Mapping[str, str],
    ) -> tuple[BackboneSpec, BudgetMatch]:
        """The specification at its own width, or at the width that meets the budget; `places` are those of its options.

        Raises pydantic's ValidationError if the values make no model, UserError if it can't meet the budget.
        """
        recipe = [train.precision, train.batch_size] if match.by == "seconds" else []
        key = json.dumps([kind.backbone, values, match.model_dump(mode="json"), recipe], default=str)
        if key not in self._solved:
            if match.by == "none":
                self._solved[key] = kind.model_validate(values), BudgetMatch("none")
            else:
                template = kind.model_validate({**values, "dim": match.head_dim})
                place = "benchmark" if match.by == "seconds" else "target"
                with add_location(places[place], f"match.{place}"):
                    self._solved[key] = self._meet_budget(template, match, train)
        return self._solved[key]

    def _meet_budget(
        self, template: BackboneSpec, match: MatchOptions, train: TrainOptions
    ) -> tuple[BackboneSpec, BudgetMatch]:
        tolerance, head_dim, target = match.tolerance, match.head_dim, match.target
        if match.by == "seconds":
            assert isinstance(target, int | float)
            paces = self._read_paces(match, train)
            solved = solve_seconds(template, measured=paces, target=target, tolerance=tolerance, head_dim=head_dim)
        else:
            assert match.by != "none" and not isinstance(target, float | None)
            target = target if isinstance(target, int) else named_budget(target, by=match.by)
            solved = solve_width(template, by=match.by, target=target, tolerance=tolerance, head_dim=head_dim)
        return solved.spec, BudgetMatch(match.by, target, solved.residual, head_dim, tolerance)

    def _read_paces(self, match: MatchOptions, train: TrainOptions) -> dict[BackboneSpec, float]:
        assert match.benchmark is not None
        key = json.dumps([match.benchmark, train.precision, train.batch_size])
        if key not in self._paces:
            self._paces[key] = read_paces(Path(match.benchmark), train)
        return self._paces[key]

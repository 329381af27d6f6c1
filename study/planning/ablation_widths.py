"""The widths of an ablation's changes where these keep something of their baseline: its widths, or its parameters or MACs."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from study.backbones.specification import BackboneSpec
from study.config.options import MatchOptions
from study.config.sweep import Cell, Setting
from study.planning.planned_run import PlannedRun
from study.planning.traced_cost import find_cost
from study.planning.width import BudgetMatch, options_set_by_budget


def impose_budget(settings: Cell, baseline: PlannedRun, *, by: str, own: Cell) -> Cell:
    """A change's settings with the baseline's widths (`by` none), or with its parameters or MACs as the budget.

    Options that the change sets itself stay.
    """
    model, place = baseline.run.model, next(setting.place for setting in own.values())  # the change's, which may not meet it
    head_dim = settings["match.head_dim"].value if "match.head_dim" in settings else MatchOptions().head_dim
    widths = {f"model.{name}": getattr(model, name) for name in model.width_options(head_dim, head_dim)}
    others = {key: setting for key, setting in settings.items() if key not in ("match.by", "match.target", "match.benchmark")}
    if by == "none":
        kept = {key: Setting(width, place) for key, width in widths.items()} if baseline.match.by != "none" else {}
        return {**others, **kept, **own}
    others = {key: setting for key, setting in others.items() if key not in widths}
    budget = {"match.by": Setting(by, place), "match.target": Setting(getattr(baseline.cost, by), place)}
    return {**others, **budget, **own}


def keep_widths(
    kind: type[BackboneSpec], values: Mapping[str, Any], match: MatchOptions, *, baseline: PlannedRun
) -> tuple[BackboneSpec, BudgetMatch] | None:
    """The baseline's own widths where a change costs exactly as much with them; None where widths are solved or given."""
    widths = {name: getattr(baseline.run.model, name, None) for name in options_set_by_budget(kind, match)}
    try:
        spec = kind.model_validate({**values, **widths})
    except ValidationError:
        return None
    if match.by not in ("params", "macs") or getattr(find_cost(spec), match.by) != match.target:
        return None
    return spec, BudgetMatch(match.by, getattr(baseline.cost, match.by), 0.0, match.head_dim, match.tolerance)

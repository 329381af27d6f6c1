"""The plan of a sweep: every run, fully resolved, or every reason why not, before a second of GPU time.

The cells of the grid are resolved (`study.planning.resolver`), then crossed with the seeds, and runs that came out equal (an
axis that a backbone does not have) are merged. In a sweep with `tune:` every cell has its trials first: all combinations of
the tuned levels with all trial seeds. Its final runs are pending until a selection gives them their levels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from study.config.sweep import BASELINE, CHANGE, Cell, Setting, Sweep, Tuning
from study.errors import Problem, UserError
from study.planning.planned_run import PlannedRun
from study.planning.resolver import Resolver
from study.records.columns import name_column, planned_columns, spell_factor_level
from study.records.plan_file import PlanFile, StudyFacts
from study.records.selection import Selection


@dataclass(frozen=True)
class Plan:
    """A sweep with its runs in file order, trials before final ones, seeds innermost."""

    sweep: Sweep
    runs: tuple[PlannedRun, ...]
    pending: tuple[PlannedRun, ...]
    merged: int  # runs that came out equal to another one

    @property
    def trials(self) -> tuple[PlannedRun, ...]:
        return tuple(planned for planned in self.runs if planned.stage == "trial")

    @property
    def finals(self) -> tuple[PlannedRun, ...]:
        """The final runs, pending ones included."""
        return (*(planned for planned in self.runs if planned.stage == "final"), *self.pending)

    @property
    def whole(self) -> tuple[PlannedRun, ...]:
        """The runs of both stages, pending ones included."""
        return (*self.runs, *self.pending)

    @property
    def awaited(self) -> tuple[PlannedRun, ...]:
        """The runs that all need an outcome before the plan goes on: to a selection, or to a look; none where it doesn't."""
        if self.pending:
            return self.trials
        return self.finals if self.sweep.stages and self.sweep.stages.following else ()

    @cached_property
    def file(self) -> PlanFile:
        """The plan as it is kept with its launches."""
        sweep, match = self.sweep, self.runs[0].match
        tuned = {key: [level.value for level in levels] for key, levels in sweep.tuning.axes.items()} if sweep.tuning else {}
        facts = StudyFacts(
            name=sweep.name,
            question=sweep.question,
            expected=sweep.expected,
            factors={
                key.rpartition(".")[2]: [spell_factor_level(key, level) for level in levels]
                for key, levels in sweep.factors().items()
            },
            seeds=sweep.seeds,
            match={"by": match.by, "target": match.target, "tolerance": match.tolerance},
            planned_runs=len(self.finals),
            sweep_yaml=sweep.text,
            overrides=sweep.overrides,
            recipe=sweep.recipe.name if sweep.recipe else None,
            tuned={key.rpartition(".")[2]: levels for key, levels in tuned.items()},
            trials_per_cell=sweep.tuning.trials_per_choice if sweep.tuning else 0,
            times_widened=len(sweep.tuning.added) if sweep.tuning else 0,
            effect_of_interest=sweep.effect_of_interest,
            contrasts=_spell_levels(sweep.comparison.contrasts),
            expectations=tuple(map(_spell_levels, sweep.comparison.expectations)),
            looks={sweep.name: list(sweep.stages.sizes)} if sweep.stages else {},
        )
        runs, pending = (tuple(planned.entry for planned in part) for part in (self.runs, self.pending))
        return PlanFile(facts, runs, pending)

    @property
    def digest(self) -> str:
        """16 hex digits of the plan's content."""
        return self.file.digest


def _spell_levels(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Contrasts or expectations as a sweep states them, with levels as the run table has them."""

    def spell(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: spell(name, each) for name, each in value.items()}
        return [spell("", each) for each in value] if isinstance(value, list) else spell_factor_level(key, value)

    return {key: spell("", value) for key, value in stated.items()}


def make_plan(sweep: Sweep, selection: Selection | None = None) -> Plan:
    """The whole plan. Raises UserError with the problems of all cells.

    The final runs of a tuned sweep get the levels that `selection` chose for their cells, and are pending without one.
    """
    resolver = Resolver(sweep)
    requested: list[PlannedRun] = []
    for cell in sweep.cells():
        if sweep.tuning is not None:
            requested += _tuned_runs(cell, resolver, tuning=sweep.tuning, selection=selection)
        elif resolved := resolver.resolve(cell, imposed=sweep.final):
            requested += _with_seeds(resolved, sweep.seeds)
    resolver.model_problems += _find_equal_changes(sweep, requested)
    resolver.raise_problems()
    if not requested:
        raise UserError(Problem("exclude removes every run", place=sweep.path, key="exclude"))
    first: dict[str, PlannedRun] = {}
    for planned in requested:
        first.setdefault(planned.run_id, planned)
    distinct = list(first.values())
    decided = sorted((planned for planned in distinct if not planned.pending), key=lambda planned: planned.stage == "final")
    pending = tuple(planned for planned in distinct if planned.pending)
    _check_columns(sweep, [planned for planned in distinct if planned.stage == "final"])
    return Plan(sweep, tuple(decided), pending=pending, merged=len(requested) - len(distinct))


def _find_equal_changes(sweep: Sweep, requested: Sequence[PlannedRun]) -> Iterator[Problem]:
    """The changes that come out as the run of another one or of the baseline: a contrast of theirs would compare nothing."""
    first: dict[str, str] = {}
    found: dict[str, PlannedRun] = {}
    for planned in requested if sweep.ablation else ():
        if planned.stage == "final" and first.setdefault(planned.run_id, planned.change or "") != planned.change:
            found.setdefault(planned.change or "", planned)
    for name, planned in found.items():
        assert sweep.ablation is not None
        place = next(iter(sweep.ablation.changes[name].values())).place
        cell = ", ".join(f"{key} {level}" for key, level in planned.levels.items() if key != CHANGE)
        rule = f"comes out as the same run as {first[planned.run_id]!r}{f' at {cell}' if cell else ''}: leave one out"
        yield Problem(f"{rule}{', or exclude it there' if cell else ''}", place, f"ablate.changes.{name}")


def _check_columns(sweep: Sweep, finals: Sequence[PlannedRun]) -> None:
    """UserError where the run table couldn't tell two cells apart: an axis without a column, or a level null."""
    factors = {key: name_column(key) for key in sweep.factors()}
    if len(set(factors.values())) < len(factors):
        raise UserError(Problem("two axes have the same column of the run table", sweep.path, "axes", list(factors)))
    seen: dict[tuple[str, ...], PlannedRun] = {}
    null, unseen = set[str](), set[str]()
    for planned in (planned for planned in finals if planned.run.seed == finals[0].run.seed):
        row = planned_columns(planned.entry)
        null |= {key for key, column in factors.items() if planned.levels.get(key, "") is None and row.get(column) is None}
        other = seen.setdefault(tuple(str(row.get(column)) for column in factors.values()), planned)
        if other is not planned:
            unseen |= {key for key in factors if planned.levels[key] != other.levels[key]}
    rules = {
        **dict.fromkeys(unseen, "the run table couldn't tell these levels apart: it has no column that they differ in"),
        **dict.fromkeys(
            null - {"match.target", "train.start"},
            "null is no level, since the run table has the same for cells without this option: give a value "
            "(for train.grad_clip one that never clips, such as 1e9)",
        ),
    }
    if rules:
        places = {key: levels[0].place for group in (sweep.axes, *sweep.zipped) for key, levels in group.items()}
        raise UserError(*(Problem(rule, places.get(key, sweep.path), key) for key, rule in sorted(rules.items())))


def _with_seeds(resolved: PlannedRun, seeds: Sequence[int]) -> list[PlannedRun]:
    return [replace(resolved, run=replace(resolved.run, seed=seed)) for seed in seeds]


def _tuned_runs(cell: Cell, resolver: Resolver, *, tuning: Tuning, selection: Selection | None) -> list[PlannedRun]:
    """A cell's trials, candidate by candidate, and its final runs; where each seed tunes for itself, seed by seed.

    A change that takes its baseline's choice has no trials. Raises UserError if other trials were selected from.
    """
    sweep, tuned = resolver.sweep, tuple(tuning.axes)
    candidates, judged = list(tuning.candidates()), cell
    if sweep.ablation and sweep.ablation.tune == "baseline":
        judged = {**cell, CHANGE: Setting(BASELINE, cell[CHANGE].place)}
    resolved = [found for levels in candidates if (found := resolver.resolve({**judged, **levels}, imposed=tuning.imposed()))]
    if len(resolved) < len(candidates):
        return []
    key = _cell_key(resolved[0], tuned)
    if len({one.run_id for one in resolved}) < len(resolved) or {_cell_key(one, tuned) for one in resolved} != {key}:
        rule = "each candidate of a cell is another run of the same model"
        rule += "; some come out equal, change the model or a budget's epochs"
        resolver.model_problems.append(Problem(rule, tuning.place, "tune.axes"))
        return []
    runs: list[PlannedRun] = []
    for finals in [(seed,) for seed in sweep.seeds] if tuning.per == "seed" else [sweep.seeds]:
        own = finals[0] if tuning.per == "seed" else None
        name, seeds = key if own is None else f"{key}-s{own}", tuning.seeds_for(finals[0])
        trials = [trial for one in resolved for trial in _with_seeds(replace(one, stage="trial", for_seed=own), seeds)]
        levels = candidates[0]
        if selection is not None:
            chosen = _read_choice(selection, name, trials=trials)
            levels = next(one for one in candidates if {option: level.value for option, level in one.items()} == chosen)
        if final := resolver.resolve({**cell, **levels}, imposed=sweep.final):
            trials += _with_seeds(replace(final, pending=() if selection else tuned), finals)
        runs += [replace(run, cell=name, trials=tuning.trials_per_choice) for run in trials]
    return [run for run in runs if run.stage == "final" or run.change == (cell[CHANGE].value if CHANGE in cell else None)]


def _read_choice(selection: Selection, cell: str, *, trials: Sequence[PlannedRun]) -> Mapping[str, Any]:
    """The levels selected for a cell. Raises UserError if they were selected from other trials."""
    compared = {key: {trial.run_id for one in each.candidates for trial in one.trials} for key, each in selection.cells.items()}
    if compared.get(cell) != {trial.run_id for trial in trials}:
        fixed = {replace(each.run, data=each.run.data.model_copy(update={"split": "fixed"})).run_id for each in trials}
        split = " (with the fixed split, that of data.split=fixed)" if fixed <= set().union(*compared.values()) else ""
        rule = (
            f"was made from other trials than this sweep now has for {cell}{split}. A selection is never changed: give the "
            "sweep another name (name=...), or move the file away to select anew; recorded trials are used again"
        )
        raise UserError(Problem(rule, place="selection.json"))
    return selection.cells[cell].chosen


def _cell_key(resolved: PlannedRun, tuned: Sequence[str]) -> str:
    """Names a cell by what its trials and final runs share, `vit-p4-d96-1a2b3c4d5e`; equal for cells that resolve equally."""
    run = resolved.run
    digest = run.digest(without=("seed", *tuned, "train.fit_on", "train.read_test"))
    return f"{run.backbone}-p{run.model.patch_size}-d{run.model.dim}-{digest}"

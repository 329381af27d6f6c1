"""python -m study.plan SWEEP [key=value ...]: show every run of a sweep, with its width and cost, before training starts.

The contrasts that the report will make are listed, so that they stand before the data. With --check every architecture and
every recipe takes one training step on this machine, on a handful of images. With --detect POINTS the plan says how many
seeds a difference of that size needs, from what a pilot of the same sweep has recorded or from a stated spread (--sd).
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from study.cli.arguments import add_json_option, parse_percent, parse_points, sweep_folder, sweep_parser
from study.cli.console import open_console, pluralize, print_json
from study.config.sweep import Tuning
from study.config.sweep_file import read_sweep
from study.errors import Problem, UserError, and_more, handle_user_errors
from study.launcher.execution import describe_execution
from study.planning.planned_run import PlannedRun, describe_size, representatives
from study.planning.planned_start import describe_starts
from study.planning.runtime_estimate import describe_runtime
from study.planning.search_ranges import MAX_ROUNDS, is_range
from study.planning.stages import describe_stage
from study.planning.sweep_plan import Plan
from study.planning.traced_cost import verify_costs
from study.planning.trials import describe_round, make_plan_so_far
from study.records.benchmark_file import Benchmark, newest_benchmark
from study.records.columns import spell_factor_level, spell_level
from study.records.record import read_records
from study.records.sweep_folder import SweepFolder
from study.tracking.libraries import require_trackers
from study.training.determinism import enable_deterministic_cublas
from study.training.device import choose_device
from study.training.dry_step import load_dry_step_images, run_dry_step

SHOWN_ROWS = 60  # a longer plan is cut on the screen; --all shows all of it
SHOWN_CONTRASTS = 24
_BUDGET_UNITS = {
    "seconds": "training seconds per 1,000 images",
    "training_macs": "MACs of training",
    "training_seconds": "seconds of training",
}


def parser() -> argparse.ArgumentParser:
    parser = sweep_parser("plan", __doc__)
    help_all = f"show all rows and contrasts, not {SHOWN_ROWS} and {SHOWN_CONTRASTS}"
    parser.add_argument("--all", action="store_true", help=help_all)
    help_check = "also train each architecture and recipe for one step on this machine"
    parser.add_argument("--check", action="store_true", help=help_check)
    parser.add_argument("--detect", type=parse_points, metavar="POINTS", help="the seeds that find this difference of accuracy")
    parser.add_argument("--sd", type=parse_points, metavar="POINTS", help="standard deviation over seeds, instead of a pilot's")
    help_accuracy = "expected accuracy, to bound the test images' part beside --sd"
    parser.add_argument("--accuracy", type=parse_percent, metavar="PERCENT", help=help_accuracy)
    add_json_option(parser)
    return parser


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    if arguments.detect is None and (arguments.sd or arguments.accuracy):
        raise UserError(Problem("needs --detect", "command line", "--sd" if arguments.sd else "--accuracy"))
    if arguments.accuracy and arguments.sd is None:
        raise UserError(Problem("needs --sd: a pilot has its own accuracy", "command line", "--accuracy"))
    console = open_console(for_json=arguments.json)
    sweep = read_sweep(arguments.sweep, arguments.overrides)
    with sweep.plugins.in_use():
        require_trackers(sweep.track, place=sweep.path)
        folder = sweep_folder(arguments, sweep.name)
        plan = make_plan_so_far(sweep, folder)
        check_statements(plan)
        verify_costs(planned.run.model for planned in plan.runs)
        show_plan(
            plan, console, rows=len(plan.runs) if arguments.all else SHOWN_ROWS, benchmark=newest_benchmark(folder.benchmarks)
        )
        notes = [*_describe_comparison(plan, folder, arguments), *describe_execution(folder)]
        statuses = {run_id: attempts.record.status for run_id, attempts in read_records(folder.records).items()}
        counts = Counter(statuses[planned.run_id] for planned in plan.runs if planned.run_id in statuses)
        if counts:
            notes.append("recorded so far: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
        for line in notes:
            console.print(line)
        if arguments.check:
            check(plan, console)
        if arguments.json:
            print_json("plan", format_plan_as_json(plan, statuses, notes=notes))
    return 0


def format_plan_as_json(plan: Plan, statuses: Mapping[str, str], *, notes: Sequence[str] = ()) -> dict[str, Any]:
    """The output of `--json`: question, factors, budget, every planned run with its cost, and every planned contrast.

    `statuses`: of the recorded runs, by run id; `notes`: what the command says of seeds, execution and records.
    """
    from study.analysis.planned_study import read_planned_study

    facts = plan.file.facts
    return {
        "sweep": facts.name,
        "question": facts.question,
        "factors": dict(facts.factors),
        "seeds": list(facts.seeds),
        "looks": facts.looks.get(facts.name, []),
        "match": dict(facts.match),
        "tuned": dict(facts.tuned),
        "effect_of_interest": facts.effect_of_interest,
        "image_passes": sum(planned.image_passes for planned in plan.whole),
        "training_flops": sum(planned.training_flops for planned in plan.whole),
        "merged": plan.merged,
        "runs": [_format_run_as_json(planned, statuses.get(planned.run_id, "missing")) for planned in plan.whole],
        "contrasts": [
            {"part": part.title, "contrast": contrast.name, "primary": contrast.primary}
            for part in read_planned_study(plan.file).parts
            for contrast in part.planned
        ],
        "notes": list(notes),
    }


def _format_run_as_json(planned: PlannedRun, status: str) -> dict[str, Any]:
    return {
        "run_id": planned.run_id,
        "stage": planned.stage,
        "status": status,
        "backbone": planned.run.backbone,
        "levels": {key: None if key in planned.pending else level for key, level in planned.levels.items()},
        "seed": planned.run.seed,
        "dim": planned.run.model.dim,
        "epochs": planned.run.train.epochs,
        "params": planned.cost.params,
        "macs": planned.cost.macs,
        "off_budget": planned.match.residual,
        "image_passes": planned.image_passes,
        "training_flops": planned.training_flops,
    }


def _describe_comparison(plan: Plan, folder: SweepFolder, arguments: argparse.Namespace) -> list[str]:
    """What the study will compare and, with --detect, the seeds that it needs."""
    from study.analysis import planned_study  # imports pandas and SciPy, which a launch that shows its plan can do without

    planned = planned_study.read_planned_study(plan.file)
    shown = len(plan.finals) if arguments.all else SHOWN_CONTRASTS
    lines = planned_study.describe_planned_contrasts(planned, shown=shown, exploratory=arguments.all)
    if arguments.detect is None:
        return lines
    if not lines:
        raise UserError(Problem("this sweep plans no contrast", plan.sweep.path, "--detect"))
    if arguments.sd is None:
        return lines + planned_study.describe_pilot_seeds(folder.path, arguments.detect)
    return lines + planned_study.describe_stated_seeds(planned, arguments.detect, sd=arguments.sd, accuracy=arguments.accuracy)


def check_statements(plan: Plan) -> None:
    """Raise UserError for contrasts and expectations of the sweep that its report could not make."""
    if plan.sweep.comparison.is_stated or plan.sweep.stages:
        from study.analysis import planned_study  # imports pandas and SciPy, which other launches can do without

        planned_study.check_stated(planned_study.read_planned_study(plan.file), plan.sweep.comparison.places)


def check(plan: Plan, console: Console) -> None:
    """Take one training step of every architecture and every recipe. Raises UserError with all that fail."""
    if plan.sweep.deterministic:
        enable_deterministic_cublas(os.environ)
    device = choose_device(plan.sweep.device, os.environ, deterministic=plan.sweep.deterministic)
    problems, checked, invented = [], 0, set()
    with console.status("checking") as status:
        for planned in representatives(plan.whole):
            checked += 1
            status.update(Text(f"checking {planned.label}"))
            splits, real = load_dry_step_images(planned.run)
            invented |= set() if real else {planned.run.data.name}
            fault = run_dry_step(planned.run, splits, device=device)
            problems += [Problem(fault, planned.label)] if fault else []
    if problems:
        raise UserError(*problems)
    images = f" (on random images: {', '.join(sorted(invented))} is not prepared)" if invented else ""
    console.print(f"checked: {checked} runs take a training step and are evaluated on {device.kind}{images}")


def show_plan(plan: Plan, console: Console, *, rows: int = SHOWN_ROWS, benchmark: Benchmark | None = None) -> None:
    """Print the question, one row per cell, and totals."""
    sweep = plan.sweep
    console.print(Text.assemble((sweep.name, "bold"), f": {sweep.question}"))
    if sweep.recipe is not None:
        console.print(f"recipe {sweep.recipe.name}: {sweep.recipe.expected}")
    console.print(_describe_setting(plan.finals))
    if sweep.tuning is not None:
        console.print("\n".join(_describe_trials(plan, sweep.tuning)))
    cells = list({str(planned.levels): planned for planned in plan.finals}.values())
    console.print(_make_cell_table(cells[:rows]))
    if len(cells) > rows:
        console.print(f"... and {len(cells) - rows} more rows (python -m study.plan {sweep.path} --all)")
    console.print("\n".join([*describe_starts(cells), *_describe_totals(plan), *describe_stage(plan)]))
    if benchmark is not None and (estimate := describe_runtime(plan.whole, benchmark)):
        console.print(estimate)


def show_added_trials(plan: Plan, before: Plan, console: Console) -> None:
    """Print why the ranges of a plan were widened, and how many trials that adds."""
    assert plan.sweep.tuning is not None, "only ranges of tuned options widen"
    known = {trial.run_id for trial in before.trials}
    added = [trial for trial in plan.trials if trial.run_id not in known]
    console.print(describe_round(plan.sweep.tuning))
    console.print(f"{len(added):,} more trials, {describe_size(added)}")


def _describe_setting(finals: Sequence[PlannedRun]) -> str:
    """Data, epochs and budget; if a sweep varies them, all of their values."""
    match = finals[0].match
    counts = sorted({planned.run.train.epochs for planned in finals})
    epochs = "1 epoch" if counts == [1] else f"{', '.join(map(str, counts))} epochs"
    if match.by in ("training_macs", "training_seconds"):
        epochs = f"{counts[0]:.3g} to {counts[-1]:.3g} epochs" if len(counts) > 1 else f"{counts[0]:.3g} epochs"
    targets = ", ".join(f"{target:,.12g}" for target in sorted({planned.match.target or 0 for planned in finals}))
    unit = _BUDGET_UNITS.get(match.by, match.by)
    matched = "not matched: width and depth as given" if match.by == "none" else f"matched on {unit}: {targets}"
    sets = {planned.data_set: planned.images for planned in reversed(finals)}  # the first run of each
    return f"{' and '.join(reversed(sets.values()))}; {epochs}; {matched}"


def _describe_trials(plan: Plan, tuning: Tuning) -> list[str]:
    """How many trials choose what, on which images; then how the ranges may widen, or have widened."""
    levels = {key.rpartition(".")[2]: ", ".join(str(level.value) for level in axis) for key, axis in tuning.axes.items()}
    axes = "; ".join(f"{name} {values}" for name, values in levels.items())
    per, seeds = "cell", f"seeds {_join(tuning.seeds)}"
    if tuning.per == "seed":
        per = "cell and seed"
        seeds = "; ".join(and_more([f"seeds {_join(tuning.seeds_for(seed))} for {seed}" for seed in plan.sweep.seeds], 3))
    sizes = sorted({(trial.run.data.train_images, trial.run.data.val_images) for trial in plan.trials})
    trained, compared = (" or ".join(dict.fromkeys(f"{size:,}" for size in part)) for part in zip(*sizes, strict=True))
    lines = [
        f"tuned: {tuning.trials_per_choice} trials per {per} ({axes}; {seeds}), trained on "
        f"{trained} and compared on {compared} validation images; no trial reads the test set"
    ]
    if len(tuning.seeds) == 1:
        lines.append("one trial seed: how much the choices depend on the seed stays hidden")
    if tuning.added:
        lines.append(describe_round(tuning))
    elif tuning.widen and plan.pending:
        counts = {key: tuning.trials_per_choice // len(axis) for key, axis in tuning.axes.items() if is_range(axis)}
        more = " or ".join(f"{count} (one of {key.rpartition('.')[2]})" for key, count in counts.items())
        rule = (
            f"while a best candidate is at the end of its range, and at most {MAX_ROUNDS} times, all cells get one more level"
        )
        lines += [f"{rule} there: {more} more trials per {per} each time"] if counts else []
    return lines


def _join(seeds: Sequence[int]) -> str:
    return ", ".join(and_more(list(map(str, seeds)), 8))


def _make_cell_table(cells: Sequence[PlannedRun]) -> Table:
    varied = [key for key in cells[0].levels if key not in ("backbone", "model.patch_size")]
    solved = any(cell.match.by in ("training_macs", "training_seconds") for cell in cells)
    knobs = any(cell.run.model.fine_width_option for cell in cells)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for cell in cells:
        model, residual = cell.run.model, cell.match.residual
        spelled = {key: spell_level(spell_factor_level(key, cell.levels.get(key, ""))) for key in varied}
        levels = ["selected" if key in cell.pending else str(level) for key, level in spelled.items()]
        hidden = str(getattr(model, model.fine_width_option)) if model.fine_width_option else "-"
        row = [
            ("backbone", model.backbone),
            ("patch", str(model.patch_size)),
            *zip((key.rpartition(".")[2] for key in varied), levels, strict=True),
            ("tokens", f"{model.tokens:,}"),
            ("width", str(model.dim)),
            *([("hidden", hidden)] if knobs else []),
            ("depth", str(model.depth)),
            ("params", f"{cell.cost.params:,}"),
            ("MMACs", f"{cell.cost.macs / 1e6:,.2f}"),
            *([("epochs", f"{cell.run.train.epochs:.4g}")] if solved else []),
            ("off budget", "" if residual is None else f"{residual:+.2%}"),
        ]
        if cell is cells[0]:
            for header, _ in row:
                table.add_column(header, justify="left" if header == "backbone" else "right")
        table.add_row(*(text for _, text in row))
    return table


def _describe_totals(plan: Plan) -> list[str]:
    """A line per stage; of two stages, a third line for both."""
    frozen = any(planned.run.train.freeze == "body" for planned in plan.whole)
    convention = f"(2 FLOPs per MAC, 3 x forward{', 1 x of a frozen body' if frozen else ''})"
    merged = f" ({plan.merged} equal ones merged)" if plan.merged else ""
    seeds = pluralize(len(plan.sweep.seeds), "seed")
    if not plan.trials:
        return [f"{pluralize(len(plan.runs), 'run')}{merged}, {seeds}, {describe_size(plan.runs)} in training {convention}"]
    return [
        f"{pluralize(len(plan.trials), 'trial')}, {describe_size(plan.trials)}",
        f"{pluralize(len(plan.finals), 'final run')}, {seeds}, {describe_size(plan.finals)}",
        f"{pluralize(len(plan.whole), 'run')}{merged} in all, {describe_size(plan.whole)} in training {convention}",
    ]


if __name__ == "__main__":
    sys.exit(main())

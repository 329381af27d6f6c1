"""What follows when all runs of a stage have an outcome: more trials or final runs after trials, and a look after final runs.

A look is taken by a launch, on Slurm by the one in a dependent job: it computes the contrasts from the records, as the report
does, writes the look, and the plan has the seeds of the next stage, or stays as it is where every contrast is decided.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console

from study.errors import Problem, UserError
from study.launcher.assignment import record_plan
from study.planning.stages import describe_look, list_awaited, read_stage
from study.planning.sweep_plan import Plan, make_plan
from study.planning.trials import describe_selection, make_selected_plan
from study.records.looks import ContrastAtLook, TakenLook, describe_design, read_looks, write_look
from study.records.record import read_records
from study.records.selection import read_selection
from study.records.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from study.analysis.findings import Findings


def make_following_plan(plan: Plan, folder: SweepFolder, console: Console) -> Plan:
    """The plan of what follows when all awaited runs have an outcome, which is printed; the plan itself before that.

    A launch that is killed anywhere comes to the same plan when it is repeated: selections and looks follow from the records.
    """
    following = make_selected_plan(plan, folder)
    if plan.pending and not following.pending:
        selection = read_selection(folder)
        assert selection is not None
        console.print("\n".join(describe_selection(selection)))
    while following.awaited and not following.pending and not list_awaited(following, read_records(folder.records)):
        console.print(describe_look(take_look(following, folder), following))
        following = make_plan(read_stage(following.sweep, folder), read_selection(folder))
    return following


def take_look(plan: Plan, folder: SweepFolder) -> TakenLook:
    """Take the next look of a plan whose runs all have an outcome, and write it."""
    from study.analysis.findings import Findings  # imports pandas and SciPy, which other launches can do without
    from study.analysis.report_tables import read_run_folder

    stages = plan.sweep.stages
    assert stages is not None and stages.following is not None
    record_plan(plan, folder, earlier=folder.launch_ids())
    findings, recorded = Findings(read_run_folder(folder.path)), read_records(folder.records)
    look = TakenLook(
        number=stages.following,
        design=describe_design(stages, plan.sweep.effect_of_interest, plan.sweep.comparison.contrasts),
        runs={planned.run_id: recorded[planned.run_id].record.result.test_accuracy for planned in plan.finals},
        contrasts=tuple(_list_contrasts(findings)),
    )
    for earlier in read_looks(folder):
        for run_id, accuracy in earlier.runs.items():
            if look.runs[run_id] != accuracy:
                rule = f"look {earlier.number} saw another result of {run_id} than is recorded now: restore its record"
                raise UserError(Problem(rule, str(folder.looks)))
    write_look(folder, look)
    return look


def _list_contrasts(findings: "Findings") -> Iterator[ContrastAtLook]:
    """The primary contrasts of all parts of a study."""
    from study.analysis.study_results import Unavailable

    for part in findings.parts:
        contrasts = part.contrasts
        assert not isinstance(contrasts, Unavailable), "a sweep without a contrast is refused"
        for row in contrasts[contrasts["primary"]].to_dict("records"):
            numbers = {name: _round(row[name]) for name in ("difference", "low", "high")}
            yield ContrastAtLook(part=part.title, contrast=row["contrast"], n=row["n"], verdict=row["verdict"], **numbers)


def _round(number: float) -> float | None:
    """Six digits, which every machine computes alike; None where there is none."""
    return None if number != number else float(f"{number:.6g}")

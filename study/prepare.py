"""python -m study.prepare SWEEP [key=value ...]: download and decode a sweep's data, where there is a network.

Compute nodes often have none, and array tasks must not race for a download. What is prepared already is left as it is.
"""

import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn

from study.cli.arguments import sweep_parser
from study.cli.console import open_console
from study.config.sweep import Sweep
from study.config.sweep_file import read_sweep
from study.data import DatasetInfo, prepare_dataset
from study.errors import handle_user_errors
from study.planning.resolver import collect_data_options


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = sweep_parser("prepare", __doc__)
    arguments, console = parser.parse_intermixed_args(argv), open_console()
    sweep = read_sweep(arguments.sweep, arguments.overrides)
    with sweep.plugins.in_use():
        prepared = prepare_data(sweep, console)
    for found in prepared:
        sizes = f"{found.train_images:,} train, {found.val_images:,} val, {found.test_images:,} test images"
        console.print(
            f"{found.name}: {sizes}, {found.num_classes} classes, {found.channels} x {found.image_size} x "
            f"{found.image_size}, digest {found.digest[:12]}"
        )
    return 0


def prepare_data(sweep: Sweep, console: Console) -> list[DatasetInfo]:
    """Make every data set of a sweep ready to be loaded, with progress bars."""
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        workers = len(os.sched_getaffinity(0))
        found = [prepare_dataset(options, workers=workers, report=report) for options in collect_data_options(sweep)]
    for info in found:
        for note in info.notes:
            console.print(f"{info.name}: {note}")
    return found


if __name__ == "__main__":
    sys.exit(main())

"""python -m study.merge RUNS RUNS ... --into DIR: unite the runs of one sweep from several folders.

Two clusters or two people trained parts of a sweep, other seeds or other levels: equal records count once, contradicting ones
are named, and then nothing is written. The folders are left as they are.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from study.cli.arguments import add_json_option, command_parser, parse_path
from study.cli.console import open_console, pluralize, print_json
from study.errors import Problem, UserError, handle_user_errors
from study.records.merged_runs import merge_runs


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser("merge", __doc__)
    parser.add_argument(
        "folders", nargs="+", metavar="RUNS", help="folder of one sweep's runs, e.g. runs/patch_size; two or more"
    )
    parser.add_argument("--into", required=True, type=parse_path, metavar="DIR", help="new folder of the united runs")
    add_json_option(parser)
    arguments = parser.parse_intermixed_args(argv)
    sources, into = list(map(Path, arguments.folders)), Path(arguments.into)
    if len({source.resolve() for source in sources}) < max(2, len(sources)):
        raise UserError(Problem("needs two different folders of runs or more", "command line", value=arguments.folders))
    merged, console = merge_runs(sources, into), open_console(for_json=arguments.json)
    for source, count in merged.outcomes.items():
        console.print(f"{source}: {pluralize(count, 'run')} with an outcome")
    seeds = pluralize(len(merged.plan.facts.seeds), "seed")
    console.print(f"{into}: {pluralize(merged.total, 'run')} with an outcome ({merged.shared} in several folders), {seeds}")
    console.print(f"next: python -m study.report {into}")
    if arguments.json:
        document = {"folder": str(into), "outcomes": merged.outcomes, "total": merged.total, "shared": merged.shared}
        print_json("merge", {**document, "seeds": list(merged.plan.facts.seeds)})
    return 0


if __name__ == "__main__":
    sys.exit(main())

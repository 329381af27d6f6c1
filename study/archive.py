"""python -m study.archive REPORT: pack a report with its sweep, tables, figures, environment and checksums into one zip file.

`python -m study.report REPORT.zip` redraws it anywhere, without torch or the runs.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from study.cli.arguments import add_json_option, command_parser, parse_path
from study.cli.console import open_console, pluralize, print_json
from study.errors import handle_user_errors
from study.reporting.report_archive import write_archive


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser("archive", __doc__)
    parser.add_argument("report", type=parse_path, metavar="REPORT", help="folder of a report, e.g. reports/quickstart")
    parser.add_argument("--out", type=parse_path, metavar="FILE", help="the archive (default: REPORT.zip)")
    add_json_option(parser)
    arguments = parser.parse_intermixed_args(argv)
    folder = Path(arguments.report)
    path = Path(arguments.out) if arguments.out else folder.resolve().with_name(f"{folder.resolve().name}.zip")
    names = write_archive(folder, path)
    size = path.stat().st_size
    open_console(for_json=arguments.json).print(f"{path}: {pluralize(len(names), 'file')}, {size:,} bytes")
    if arguments.json:
        print_json("archive", {"file": str(path), "files": sorted(names), "bytes": size})
    return 0


if __name__ == "__main__":
    sys.exit(main())

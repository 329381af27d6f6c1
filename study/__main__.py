"""study COMMAND ...: the commands of `python -m study.COMMAND` under one name."""

import importlib
import sys
from collections.abc import Sequence

from study.errors import handle_user_errors, nearest
from study.version import VERSION

COMMANDS = {
    "plan": "show every run of a sweep, with its width and cost",
    "prepare": "download and decode a sweep's data",
    "benchmark": "measure how fast a sweep's architectures are on this machine",
    "launch": "train the missing runs of a sweep",
    "status": "show the status of every run",
    "cancel": "cancel queued or running runs",
    "report": "write tables, figures and the answer",
    "probe": "measure what trained networks do, from kept weights",
    "merge": "unite the runs of one sweep from several folders",
    "archive": "pack a report into one file that can be redrawn anywhere",
    "export": "write kept weights as timm reads them",
    "evaluate": "top-1 and top-5 accuracy of published or saved weights on an image folder",
}


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command with the rest of the line; only its module is imported."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print("usage: study COMMAND ...\n")
        print("\n".join(f"  {name:<9} {summary}" for name, summary in COMMANDS.items()))
        return 0 if words else 2
    if words[0] == "--version":
        print(f"patch or attention? {VERSION}")
        return 0
    if words[0] not in COMMANDS:
        suggestion = nearest(words[0], COMMANDS)
        hint = f"; did you mean {suggestion}?" if suggestion else ""
        print(f"no such command: {words[0]}{hint}\nvalid: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    status: int = importlib.import_module(f"study.{words[0]}").main(words[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())

"""study COMMAND ...: the commands of `python -m study.COMMAND` under one name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from study import __version__
from study.errors import nearest

COMMANDS = {
    "plan": "show every run of a sweep, resolved and sized",
    "prepare": "fetch and decode a sweep's data",
    "benchmark": "how fast a sweep's architectures are here",
    "launch": "train what is missing of a sweep",
    "status": "where every run stands",
    "cancel": "take runs out of the queue or off their workers",
    "report": "tables, figures and the answer",
    "evaluate": "top-1 and top-5 of published or kept weights on an image folder",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Hands the rest of the line to one command; its module is imported only then."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print("usage: study COMMAND ...\n")
        print("\n".join(f"  {name:<9} {does}" for name, does in COMMANDS.items()))
        return 0 if words else 2
    if words[0] == "--version":
        print(f"patch or attention? {__version__}")
        return 0
    if words[0] not in COMMANDS:
        hint = nearest(words[0], COMMANDS)
        told = f"no such command: {words[0]}" + (f"; did you mean {hint}?" if hint else "")
        print(f"{told}\nvalid: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    status: int = importlib.import_module(f"study.{words[0]}").main(words[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())

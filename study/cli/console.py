"""What commands print: plain lines that are never broken, so that a command in them can be copied.

Texts of sweeps, tables and records are shown as they are: rich reads no markup in them, and no control character reaches the
terminal. With --json all of that goes to standard error, and standard output has one JSON document.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment

from study.errors import escape_controls

LOG_WIDTH = 160  # columns of tables where there is no terminal
JSON_VERSION = 1
"""Of what --json prints (docs/api.md): it grows when a key changes its meaning or goes, not for a new key."""


class _Escaped:
    """A renderable without the control characters of its texts; rich's own control codes are kept."""

    def __init__(self, renderable: RenderableType):
        self.renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for text, style, control in console.render(self.renderable, options):
            yield Segment(text if control else escape_controls(text), style, control)


class _EscapeTexts(RenderHook):
    def process_renderables(self, renderables: Iterable[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(each) for each in renderables]


def open_console(*, for_json: bool = False) -> Console:
    """Standard output, without markup and highlighting; tables are as wide as the terminal, or as a wide log.

    `for_json`: standard error, since standard output is to have a JSON document alone.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True, stderr=for_json)
    console.push_render_hook(_EscapeTexts())
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console


def print_json(command: str, document: Mapping[str, Any]) -> None:
    """Print a command's document, the only thing on standard output; ASCII, so that no terminal obeys it."""
    print(json.dumps({"command": command, "version": JSON_VERSION, **document}, indent=1, allow_nan=False))


def pluralize(count: int, noun: str) -> str:
    """`1 seed`, `2,000 seeds`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

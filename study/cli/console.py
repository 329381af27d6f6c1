"""What commands print: plain lines that are never broken, so that a command in them can be copied.

Texts of sweeps, tables and records are shown as they are: rich reads no markup in them, and no control character reaches the
terminal.
"""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment

from study.errors import escape_controls

LOG_WIDTH = 160  # columns of tables where there is no terminal


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


def open_console() -> Console:
    """Standard output, without markup and highlighting; tables are as wide as the terminal, or as a wide log."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.push_render_hook(_EscapeTexts())
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console


def pluralize(count: int, noun: str) -> str:
    """`1 seed`, `2,000 seeds`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

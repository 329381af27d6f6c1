"""What commands print: plain lines that are never broken, so that a command in them can be copied."""

from rich.console import Console

LOG_WIDTH = 160  # columns of tables where there is no terminal


def open_console() -> Console:
    """Standard output, without markup and highlighting; tables are as wide as the terminal, or as a wide log."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console


def pluralize(count: int, noun: str) -> str:
    """`1 seed`, `2,000 seeds`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

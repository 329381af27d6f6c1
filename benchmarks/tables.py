"""Tables for the terminal, and JSON files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, ["-" * width for width in widths], *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(content, indent=1, default=str) + "\n")
    draft.replace(path)


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows of named values as a table, with a column for every name that occurs."""
    heads = list(dict.fromkeys(name for row in rows for name in row))
    print_table(heads, [[cell(row.get(name)) for name in heads] for row in rows])


def cell(value: object) -> str:
    """A float with three significant digits, an empty cell for a missing value, anything else as it is."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)

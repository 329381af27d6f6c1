"""Texts of sweeps, records and tables reach the terminal as text: no markup, no control characters."""

from __future__ import annotations

import contextlib
import io
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from study.cli.console import open_console
from study.errors import Problem, UserError, handle_user_errors

HOSTILE = "[/data/x] [p] [red]a[/red] \x1b[31m \x1b]0;title\x07 \u202egnp.exe \x9b2J \r\x00"


def printed(text: str) -> str:
    """What a console writes for a line, a styled text and a cell of a table."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        console = open_console()
        table = Table(box=None, show_header=False)
        table.add_row(text)
        for shown in (text, Text(text, "bold"), table):
            console.print(shown)
    return out.getvalue()


@given(st.text())
@example(HOSTILE)
def test_no_character_of_a_text_is_obeyed(text: str) -> None:
    """Neither the terminal's control characters nor marks that reorder what is read come through."""
    left = {char for char in printed(text) if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert left <= {"\n"}


def test_brackets_are_no_markup_and_escapes_can_be_read() -> None:
    """What stands in brackets is shown, and a control character by its name in Python."""
    assert printed("[/data/x] [p] \x1b[31mred \u202eabc").count(r"[/data/x] [p] \x1b[31mred \u202eabc") == 3


def test_styles_of_the_program_itself_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal its own bold text is bold, with a hostile text inside."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = printed("\x1b[2J")
    assert "\x1b[1m" in shown and "\x1b[2J" not in shown


def test_mistakes_are_shown_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """Keys, values and places of a mistake come from files and the command line."""

    @handle_user_errors
    def main() -> int:
        raise UserError(Problem(f"no {HOSTILE}", place=HOSTILE, key=HOSTILE, value=HOSTILE, choices=[HOSTILE]))

    assert main() == 2
    assert {char for char in capsys.readouterr().err if not char.isprintable()} == {"\n"}

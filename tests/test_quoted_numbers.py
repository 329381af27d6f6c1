"""Numbers that the README and the case study quote are those of the committed tables.

A number belongs to the report that was linked last before it (`reports/NAME/`). An estimate with its interval, "1.07 points
(0.36 to 1.78)", has to be a row of the report's contrasts, cells or ranges, up to signs; any other number with a
decimal point has to stand in the answer of that report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
NUMBER = r"[−+-]?\d+\.\d+"
ESTIMATE = re.compile(rf"({NUMBER}) ?%?(?: points)? \(({NUMBER}) ?%? to ({NUMBER}) ?%?\)")
LINK = re.compile(r"\]\((?:\.\./)?(reports/[\w-]+)/")
Triple = tuple[str, str, str]


def spell(mean: float, low: float, high: float, *, digits: int) -> Triple:
    """The three values in points without signs, the bound nearer to zero first."""
    low, high = sorted((low, high), key=abs) if low * high >= 0 else (low, high)
    point, first, second = (f"{abs(100 * value):.{digits}f}" for value in (mean, low, high))
    return point, first, second


def list_estimates(folder: Path) -> set[Triple]:
    """Every estimate with its interval in a report's tables, and in its answer (ranges, and differences of ranges)."""
    contrasts, cells = (pd.read_csv(folder / f"{name}.csv") for name in ("contrasts", "cells"))
    rows = contrasts[["difference", "low", "high"]].dropna()
    found = {spell(*row, digits=2) for row in rows.itertuples(index=False)}
    means = cells[["mean", "low", "high"]].dropna()
    return found | {spell(*row, digits=1) for row in means.itertuples(index=False)} | set(read_estimates(read_answer(folder)))


def read_answer(folder: Path) -> str:
    answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return "\n".join(sentence for part in answer["parts"] for sentence in part["sentences"])


def read_estimates(text: str) -> Iterator[Triple]:
    for match in ESTIMATE.finditer(text):
        mean, low, high = (float(number.replace("−", "-")) / 100 for number in match.groups())
        yield spell(mean, low, high, digits=len(match[1].partition(".")[2]))


def find_unsupported(text: str, root: Path = ROOT) -> list[str]:
    """Numbers that the report linked last before them doesn't have."""
    wrong: list[str] = []
    folder: Path | None = None
    for block in re.split(r"(?=\]\((?:\.\./)?reports/)", text):
        if link := LINK.match(block):
            folder = root / link[1]
        if folder is None:
            continue
        estimates, answer = list_estimates(folder), set(re.findall(r"\d+\.\d+", read_answer(folder)))
        rest = ESTIMATE.sub("", block)
        quoted = list(read_estimates(block))
        wrong += [f"{folder.name}: {' '.join(estimate)}" for estimate in quoted if estimate not in estimates]
        wrong += [
            f"{folder.name}: {number}"
            for number in re.findall(r"(?<![\w.])(?<!Python )\d+\.\d+(?![\w.])", rest)
            if number not in answer
        ]
    return wrong


def test_the_results_in_the_readme_are_those_of_the_reports() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    results = re.sub(r"^```.*?^```", "", text.partition("## A study in five commands")[0], flags=re.MULTILINE | re.DOTALL)
    assert len(list(read_estimates(results))) > 10
    assert find_unsupported(results) == []


@pytest.mark.parametrize(
    ("written", "unsupported"),
    [
        ("attention is 1.07 points (0.36 to 1.78) lower", []),
        ("attention is 1.08 points (0.36 to 1.78) lower", ["digits_token_mixer: 1.08 0.36 1.78"]),
        ("attention has 96.9 % (95.7 to 97.8)", []),
        ("the linear baseline has 96.3 %, or 96.4 %", ["digits_token_mixer: 96.4"]),
    ],
)
def test_a_wrong_number_is_found(written: str, unsupported: list[str]) -> None:
    assert find_unsupported(f"[study](reports/digits_token_mixer/report.md): {written}.") == unsupported

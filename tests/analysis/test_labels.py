"""Numbers as a report prints them."""

from __future__ import annotations

import pytest

from study.analysis import labels


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.0125, -0.00003, "−1.25 to −0.003"),
        (-0.0125, 0.000001, "−1.25 to +0.0001"),
        (0.0, 0.01, "+0.00 to +1.00"),
        (-0.000051, 0.01, "−0.01 to +1.00"),
    ],
)
def test_a_bound_of_a_difference_shows_its_sign(low: float, high: float, expected: str) -> None:
    assert labels.format_interval(low, high, digits=2, signed=True) == expected

"""What all intervals and tests of a report have in common."""

CONFIDENCE = 0.95  # of every interval; one minus it is the level of every test
MIN_SEEDS = 3  # with two seeds a t interval reaches 12.7 standard errors to each side: no picture of the spread
POWER = 0.8
ZERO = 1e-12
"""Differences of accuracies below this are rounding errors."""

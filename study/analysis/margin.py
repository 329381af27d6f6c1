"""The smallest effect of interest: below it, two architectures count as equivalent. Stated in the sweep, before the runs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Margin:
    """A difference in points, or a ratio of errors; neither where the sweep states none, and then nothing is equivalent.

    Near the ceiling a ratio says more: half a point is a third of the error at 98.5 % and a sixtieth of it at 70 %.
    """

    points: float | None = None  # percentage points of accuracy
    error_ratio: float | None = None  # above 1: 1.1 is a tenth more errors

    @classmethod
    def from_facts(cls, value: object) -> "Margin":
        """The margin as a sweep states it: `0.5` or `{"error_ratio": 1.1}`; none for None."""
        if isinstance(value, Mapping):
            return cls(error_ratio=float(value["error_ratio"]))
        return cls(points=float(value)) if isinstance(value, int | float) else cls()

    def in_points(self, mean_error: float) -> float:
        """The margin in percentage points where the mean error is `mean_error` (a fraction); NaN where none is stated."""
        if self.error_ratio is not None:
            return 100 * (self.error_ratio - 1) * mean_error
        return float("nan") if self.points is None else self.points

    def explain_verdicts(self, verdicts: Collection[str]) -> list[str]:
        """What equivalent and inconclusive mean with this margin, as a sentence, where one of them is among the verdicts."""
        if not {"equivalent", "inconclusive"} & set(verdicts):
            return []
        if not str(self):
            return ["The sweep states no effect of interest, so no contrast can be called equivalent."]
        return [
            f"The smallest effect of interest is {self}: equivalent contrasts have their whole interval within it; "
            "inconclusive ones include 0 and reach beyond it."
        ]

    def __str__(self) -> str:
        if self.error_ratio is not None:
            return f"an error ratio of {self.error_ratio:g}"
        return "" if self.points is None else f"{self.points:g} point{'s' * (self.points != 1)}"

"""What was expected is held against intervals, never against means."""

from __future__ import annotations

from dataclasses import replace

import example_sweeps
import pytest

from study.analysis.expectations import check_expectations
from study.analysis.findings import Findings, StudyPart
from study.analysis.planned_study import check_stated
from study.errors import UserError


def part_of(*expectations: dict[str, object]) -> StudyPart:
    example = example_sweeps.ablation(patch_sizes=(2, 4))
    facts = replace(example.facts, expectations=expectations)
    (part,) = Findings(replace(example, facts=facts).tables).parts
    return part


@pytest.mark.parametrize(
    ("contrast", "sign", "result"),
    [
        ("no residual - baseline", "negative", "as expected"),
        ("no residual - baseline", "positive", "against expectation"),
        ("no residual - baseline", "equivalent", "against expectation"),
        ("with mixup - baseline", "positive", "as expected"),
        ("ReLU - baseline", "equivalent", "as expected"),
        ("ReLU - baseline", "negative", "against expectation"),
        ("with mixup - baseline at 4", "equivalent", "undecided"),
    ],
)
def test_a_sign_is_decided_by_the_verdict(contrast: str, sign: str, result: str) -> None:
    """Significant with that sign, or the other; equivalent; or nothing that can be said."""
    part = part_of({"contrast": contrast, "sign": sign})
    assert list(part.checked["result"]) == [result]
    assert part.answer.sentences[-1].startswith("Expected and found: ") and result in part.answer.sentences[-1]


@pytest.mark.parametrize(
    ("accuracy", "tolerance", "result"),
    [
        (0.93, 0.02, "reproduced within 2.00 points"),
        (0.98, 0.01, "against expectation: not reproduced within 1.00 points, below by "),
        (0.80, 0.01, "against expectation: not reproduced within 1.00 points, above by "),
        (0.93, 0.001, "undecided"),
    ],
)
def test_a_published_accuracy_is_reproduced_where_the_interval_is_within(
    accuracy: float, tolerance: float, result: str
) -> None:
    """The cell's interval inside, outside, or across the tolerance around the published value."""
    cell = {"change": "baseline", "model.patch_size": 2}
    part = part_of({"accuracy": accuracy, "tolerance": tolerance, "cell": cell})
    own = part.cells[(part.cells["change"] == "baseline") & (part.cells["patch_size"] == 2)].iloc[0]
    inside = abs(own["low"] - accuracy) <= tolerance and abs(own["high"] - accuracy) <= tolerance
    assert inside == result.startswith("reproduced")
    assert part.checked["result"].iloc[0].startswith(result)


def test_expectations_of_nothing_are_mistakes_at_their_place() -> None:
    """A cell that isn't one, and a contrast that isn't planned, are refused with the line that states them."""
    for entry, rule in (
        ({"accuracy": 0.9, "tolerance": 0.01, "cell": {"change": "baseline"}}, "names 2 cells"),
        ({"contrast": "no resid - baseline", "sign": "negative"}, "did you mean 'no residual - baseline'"),
    ):
        example = example_sweeps.ablation(patch_sizes=(2, 4))
        findings = Findings(replace(example, facts=replace(example.facts, expectations=(entry,))).tables)
        with pytest.raises(UserError) as caught:
            check_stated(findings, {"expected.0": "a.yaml:7"})
        assert str(caught.value.problems[0]).startswith("a.yaml:7: expected.0") and rule in str(caught.value.problems[0])


def test_too_few_seeds_decide_nothing() -> None:
    """Without an interval nothing is as expected."""
    (part,) = Findings(example_sweeps.ablation(seeds=2).tables).parts
    entries = [
        {"contrast": "no residual - baseline", "sign": "negative"},
        {"accuracy": 0.9, "tolerance": 0.5, "cell": {"change": "ReLU"}},
    ]
    assert list(check_expectations(part, entries)["result"]) == ["undecided", "undecided"]

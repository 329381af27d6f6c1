"""An ablation compares each change with the baseline: one family, one table, one sentence."""

from __future__ import annotations

import example_sweeps
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from study.analysis.ablation import describe_changes, tabulate_ablation
from study.analysis.findings import Findings, StudyPart
from study.analysis.study_results import Unavailable

CHANGES = ["baseline", "no residual", "LayerNorm", "ReLU", "with mixup", "no flip"]


def part_of(*patch_sizes: int) -> StudyPart:
    (part,) = Findings(example_sweeps.ablation(patch_sizes=patch_sizes).tables).parts
    return part


@pytest.mark.parametrize("patch_sizes", [(2,), (2, 4)], ids=["alone", "crossed"])
def test_primary_contrasts_are_the_changes_minus_the_baseline(patch_sizes: tuple[int, ...]) -> None:
    """Independent of the contrasts' weights: SciPy's paired t test of each change's mean over patch sizes, seed by seed."""
    part = part_of(*patch_sizes)
    contrasts = part.contrasts
    assert isinstance(contrasts, pd.DataFrame)
    primary = contrasts[contrasts["primary"]].set_index("upper")
    assert list(primary.index) == CHANGES[1:] and set(primary["lower"]) == {"baseline"}
    means = part.table.pivot_table(index="seed", columns="change", values="test_accuracy")
    for change in CHANGES[1:]:
        found, own = stats.ttest_rel(means[change], means["baseline"]), primary.loc[change]
        limits = found.confidence_interval(0.95)
        assert own["difference"] == pytest.approx((means[change] - means["baseline"]).mean())
        assert [own["low_single"], own["high_single"]] == pytest.approx([limits.low, limits.high])
        bonferroni = stats.t.isf(0.025 / 5, 4) / stats.t.isf(0.025, 4)
        assert 1 < (own["high"] - own["low"]) / (own["high_single"] - own["low_single"]) <= 1.02 * bonferroni
    assert len(contrasts) == (5 if len(patch_sizes) == 1 else 5 + 10 + 1 + 5)
    assert not any("averaged over residual" in name for name in contrasts["contrast"])


def test_the_table_has_the_baseline_first_then_the_sweeps_order() -> None:
    """Accuracies are the means of the runs; the baseline has no difference; costs span the runs."""
    part = part_of(2, 4)
    table = tabulate_ablation(part).set_index("change")
    assert list(table.index) == CHANGES
    assert table["accuracy"].to_dict() == pytest.approx(part.table.groupby("change")["test_accuracy"].mean().to_dict())
    assert pd.isna(table.loc["baseline", "difference"]) and pd.isna(table.loc["baseline", "verdict"])
    costs = part.table.groupby("change")["macs"]
    assert table["macs_low"].to_dict() == costs.min().to_dict() and table["macs_high"].to_dict() == costs.max().to_dict()


def test_the_answer_says_which_changes_matter() -> None:
    """The first sentence names each change once, with what it does; nothing is ranked or shared among factors."""
    part = part_of(2, 4)
    first = part.answer.sentences[0]
    assert "averaged over patch size, of five changes two lower accuracy: no residual by 1" in first
    assert "one raises accuracy: with mixup by 1." in first and "equivalent within 0.75 points" in first
    assert all(first.count(name) == 1 for name in CHANGES[1:])
    assert part.answer.larger is None and part.ranges == [] and isinstance(part.decomposition, Unavailable)


def test_a_destroyed_network_is_a_finding_but_a_poor_baseline_is_none() -> None:
    """A change below the linear model on pixels is an answer; a baseline below it means that nothing was trained."""
    example = example_sweeps.ablation()
    for floor, state in ((0.85, "answered"), (0.95, "undertrained")):
        tables = example_sweeps.Example(example.table.assign(baseline_accuracy=floor), example.curves, example.facts).tables
        assert Findings(tables).parts[0].answer.state == state


def test_the_sentence_groups_changes_by_verdict() -> None:
    """Counts agree in number, sizes are sorted and have no sign twice, and what is undecided shows its interval."""
    columns = ["upper", "verdict", "difference", "low", "high"]
    rows = [
        ("a", "lower", -0.01, -0.015, -0.005),
        ("b", "lower", -0.02, -0.03, -0.01),
        ("c", "equivalent", 0.0, -0.001, 0.001),
        ("d", "inconclusive", 0.001, -0.01, 0.012),
        ("e", "too few seeds", np.nan, np.nan, np.nan),
    ]
    frame = pd.DataFrame(rows, columns=columns).assign(primary=True, where="", margin=0.003)
    assert describe_changes(frame) == (
        "of five changes two lower accuracy: b by 2.00 points (1.00 to 3.00) and a by 1.00 points (0.50 to 1.50); one is "
        "equivalent within 0.30 points: c; one is inconclusive: d (+0.10 points, −1.00 to +1.20); one has too few seeds: e "
        "(not measured)"
    )
    assert describe_changes(frame[:1]) == "of one change one lowers accuracy: a by 1.00 points (0.50 to 1.50)"

"""Laws of the stored order: every stretch of it is stratified, and it depends on the labels alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from study.data.stratified_order import draw_stratified_order

counts = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@settings(deadline=None)
@given(counts=counts)
def test_the_order_is_a_permutation_determined_by_the_labels(counts: list[int]) -> None:
    """Every position comes once, and the same labels give the same order again."""
    labels = np.repeat(np.arange(len(counts)), counts)
    order = draw_stratified_order(labels, "train")
    assert np.array_equal(np.sort(order), np.arange(len(labels)))
    assert np.array_equal(order, draw_stratified_order(labels.copy(), "train"))


@settings(deadline=None)
@given(classes=st.integers(1, 20), per_class=st.integers(1, 30), data=st.data())
def test_a_prefix_of_a_balanced_set_is_balanced(classes: int, per_class: int, data: st.DataObject) -> None:
    """However the labels are shuffled in the source, k x classes images are k of each class."""
    labels = data.draw(st.permutations(list(np.arange(classes).repeat(per_class))))
    ordered = np.array(labels)[draw_stratified_order(np.array(labels), "train")]
    for k in range(1, per_class + 1):
        assert (np.bincount(ordered[: k * classes], minlength=classes) == k).all()


@settings(deadline=None)
@given(counts=counts)
def test_in_any_set_a_prefix_deviates_from_a_classs_share_by_less_than_three_images(counts: list[int]) -> None:
    """The count of each class in each prefix is near its proportional share, also with very unequal classes."""
    labels = np.repeat(np.arange(len(counts)), counts)
    ordered = labels[draw_stratified_order(labels, "train")]
    found = np.cumsum(ordered[:, None] == np.arange(len(counts)), axis=0)
    share = np.arange(1, len(labels) + 1)[:, None] * np.array(counts) / len(labels)
    assert np.abs(found - share).max() < 3


def test_a_prefix_is_as_stratified_as_scikit_learns_split() -> None:
    """Class counts of a tenth are those of train_test_split(stratify=...), to one image per class."""
    labels = np.random.default_rng(0).choice(7, size=3000, p=[0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02])
    ours = labels[draw_stratified_order(labels, "train")][:300]
    _, theirs = train_test_split(labels, test_size=300, stratify=labels, random_state=0)
    assert np.abs(np.bincount(ours) - np.bincount(theirs)).max() <= 1


def test_the_order_within_a_class_is_shuffled_and_differs_between_parts() -> None:
    """Neighbors in the source (often images of one scene) are not neighbors in the order."""
    labels = np.zeros(1000, dtype=np.int64)
    order = draw_stratified_order(labels, "train")
    assert (np.abs(np.diff(order)) == 1).mean() < 0.01
    assert not np.array_equal(order, draw_stratified_order(labels, "test"))

"""The planned contrasts follow from the axes alone."""

import itertools

import numpy as np
import pytest

from study.analysis.planned_contrasts import Contrast, plan_contrasts

MIXERS = {"patch_size": [1, 2, 4], "token_mixer": ["attention", "depthwise_conv", "identity"]}


def families(contrasts: list[Contrast]) -> dict[str, list[str]]:
    return {family: [c.name for c in own] for family, own in itertools.groupby(contrasts, key=lambda c: c.family)}


def value(contrast: Contrast, accuracies: dict[tuple, float]) -> float:
    return sum(weight * accuracies[cell] for cell, weight in contrast.weights)


def test_two_factors_give_five_families_in_the_order_of_the_question() -> None:
    """Law: averaged and simple effects of both factors, and their interaction, against the reference level."""
    found = families(plan_contrasts(MIXERS))
    assert list(found) == [
        "token mixer, averaged",
        "token mixer at each patch size",
        "patch size, averaged",
        "patch size within each token mixer",
        "token mixer x patch size",
    ]
    assert [len(names) for names in found.values()] == [2, 6, 2, 6, 2]
    assert found["token mixer, averaged"][0] == "attention − depthwise conv, averaged over patch size"
    assert found["patch size within each token mixer"][0] == "patch size 2 − patch size 1, at attention"


def test_names_are_unique_and_weights_add_to_zero() -> None:
    """Law: a name denotes one contrast, and contrasts of equal cells are zero."""
    plan = plan_contrasts({**MIXERS, "depth": [4, 8]})
    assert len({contrast.name for contrast in plan}) == len(plan)
    assert all(sum(weight for _, weight in contrast.weights) == pytest.approx(0) for contrast in plan)


def test_contrasts_of_additive_effects_are_those_effects() -> None:
    """Law: where accuracy = patch + mixer, every mixer contrast is the mixers' difference, and interactions are zero."""
    patch = dict(zip([1, 2, 4], [0.3, 0.1, 0.0], strict=True))
    mixer = dict(zip(MIXERS["token_mixer"], [0.05, 0.02, 0.0], strict=True))
    accuracies = {(p, m): patch[p] + mixer[m] for p, m in itertools.product(patch, mixer)}
    for contrast in plan_contrasts(MIXERS):
        if contrast.subject == "token_mixer":
            assert value(contrast, accuracies) == pytest.approx(mixer[contrast.upper] - 0.02)
        elif contrast.subject == "token_mixer x patch_size":
            assert value(contrast, accuracies) == pytest.approx(0)


def test_backbones_are_compared_with_convmixer_and_numbers_with_their_neighbor() -> None:
    """Law: the reference of words is the registered one or the first level; numbers go step by step."""
    plan = plan_contrasts({"patch_size": [1, 2, 4], "backbone": ["vit", "convmixer", "mlp_mixer"]})
    assert [(c.upper, c.lower) for c in plan[:2]] == [("ViT", "ConvMixer"), ("MLP-Mixer", "ConvMixer")]
    assert [(c.upper, c.lower) for c in plan_contrasts({"schedule": ["cosine", "linear"]})] == [
        ("schedule linear", "schedule cosine")
    ]
    steps = [(c.upper, c.lower) for c in plan_contrasts({"kernel_size": [3, 5, 7]})]
    assert steps == [("kernel size 5", "kernel size 3"), ("kernel size 7", "kernel size 5")]


def test_axes_with_one_level_are_no_factors() -> None:
    """Law: a fixed option changes nothing in the plan."""
    cells = [(p, "metaformer", m) for p, m in itertools.product(MIXERS["patch_size"], MIXERS["token_mixer"])]
    levels = {"patch_size": [1, 2, 4], "backbone": ["metaformer"], "token_mixer": MIXERS["token_mixer"]}
    assert plan_contrasts(levels, cells=cells) == plan_contrasts(MIXERS)
    assert plan_contrasts({"patch_size": [4]}) == []


def test_an_average_runs_over_the_combinations_that_have_both_sides() -> None:
    """Law: a combination that was not planned is excluded from both sides of an average."""
    cells = [cell for cell in itertools.product(*MIXERS.values()) if cell != (4, "attention")]
    plan = {contrast.name: contrast for contrast in plan_contrasts(MIXERS, cells=cells)}
    average = plan["attention − depthwise conv, averaged over patch size"]
    assert {cell for cell, _ in average.weights} == {(p, m) for p in (1, 2) for m in ("attention", "depthwise_conv")}
    assert "attention − depthwise conv, at patch size 4" not in plan
    assert not any("(attention" in name for name in plan)


def test_a_third_factor_is_averaged_over() -> None:
    """Law: equal weights over the levels of the factors that a contrast does not mention."""
    contrast = plan_contrasts({**MIXERS, "depth": [4, 8]})[0]
    assert contrast.where == "averaged over patch size and depth"
    np.testing.assert_allclose(sorted({abs(weight) for _, weight in contrast.weights}), [1 / 6])


def test_options_that_some_levels_lack_are_compared_where_they_exist() -> None:
    """Law: a kernel size belongs to convolutions only; differences between its sizes are planned, and no others."""
    levels = {"patch_size": [1, 2], "token_mixer": ["attention", "depthwise_conv"], "kernel_size": [3, 5, None]}
    cells = [(p, "depthwise_conv", k) for p in (1, 2) for k in (3, 5)] + [(p, "attention", None) for p in (1, 2)]
    names = [c.name for c in plan_contrasts(levels, cells=cells) if c.subject == "kernel_size"]
    assert "kernel size 5 − kernel size 3, at patch size 1, averaged over token mixer" in names
    assert not any("none" in name for name in names)

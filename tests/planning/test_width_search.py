"""Laws of matched budgets: met within the tolerance, found the same way always, refused with the nearest otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.backbones import build_backbone, names, specify
from study.backbones.specification import BackboneSpec
from study.backbones.token_mixers import TOKEN_MIXERS
from study.errors import UserError
from study.planning.traced_cost import count_cost
from study.planning.width import By, named_budget, solve_seconds, solve_width


def template(name: str, *, image_size: int, patch_size: int, depth: int = 4, dim: int = 32) -> BackboneSpec:
    """A backbone whose width is still open."""
    channels = 1 if image_size == 8 else 3
    settings = {
        "image_size": image_size,
        "in_channels": channels,
        "num_classes": 10,
        "patch_size": patch_size,
        "dim": dim,
        "depth": depth,
    }
    return specify(name, settings | ({"kernel_size": 3} if name in ("convmixer", "convnext") else {}))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(names()),
    patch_size=st.sampled_from([1, 2, 4]),
    target=st.integers(20_000, 100_000),
    head_dim=st.sampled_from([8, 16]),
)
def test_digits_budgets_are_met(name: str, patch_size: int, target: int, head_dim: int) -> None:
    """On 8 x 8 images every budget of 20k to 100k parameters is met within 2 %, which the built model confirms."""
    match = solve_width(
        template(name, image_size=8, patch_size=patch_size), by="params", target=target, tolerance=0.02, head_dim=head_dim
    )
    assert abs(match.value - target) <= 0.02 * target
    assert match.residual == (match.value - target) / target
    assert match.value == match.spec.closed_form().params
    assert match.spec.dim % match.spec.width_step(head_dim) == 0


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("patch_size", [1, 2, 4, 8])
def test_cifar_budgets_are_met(name: str, patch_size: int) -> None:
    """On 32 x 32 images 600k parameters are met within 2 %, and fvcore counts what was promised."""
    match = solve_width(
        template(name, image_size=32, patch_size=patch_size, depth=8), by="params", target=600_000, tolerance=0.02, head_dim=32
    )
    assert abs(match.residual) <= 0.02
    if patch_size > 1:
        assert count_cost(build_backbone(match.spec), image_size=32, in_channels=3).params == match.value


@pytest.mark.parametrize("by", ["params", "macs"])
@pytest.mark.parametrize("name", names())
def test_a_models_own_budget_gives_the_model_back(name: str, by: By) -> None:
    """The budget of a naturally proportioned model is solved by that model, without residual."""
    wanted = template(name, image_size=32, patch_size=4).at_width(96, 32)
    match = solve_width(
        template(name, image_size=32, patch_size=4),
        by=by,
        target=getattr(wanted.closed_form(), by),
        tolerance=0.02,
        head_dim=32,
    )
    assert match.spec == wanted
    assert match.residual == 0


@settings(max_examples=40, deadline=None, derandomize=True)
@given(name=st.sampled_from(["vit", "mlp_mixer", "convnext", "metaformer"]), target=st.integers(150_000, 3_000_000))
def test_the_fine_knob_is_as_good_as_any(name: str, target: int) -> None:
    """At the width that was chosen no other integer of the fine knob comes nearer to the target."""
    match = solve_width(
        template(name, image_size=32, patch_size=4, depth=6), by="params", target=target, tolerance=0.02, head_dim=32
    )
    assert match.spec.fine_width_option is not None
    knob = getattr(match.spec, match.spec.fine_width_option)
    for other in (knob - 1, knob + 1):
        assert abs(match.spec.with_fine_width(other).closed_form().params - target) >= abs(match.value - target)


def test_heads_keep_their_width() -> None:
    """A solved ViT has heads of exactly the requested width."""
    for head_dim in (8, 16, 32):
        match = solve_width(
            template("vit", image_size=32, patch_size=4), by="params", target=400_000, tolerance=0.02, head_dim=head_dim
        )
        assert match.spec.model_dump()["heads"] * head_dim == match.spec.dim


def test_what_cannot_be_met_names_the_nearest() -> None:
    """A ViT of eight blocks on 1024 tokens has no 100M-MAC version; the least costly one is named as the nearest."""
    vit = template("vit", image_size=32, patch_size=1, depth=8)
    least = vit.at_width(32, 32).with_fine_width(8)  # one head, and the hidden width a quarter of the width
    assert least.closed_form().macs == 574_718_272 < vit.at_width(64, 32).with_fine_width(16).closed_form().macs
    with pytest.raises(UserError, match=r"no budget of 100,000,000 macs within 2.0%; the nearest is 574,718,272 at width 32"):
        solve_width(vit, by="macs", target=10**8, tolerance=0.02, head_dim=32)


def test_a_mixer_that_cannot_meet_a_budget_is_named() -> None:
    """Six matrices over 1,024 positions have six million parameters, whatever the width."""
    settings = {"image_size": 32, "in_channels": 3, "num_classes": 10, "patch_size": 1, "dim": 32, "depth": 6}
    linear = specify("metaformer", settings | {"token_mixer": "linear"})
    with pytest.raises(
        UserError, match=r"metaformer with linear \(patch size 1, depth 6\) reaches no budget of 600,000 params"
    ):
        solve_width(linear, by="params", target=600_000, tolerance=0.02, head_dim=16)


@pytest.mark.parametrize("patch_size", [1, 2, 4])
@pytest.mark.parametrize("mixer", TOKEN_MIXERS)
def test_every_mixer_meets_a_budget_on_digits(mixer: str, patch_size: int) -> None:
    """30,000 parameters and a million MACs are met within 2 % by all mixers at all patch sizes."""
    settings = {"image_size": 8, "in_channels": 1, "num_classes": 10, "patch_size": patch_size, "dim": 8, "depth": 2}
    start = specify("metaformer", settings | {"token_mixer": mixer, "kernel_size": 3})
    for by, target in (("params", 30_000), ("macs", 1_000_000)):
        match = solve_width(start, by=by, target=target, tolerance=0.02, head_dim=8)
        assert abs(match.residual) <= 0.02 and match.value == getattr(match.spec.closed_form(), by)


def test_the_template_width_does_not_matter() -> None:
    """Solving starts from nothing: templates that differ in their width only give the same match."""
    for name in names():
        first, second = (
            solve_width(
                template(name, image_size=32, patch_size=4, dim=dim), by="macs", target=10**7, tolerance=0.02, head_dim=32
            )
            for dim in (32, 320)
        )
        assert first == second


@pytest.mark.parametrize(
    ("text", "by", "budget"),
    [
        ("convmixer_256_8 k5 p2", "params", 594_186),
        ("convmixer_256_8 k5 p2", "macs", 148_113_920),
        ("convmixer_256_8", "params", 643_338),
        ("convmixer_256_8 kernel_size=9 patch_size=1", "macs", 707_529_216),
        ("vit_tiny_patch16", "macs", 1_253_683_200),
    ],
)
def test_published_variants_name_budgets(text: str, by: By, budget: int) -> None:
    """A variant with options costs what is published for it."""
    assert named_budget(text, by=by) == budget


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("convmixer_256_9", "did you mean 'convmixer_256_8'"),
        ("", "no published variant"),
        ("convmixer_256_8 k", "is written k5, p2 or image_size=64"),
        ("convmixer_256_8 k4", "must be odd"),
        ("convmixer_256_8 q5", "no such setting"),
    ],
)
def test_what_names_no_budget_is_refused(text: str, rule: str) -> None:
    """An unknown variant or option is an error that explains itself."""
    with pytest.raises(UserError, match=rule):
        named_budget(text, by="params")


def test_the_authors_budget_is_met_by_their_model() -> None:
    """ConvMixer matched to the published ConvMixer-256/8 at its own depth, kernel and patch size is that model."""
    spec = specify("convmixer_256_8", {"kernel_size": 5})
    budget = named_budget("convmixer_256_8 k5 p2", by="params")
    assert solve_width(spec, by="params", target=budget, tolerance=0.02, head_dim=32).spec == spec


def test_seconds_are_looked_up_not_guessed() -> None:
    """The measured width nearest to the target is taken; other backbones, patch sizes and head widths don't count."""
    vit = template("vit", image_size=32, patch_size=4)
    measured = {vit.at_width(dim, 32): dim / 1000 for dim in (64, 96, 128)}
    measured[vit.at_width(128, 32).with_fine_width(300)] = 0.11
    measured[vit.at_width(128, 64)] = 0.1
    measured[template("vit", image_size=32, patch_size=2).at_width(96, 32)] = 0.1
    measured[template("mlp_mixer", image_size=32, patch_size=4)] = 0.1
    match = solve_seconds(vit, measured=measured, target=0.1, tolerance=0.05, head_dim=32)
    assert (match.spec, match.value) == (vit.at_width(96, 32), 0.096)
    assert match.residual == pytest.approx(-0.04)
    knob = solve_seconds(vit, measured=measured, target=0.112, tolerance=0.05, head_dim=32)
    assert knob.spec.model_dump()["mlp_dim"] == 300
    with pytest.raises(UserError, match=r"nearest is 0\.064 at width 64"):
        solve_seconds(vit, measured=measured, target=0.05, tolerance=0.05, head_dim=32)
    with pytest.raises(UserError, match=r"no width of convmixer .* has been measured"):
        solve_seconds(
            template("convmixer", image_size=32, patch_size=4), measured=measured, target=1, tolerance=0.1, head_dim=32
        )

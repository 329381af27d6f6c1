"""Laws of the options: what each one changes, what it doesn't change, and which combinations are refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from study.backbones import BACKBONES, build, build_backbone, names, specify
from study.backbones.kernel_size import kernel_in_tokens
from study.backbones.specification import BackboneSpec
from study.backbones.stem import compute_sincos
from study.backbones.token_mixers import TOKEN_MIXERS, RandomMixing
from study.errors import UserError

SMALL = {"image_size": 16, "in_channels": 3, "num_classes": 5, "patch_size": 4, "dim": 32, "depth": 2}
STEMS = ["patchify", "overlap", "conv", "spt", "conv_pool"]


def influence(spec: BackboneSpec) -> Tensor:
    """Which image positions (tokens) the token in the middle of the grid depends on after all blocks: h w, bool."""
    model = build_backbone(spec).double().eval()
    tokens = model.stem(torch.rand(1, 3, spec.image_size, spec.image_size, dtype=torch.double)).detach().requires_grad_()
    mixed = model.blocks(tokens)
    middle = (spec.grid // 2) * spec.grid + spec.grid // 2
    last = mixed.flatten(2)[0, :, middle] if mixed.ndim == 4 else mixed[0, middle]
    (last * torch.randn(spec.dim, dtype=torch.double)).sum().backward()
    gradient = tokens.grad if mixed.ndim == 4 else tokens.grad.transpose(1, 2).reshape(1, -1, spec.grid, spec.grid)
    return gradient[0].abs().amax(dim=0) > 0


EVERYWHERE = ("attention", "relative_attention", "mlp", "linear", "gating", "fourier", "global_filter", "random")
REACH = {mixer: 8 if mixer in EVERYWHERE else 2 for mixer in TOKEN_MIXERS} | {"identity": 0}


@pytest.mark.parametrize("mixer", TOKEN_MIXERS)
def test_mixers_reach_as_far_as_documented(mixer: str) -> None:
    """One block propagates information to all tokens, as far as its kernel reaches, or to none (patches only)."""
    settings = {"image_size": 9, "patch_size": 1, "depth": 1, "kernel_size": 5, "token_mixer": mixer}
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    distance = torch.maximum((rows - 4).abs(), (columns - 4).abs())
    assert torch.equal(influence(specify("metaformer", SMALL | settings)), distance <= REACH[mixer])


@pytest.mark.parametrize("name", ["convmixer", "convnext"])
def test_convolutions_reach_half_a_kernel(name: str) -> None:
    """Two blocks of kernel 3 propagate information over two tokens."""
    spec = specify(name, SMALL | {"image_size": 9, "patch_size": 1, "kernel_size": 3})
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    assert torch.equal(influence(spec), torch.maximum((rows - 4).abs(), (columns - 4).abs()) <= 2)


@pytest.mark.parametrize("mixer", TOKEN_MIXERS)
def test_mixers_differ_in_nothing_else(mixer: str) -> None:
    """All weights outside the mixer equal those with any other mixer, bit for bit."""
    attention, other = (build("metaformer", **SMALL, token_mixer=name).state_dict() for name in ("attention", mixer))
    shared = {name for name in attention if ".token_mixing.mixer." not in name}
    assert shared == {name for name in other if ".token_mixing.mixer." not in name}
    assert all(torch.equal(attention[name], other[name]) for name in shared)


def test_options_of_other_mixers_are_none() -> None:
    """An option that the chosen mixer does not have is None, so that equal runs have equal identities."""
    asked = SMALL | {"kernel_size": 3, "heads": 2, "token_dim": 7}
    kept = {name: specify("metaformer", asked | {"token_mixer": name}).model_dump() for name in TOKEN_MIXERS}
    options = ("kernel_size", "heads", "token_dim")
    assert {name: tuple(dump[option] for option in options) for name, dump in kept.items()} == {
        "attention": (None, 2, None),
        "relative_attention": (None, 2, None),
        "local_attention": (3, 2, None),
        "depthwise_conv": (3, None, None),
        "grouped_conv": (3, 2, None),
        "conv": (3, None, None),
        "mlp": (None, None, 7),
        "pooling": (3, None, None),
        **dict.fromkeys(["linear", "gating", "fourier", "global_filter", "identity", "random"], (None, None, None)),
    }
    hybrid = specify("metaformer", asked | {"token_mixer": ["conv", "mlp"]}).model_dump()
    assert tuple(hybrid[option] for option in options) == (3, None, 7)
    assert specify("metaformer", asked) == specify("metaformer", asked | {"kernel_size": 7, "token_dim": 5})


def test_random_mixing_averages_and_never_trains() -> None:
    """The rows of the random matrix are positive and sum to one, differ between blocks, and get no gradient."""
    model = build("metaformer", **SMALL, token_mixer="random")
    first, second = (module.mixing for module in model.modules() if isinstance(module, RandomMixing))
    assert torch.allclose(first.sum(dim=1), torch.ones(16))
    assert (first > 0).all()
    assert not torch.equal(first, second)
    model(torch.rand(2, 3, 16, 16)).sum().backward()
    assert first.grad is None
    assert not first.requires_grad


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("patch_size", [2, 4, 8])
@pytest.mark.parametrize("name", names())
def test_stems_make_equally_many_tokens(name: str, patch_size: int, stem: str) -> None:
    """Every stem gives the grid of image_size / patch_size, at the same width."""
    settings = SMALL | {"patch_size": patch_size, "stem": stem}
    spec = specify(name, settings | ({"kernel_size": 3} if "conv" in name else {}))
    grid = build_backbone(spec).stem.patch_embedding(torch.rand(2, 3, 16, 16))
    assert grid.shape == (2, 32, 16 // patch_size, 16 // patch_size)


@pytest.mark.parametrize("stem", STEMS)
def test_stems_have_their_receptive_fields(stem: str) -> None:
    """A token depends on its patch alone, on a window of 2p - 1 or 2p pixels around it, or on the stack's receptive field.

    Of what max-pooling sees, only the maxima have an influence.
    """
    model = build("vit", **(SMALL | {"image_size": 32}), stem=stem).eval()
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    model.stem.patch_embedding(image)[0, :, 4, 4].abs().sum().backward()
    seen = (image.grad[0].abs().amax(dim=0) > 0).nonzero()
    windows = {"patchify": (16, 19), "overlap": (13, 19), "conv": (13, 19), "spt": (14, 21), "conv_pool": (10, 22)}
    first, last = windows[stem]
    if stem == "conv_pool":
        assert first <= seen.min().item() <= 13 and 19 <= seen.max().item() <= last
    else:
        assert (seen.min().item(), seen.max().item()) == (first, last)


@settings(deadline=None)
@given(half=st.integers(1, 40), patch_size=st.integers(1, 16))
def test_pixel_kernels_reach_half_their_span(half: int, patch_size: int) -> None:
    """A kernel of 2r pixels reaches the last token that is wholly within r pixels to each side."""
    kernel = kernel_in_tokens(2 * half, patch_size)
    reach = (kernel - 1) // 2
    assert reach * patch_size <= half < (reach + 1) * patch_size


def test_pixel_kernels_resolve_to_tokens() -> None:
    """The same span in pixels is fewer tokens at larger patches, and a dump with both is accepted again."""
    sizes = {}
    for patch_size in (1, 2, 4):
        spec = specify("convmixer", SMALL | {"image_size": 32, "patch_size": patch_size, "kernel_pixels": 8})
        sizes[patch_size] = spec.model_dump()["kernel_size"]
        assert spec.with_options({}) == spec
    assert sizes == {1: 9, 2: 5, 4: 3}


def test_sincos_positions_are_those_of_the_reference() -> None:
    """Sines and cosines of both axes, computed element by element from the reference's formula."""
    table, d = compute_sincos(3, 16), 16
    for y in range(3):
        for x in range(3):
            for k in range(d // 4):
                frequency = 1 / 10_000 ** (k / (d // 4 - 1))
                angles = torch.tensor([x * frequency, x * frequency, y * frequency, y * frequency])
                expected = torch.stack([angles[0].sin(), angles[1].cos(), angles[2].sin(), angles[3].cos()])
                torch.testing.assert_close(table[3 * y + x, k :: d // 4], expected)


@pytest.mark.parametrize("name", names())
def test_without_positions_shuffled_patches_are_the_same_image(name: str) -> None:
    """Without positions a backbone with a global mixer is invariant to the order of patches; with them it is not."""
    if name != "vit" and name != "metaformer":
        return
    image = torch.rand(1, 3, 16, 16)
    mirrored = image.unflatten(3, (4, 4)).flip(3).flatten(3)
    for position_embedding, same in [("none", True), ("learned", False), ("sincos", False)]:
        model = build(name, **SMALL, position_embedding=position_embedding)
        assert torch.allclose(model(image), model(mirrored), atol=1e-5) == same


@pytest.mark.parametrize("residual", ["depthwise", "pointwise", "both", "none"])
def test_convmixer_residuals_are_where_the_option_says(residual: str) -> None:
    """With zero convolutions and initial norms a layer returns its input where it has a residual, otherwise zero."""
    model = build("convmixer", **SMALL, residual=residual).eval()
    with torch.no_grad():
        for name, parameter in model.blocks.named_parameters():
            if "convolution" in name:
                parameter.zero_()
    grid = torch.rand(1, 32, 4, 4)
    first = model.blocks[0]
    assert torch.equal(first.token_mixing(grid), grid) == (residual in ("depthwise", "both"))
    assert torch.equal(first.channel_mixing(grid), grid) == (residual in ("pointwise", "both"))


@pytest.mark.parametrize("name", names())
def test_only_batch_norm_depends_on_the_batch(name: str) -> None:
    """In training an image's logits depend on the other images of the batch under batch norm only."""
    images = torch.rand(4, 3, 16, 16)
    for norm, alone in [("layer", True), ("batch", False)]:
        model = build(name, **SMALL, norm=norm)
        assert (model.spec.norm == "batch") is not alone
        assert torch.allclose(model(images)[:2], model(images[:2]), atol=1e-5) == alone


@pytest.mark.parametrize("name", names())
def test_every_option_is_neutral_at_its_default(name: str) -> None:
    """An option that was added later has its default as neutral value, so that runs without it keep their identity."""
    spec = specify(name, SMALL)
    for option, field in type(spec).model_fields.items():
        if isinstance(field.json_schema_extra, dict):
            assert field.json_schema_extra["neutral"] == field.default == getattr(spec, option), option


REFUSED = [
    ("convmixer", {"pooling": "class_token"}, "pooling", "a depthwise convolution mixes grid positions only"),
    ("convnext", {"pooling": "class_token"}, "pooling", "a depthwise convolution mixes grid positions only"),
    ("metaformer", {"pooling": "class_token", "token_mixer": "identity"}, "token_mixer", "identity mixes grid positions"),
    ("metaformer", {"pooling": "class_token", "token_mixer": "pooling"}, "token_mixer", "pooling mixes grid positions"),
    ("metaformer", {"token_mixer": "depthwise_conv", "kernel_size": 9}, "kernel_size", "twice the token grid"),
    ("metaformer", {"token_mixer": "attention", "heads": 3}, "heads", "must divide dim"),
    ("metaformer", {"initialization": "paper"}, "initialization", "no published model"),
    ("metaformer", {"token_mixer": "atention"}, "token_mixer", "'attention'"),
    ("convmixer", {"kernel_pixels": 6}, "kernel_pixels", "at least 8 to reach a neighbor at patch_size 4"),
    ("convmixer", {"kernel_pixels": 8, "kernel_size": 5}, "kernel_size", "implies 3 tokens"),
    ("vit", {"stem": "overlap", "patch_size": 1}, "stem", "no larger than a patch"),
    ("vit", {"stem": "conv", "image_size": 15, "patch_size": 3}, "stem", "must be 2, 4, 8"),
    ("vit", {"stem": "spt", "patch_size": 1}, "stem", "no"),
    ("vit", {"stem": "conv_pool", "image_size": 15, "patch_size": 3}, "stem", "must be 2, 4, 8"),
    ("vit", {"position_embedding": "rope", "heads": 16}, "heads", "divisible by 4"),
    ("vit", {"registers": -1}, "registers", "greater than or equal to 0"),
    ("vit", {"layer_scale": 0.0}, "layer_scale", "greater than 0"),
    ("convmixer", {"position_embedding": "rope"}, "position_embedding", "which convmixer hasn't: learned, sincos, none"),
    ("mlp_mixer", {"position_embedding": "relative"}, "position_embedding", "act on queries and keys"),
    ("metaformer", {"position_embedding": "relative"}, "position_embedding", "token_mixer: relative_attention"),
    ("metaformer", {"position_embedding": "rope", "token_mixer": "conv"}, "token_mixer", "which conv hasn't"),
    ("metaformer", {"registers": 1, "token_mixer": "local_attention"}, "token_mixer", "local_attention mixes grid positions"),
    ("convmixer", {"layer_scale": 1e-4, "residual": "none"}, "residual", "depthwise, pointwise, both"),
    ("vit", {"position_embedding": "sincos", "dim": 30, "heads": 1}, "position_embedding", "divisible by 4"),
]


@pytest.mark.parametrize(("name", "settings", "key", "rule"), REFUSED)
def test_impossible_combinations_are_refused(name: str, settings: dict[str, object], key: str, rule: str) -> None:
    """The error gives the reason, at the option that causes it."""
    with pytest.raises(UserError) as refusal:
        specify(name, SMALL | settings)
    assert [problem.key for problem in refusal.value.problems] == [key]
    assert rule in refusal.value.problems[0].rule


def test_published_variants_keep_their_papers_initialization() -> None:
    """Every variant names it, every paper's rule covers every parameter, and heads are zero where documented."""
    for entry in BACKBONES.values():
        for variant in entry.variants:
            small = {"image_size": 32, "patch_size": 4, "dim": 64, "depth": 1, "num_classes": 10}
            spec = specify(variant, small | ({"heads": 2} if entry.specification.backbone == "vit" else {}))
            assert spec.initialization == "paper"
            assert build_backbone(spec).head.classifier.weight.any() == (spec.backbone in ("convmixer", "convnext"))


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("name", [name for name in names() if name != "metaformer"])
def test_papers_initialize_norms_to_the_identity(name: str, norm: str) -> None:
    """Also in parts that a paper doesn't have, its initialization gives norms scale one and shift zero."""
    settings = SMALL | {"initialization": "paper", "stem": "conv", "position_embedding": "learned", "norm": norm}
    model = build(name, **settings)
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm | nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) > 2
    assert all((module.weight == 1).all() and not module.bias.any() for module in norms)
    assert model.get_parameter("stem.positions.inner.table" if "conv" in name else "stem.positions.table").any()


def test_convmixers_paper_initialization_is_torchs() -> None:
    """Every weight and bias of ConvMixer has the bound and the spread that torch's own default has."""
    spec = specify("convmixer", SMALL | {"initialization": "paper", "dim": 128})
    ours, torchs = build_backbone(spec).state_dict(), BACKBONES["convmixer"].construct(spec).state_dict()
    for name, theirs in torchs.items():
        if theirs.numel() > 100 and theirs.is_floating_point():
            torch.testing.assert_close(ours[name].std(), theirs.std(), rtol=0.2, atol=1e-6)
            torch.testing.assert_close(ours[name].abs().max(), theirs.abs().max(), rtol=0.1, atol=1e-6)

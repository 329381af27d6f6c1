"""Options of bodies compute what their papers say: timm's models, or the formula written out, are the oracle."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
from timm.layers import RmsNorm, SwiGLU
from timm.models.eva import Eva
from timm.models.mlp_mixer import MlpMixer, ResBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from study.backbones import build, build_backbone, names, specify
from study.backbones.base import PreNormResidual
from study.backbones.weight_files import convert_from_timm

SMALL = {"image_size": 8, "in_channels": 3, "num_classes": 5, "patch_size": 2, "dim": 32, "depth": 2}

VITS = {  # our options: timm's
    "registers": ({"registers": 3}, {"reg_tokens": 3}),
    "layer scale": ({"layer_scale": 1e-4}, {"init_values": 1e-4}),
    "normed queries and keys": ({"qk_norm": True}, {"qk_norm": True}),
    "RMS norm": ({"norm": "rms"}, {"norm_layer": RmsNorm}),
    "SwiGLU": ({"channel_mixer": "swiglu"}, {"mlp_layer": SwiGLU, "act_layer": nn.SiLU}),
    "no biases": ({"bias": False}, {"qkv_bias": False, "proj_bias": False}),
}
VITS["all of them"] = tuple({key: value for each in VITS.values() for key, value in each[side].items()} for side in (0, 1))


def assert_same_function(ours: nn.Module, theirs: nn.Module, rename: dict[str, str] | None) -> None:
    """With the same random weights logits agree, and the gradients of a loss by every weight."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in theirs.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))

    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        if rename is None:
            return convert_from_timm(state, "vit")
        renamed = {}
        for name, tensor in state.items():
            for theirs_part, own in rename.items():
                name = re.sub(rf"\b{theirs_part}\b", own, name)
            renamed[re.sub("^norm", "head.norm", re.sub("^head", "head.classifier", name))] = tensor
        return renamed

    ours, theirs = ours.double().eval(), theirs.double().eval()
    ours.load_state_dict(convert(theirs.state_dict()))
    images = torch.randn(2, 3, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    logits = [model(images) for model in (ours, theirs)]
    torch.testing.assert_close(*logits)
    for each in logits:
        functional.cross_entropy(each, torch.tensor([3, 1])).backward()
    gradients = convert({name: parameter.grad for name, parameter in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])


@pytest.mark.parametrize("pooling", ["mean", "class_token"])
@pytest.mark.parametrize("case", VITS)
def test_a_vit_with_its_options_is_timms(case: str, pooling: str) -> None:
    """Logits and gradients are those of timm's vision transformer with the same options."""
    own, timms = VITS[case]
    mean = {"global_pool": "avg", "class_token": False, "fc_norm": False} if pooling == "mean" else {}
    settings = {"img_size": 8, "patch_size": 2, "num_classes": 5, "embed_dim": 32, "depth": 2, "num_heads": 4}
    theirs = VisionTransformer(**settings, **mean, **timms)
    assert_same_function(build("vit", **SMALL, heads=4, pooling=pooling, **own), theirs, None)


@pytest.mark.parametrize("pooling", ["mean", "class_token"])
@pytest.mark.parametrize("position_embedding", ["rope", "learned_rope"])
def test_a_vit_with_rotary_positions_is_timms(position_embedding: str, pooling: str) -> None:
    """Logits and gradients are those of timm's EVA-02 without what else is special in it."""
    theirs = Eva(
        img_size=8,
        patch_size=2,
        num_classes=5,
        embed_dim=32,
        depth=2,
        num_heads=4,
        attn_type="rope",
        use_abs_pos_emb=position_embedding == "learned_rope",
        use_rot_pos_emb=True,
        rope_temperature=100.0,
        class_token=pooling == "class_token",
        global_pool="token" if pooling == "class_token" else "avg",
        use_fc_norm=False,
        use_post_transformer_norm=True,
    )
    ours = build("vit", **SMALL, heads=4, pooling=pooling, position_embedding=position_embedding)
    assert_same_function(ours, theirs, None)


def test_a_linear_mixer_with_layer_scale_is_resmlp() -> None:
    """With LayerNorm for its affine norm, timm's ResMLP is this body without positions."""
    theirs = MlpMixer(5, 8, 3, 2, 2, 32, mlp_ratio=4, block_layer=ResBlock, norm_layer=partial(nn.LayerNorm, eps=1e-6))
    ours = build("metaformer", **SMALL, token_mixer="linear", layer_scale=1e-4, position_embedding="none")
    names_of = {
        "stem.proj": "stem.patch_embedding.projection",
        "norm1": "token_mixing.norm",
        "norm2": "channel_mixing.norm",
        "linear_tokens": "token_mixing.mixer.linear",
        "mlp_channels.fc1": "channel_mixing.mixer.expand",
        "mlp_channels.fc2": "channel_mixing.mixer.reduce",
        "ls1": "token_mixing.layer_scale",
        "ls2": "channel_mixing.layer_scale",
    }
    assert_same_function(ours, theirs, names_of)


def test_rotary_positions_depend_on_offsets_alone() -> None:
    """The agreement of a query and a key is the same wherever on the grid they stand at the same offset."""
    mixer = build("vit", **SMALL, heads=4, position_embedding="rope").blocks[0].token_mixing.mixer
    q, k = (torch.randn(1, 4, 1, 8).expand(-1, -1, 16, -1) for _ in range(2))
    scores = (mixer.rotary(q) @ mixer.rotary(k).transpose(2, 3)).unflatten(3, (4, 4)).unflatten(2, (4, 4))
    torch.testing.assert_close(scores[:, :, :-1, :-1, :-1, :-1], scores[:, :, 1:, 1:, 1:, 1:])


def test_relative_positions_of_a_vit_are_the_mixers() -> None:
    """A ViT with relative positions is the metaformer with relative attention and no other positions."""
    vit = build("vit", **SMALL, heads=4, position_embedding="relative")
    metaformer = build("metaformer", **SMALL, heads=4, position_embedding="none", token_mixer="relative_attention")
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(vit(images), metaformer(images))


@pytest.mark.parametrize("patch_size", [2, 4])
def test_shifted_patches_are_those_of_their_authors(patch_size: int) -> None:
    """Their code: the image and its shifts by half a patch to four corners, each patch as one vector, normed and projected."""
    stem = build("vit", **SMALL | {"patch_size": patch_size}, stem="spt").stem.patch_embedding
    images, half = torch.rand(2, 3, 8, 8), patch_size // 2
    padded = functional.pad(images, [half] * 4)
    far = 2 * half
    shifts = [padded[..., :-far, :-far], padded[..., :-far, far:], padded[..., far:, :-far], padded[..., far:, far:]]
    stacked = torch.cat([images, *shifts], dim=1)
    for row in range(8 // patch_size):
        for column in range(8 // patch_size):
            rows, columns = (slice(at * patch_size, (at + 1) * patch_size) for at in (row, column))
            vector = stacked[:, :, rows, columns].flatten(1)
            expected = stem.projection(functional.layer_norm(vector, vector.shape[1:], eps=1e-6))
            torch.testing.assert_close(stem(images)[:, :, row, column], expected)


def test_a_pooled_convolution_halves_the_image() -> None:
    """CCT's tokenizer: convolution, activation, max-pooling, once for each halving."""
    stem = build("vit", **SMALL | {"patch_size": 4}, stem="conv_pool").stem.patch_embedding
    grid = torch.rand(2, 3, 8, 8)
    for weight in stem.parameters():
        grid = functional.max_pool2d(functional.conv2d(grid, weight, padding=1).relu(), 3, stride=2, padding=1)
    relu = build("vit", **SMALL | {"patch_size": 4}, stem="conv_pool", activation="relu").stem.patch_embedding
    assert grid.shape == (2, 32, 2, 2)
    torch.manual_seed(0)
    images = torch.rand(2, 3, 8, 8)
    expected = images
    for weight in relu.parameters():
        expected = functional.max_pool2d(functional.conv2d(expected, weight, padding=1).relu(), 3, stride=2, padding=1)
    torch.testing.assert_close(relu(images), expected)


@pytest.mark.parametrize("name", names())
def test_attention_pooling_is_a_weighted_mean(name: str) -> None:
    """The head reads a mean of the image's tokens with softmax weights; with equal scores it is the mean."""
    model = build(name, **SMALL, pooling="attention").eval()
    plain = build(name, **SMALL).eval()
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        model.head.pool.score.weight.zero_()
    torch.testing.assert_close(model(images), plain(images))
    tokens = torch.randn(2, 7, 32)
    with torch.no_grad():
        model.head.pool.score.weight.normal_()
        weights = (tokens @ model.head.pool.score.weight[0]).exp()
    expected = (weights[:, :, None] * tokens).sum(dim=1) / weights.sum(dim=1, keepdim=True)
    torch.testing.assert_close(model.head.pool(tokens), expected)


@pytest.mark.parametrize("initialization", ["matched", "paper"])
@pytest.mark.parametrize("name", names())
def test_branches_begin_at_their_layer_scale(name: str, initialization: str) -> None:
    """A residual adds its branch times the initial factor, whatever draws the other weights; one factor per branch."""
    if name == "metaformer" and initialization == "paper":
        return
    settings = SMALL | {"initialization": initialization}
    factors = {n: p for n, p in build(name, **settings, layer_scale=0.25).named_parameters() if n.endswith("layer_scale")}
    assert len(factors) == 2 * (2 if name not in ("convmixer", "convnext") else 1)
    assert all((factor == 0.25).all() for factor in factors.values())
    others = [p for n, p in build(name, **settings).named_parameters() if n.endswith("layer_scale")]
    assert all((factor == 1e-6).all() for factor in others) and bool(others) == (name == "convnext")


def test_a_scaled_branch_is_multiplied() -> None:
    """The pre-norm residual is x + factor * mixer(norm(x))."""
    residual = PreNormResidual(specify("vit", SMALL | {"layer_scale": 0.5}), nn.Linear(32, 32))
    with torch.no_grad():
        residual.layer_scale.normal_()
    tokens = torch.randn(2, 3, 32)
    expected = tokens + residual.layer_scale * residual.mixer(residual.norm(tokens))
    torch.testing.assert_close(residual(tokens), expected)


@pytest.mark.parametrize("name", ["vit", "mlp_mixer", "metaformer"])
def test_bodies_without_biases_have_them_in_norms_and_ends_alone(name: str) -> None:
    """No linear layer or convolution of a block has a bias; norms, stem and head keep theirs."""
    model = build(name, **SMALL, bias=False)
    assert all(module.bias is None for module in model.blocks.modules() if isinstance(module, nn.Linear | nn.Conv2d))
    assert model.stem.patch_embedding.projection.bias is not None and model.head.classifier.bias is not None
    assert all(module.bias is not None for module in model.modules() if isinstance(module, nn.LayerNorm))


@pytest.mark.parametrize("name", ["vit", "mlp_mixer"])
def test_registers_take_part_but_are_not_read(name: str) -> None:
    """Each register changes the logits through the blocks; without blocks that mix it has no effect on the mean."""
    model, images = build(name, **SMALL, registers=2), torch.rand(1, 3, 8, 8)
    before = model(images)
    with torch.no_grad():
        model.stem.registers += torch.randn(1, 2, 32)
    assert not torch.allclose(model(images), before)
    tokens = torch.randn(1, 18, 32)
    changed = tokens.clone()
    changed[:, :2] += 1
    assert torch.equal(model.head(tokens), model.head(changed))


def test_options_that_a_mixer_lacks_change_no_identity() -> None:
    """Normed queries and keys are an option of attention: with another mixer the specification is the same."""
    settings = SMALL | {"token_mixer": "conv", "kernel_size": 3}
    assert specify("metaformer", settings | {"qk_norm": True}) == specify("metaformer", settings)
    assert build_backbone(specify("metaformer", SMALL | {"qk_norm": True})).blocks[0].token_mixing.mixer.q_norm is not None


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_rms_norms_compute_in_float32_under_autocast(name: str) -> None:
    """In bf16 they return float32, without a warning of torch, and the logits are near those of float32."""
    own = {"kernel_size": 3} if name == "convnext" else {}
    model, images = build(name, **SMALL, norm="rms", **own), torch.rand(2, 3, 8, 8)
    expected = model(images)
    seen = []
    for module in model.modules():
        if isinstance(module, nn.RMSNorm):
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(images).float(), expected, rtol=0, atol=0.1)
    assert set(seen) == {torch.float32}

"""The backbones are the published ones: with timm's weights they compute the same as timm."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models.convmixer import ConvMixer
from timm.models.convnext import ConvNeXtBlock
from timm.models.metaformer import Pooling as TimmPooling
from timm.models.mlp_mixer import MlpMixer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from study.backbones import BACKBONES, build_backbone, specify, variants
from study.backbones.specification import BackboneSpec
from study.backbones.token_mixers import NeighborhoodPooling
from study.backbones.weight_files import convert_from_timm, make_meta_state
from study.backbones.weight_files import convert_to_timm as to_timm
from study.errors import UserError
from study.planning.traced_cost import count_cost

PUBLISHED = {  # parameters and MACs, from the papers' tables recounted with timm
    "convmixer_1536_20": (51_625_960, 51_099_168_768),
    "convmixer_768_32": (21_110_248, 20_676_851_712),
    "convmixer_1024_20_ks9_p14": (24_383_464, 5_948_547_072),
    "vit_tiny_patch16": (5_717_416, 1_253_683_200),
    "vit_base_patch16": (86_567_656, 17_563_828_224),
    "mixer_b16": (59_880_472, 12_601_767_936),
    "convnext_isotropic_small": (22_315_624, 4_286_367_744),
    "convmixer_256_8": (643_338, 160_696_832),
}

SMALL = {"image_size": 8, "in_channels": 3, "num_classes": 5, "patch_size": 2, "dim": 32, "depth": 2}
WITHOUT_NAME_IN_TIMM = {"vit_tiny_patch32", "convmixer_256_8"}
NAMED_IN_TIMM = [name for name in variants() if not name.startswith("convnext") and name not in WITHOUT_NAME_IN_TIMM]
CASES: list[tuple[str, dict[str, int | str]]] = [  # depth and image reduced where 224 pixels would be slow
    ("convmixer_768_32", {"depth": 2, "image_size": 112}),
    ("convmixer_1536_20", {"depth": 1, "image_size": 112}),
    ("convmixer_1024_20_ks9_p14", {"depth": 2}),
    ("vit_tiny_patch16", {}),
    ("vit_small_patch16", {"depth": 4}),
    ("vit_base_patch16", {"depth": 2}),
    ("vit_tiny_patch32", {}),
    ("vit_small_patch32", {}),
    ("vit_base_patch32", {"depth": 2}),
    ("vit_tiny_patch16", {"pooling": "mean"}),
    ("vit_small_patch32", {"pooling": "mean"}),
    ("vit_base_patch32", {"pooling": "mean", "depth": 1}),
    ("mixer_s32", {}),
    ("mixer_b16", {"depth": 2}),
]


def build_timm(spec: BackboneSpec) -> nn.Module:
    """timm's model of a specification; its average pooling as in timm's published vit_*_gap models."""
    options = spec.model_dump()
    shared = {"in_chans": spec.in_channels, "num_classes": spec.num_classes, "patch_size": spec.patch_size}
    if spec.backbone == "convmixer":
        act = {"gelu": nn.GELU, "relu": nn.ReLU}[spec.activation]
        return ConvMixer(spec.dim, spec.depth, kernel_size=options["kernel_size"], act_layer=act, **shared)
    shared |= {"img_size": spec.image_size, "embed_dim": spec.dim}
    if spec.backbone == "mlp_mixer":
        return MlpMixer(num_blocks=spec.depth, **shared)
    mean = {"global_pool": "avg", "class_token": False, "fc_norm": False} if spec.pooling == "mean" else {}
    return VisionTransformer(depth=spec.depth, num_heads=options["heads"], **shared, **mean)


def build_pair(spec: BackboneSpec) -> tuple[nn.Module, nn.Module]:
    """Our model and timm's, with timm's weights, whose constant ones (zero, one) get noise so that swaps are detected."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs, ours = build_timm(spec), build_backbone(spec)
        with torch.no_grad():
            for tensor in theirs.state_dict().values():
                if tensor.is_floating_point() and tensor.std(correction=0) < 1e-3:
                    tensor += 0.1 * torch.rand_like(tensor)
    ours.load_state_dict(convert_from_timm(theirs.state_dict(), spec.backbone))
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize(("variant", "changes"), CASES)
def test_outputs_and_gradients_are_timms(variant: str, changes: dict[str, int | str]) -> None:
    """Logits agree to 1e-5 and the gradients of a loss to 1e-4, relative to the largest, in fp32 evaluation mode."""
    ours, theirs = build_pair(specify(variant, changes))
    images = torch.randn(2, 3, ours.spec.image_size, ours.spec.image_size, generator=torch.Generator().manual_seed(1))
    logits = {}
    for model in (ours, theirs):
        logits[model] = model(images)
        functional.cross_entropy(logits[model], torch.tensor([3, 141])).backward()
    assert_close(logits[ours], logits[theirs], tolerance=1e-5)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    mapped = convert_from_timm(gradients, ours.spec.backbone)
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, mapped[name], tolerance=1e-4)


def assert_close(ours: Tensor, theirs: Tensor, *, tolerance: float) -> None:
    """No element differs by more than `tolerance` times the largest (or times one, where all are small)."""
    scale = max(1.0, theirs.abs().max().item())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("variant", PUBLISHED)
def test_published_sizes(variant: str) -> None:
    """Parameters and MACs of the published variants, to the last digit."""
    cost = specify(variant, {}).closed_form()
    assert (cost.params, cost.macs) == PUBLISHED[variant]


@pytest.mark.parametrize("variant", PUBLISHED)
def test_published_sizes_are_counted(variant: str) -> None:
    """fvcore counts the published numbers in the models themselves, at full size."""
    spec = specify(variant, {})
    model = BACKBONES[spec.backbone].construct(spec)
    cost = count_cost(model, image_size=spec.image_size, in_channels=3)
    assert (cost.params, cost.macs) == PUBLISHED[variant]


@pytest.mark.parametrize("variant", NAMED_IN_TIMM)
def test_variants_have_timms_shapes(variant: str) -> None:
    """Every published variant has exactly the tensors, names and shapes of timm's model of that name."""
    with torch.device("meta"):
        theirs = timm.create_model(variant if "conv" in variant else f"{variant}_224", num_classes=1000).state_dict()
    spec = specify(variant, {})
    ours = to_timm(make_meta_state(spec), spec.backbone)
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: t.shape for name, t in theirs.items()}


@pytest.mark.parametrize("backbone", ["convmixer", "vit", "mlp_mixer"])
def test_names_round_trip(backbone: str) -> None:
    """convert_from_timm inverts to_timm, and raises for a name without a counterpart."""
    state = make_meta_state(specify(backbone, SMALL | {"depth": 11}))
    back = convert_from_timm(to_timm(state, backbone), backbone)
    assert list(back) == list(state)
    assert all(back[name] is state[name] for name in state)
    with pytest.raises(UserError, match=r"fc_norm\.weight"):
        convert_from_timm({"fc_norm.weight": torch.zeros(2)}, backbone)


def test_convnext_block_is_timms() -> None:
    """One block computes the same as timm's ConvNeXt block; the isotropic models are stacks of it."""
    spec = specify("convnext", SMALL | {"image_size": 24, "kernel_size": 7})
    ours, theirs = build_backbone(spec).blocks[0], ConvNeXtBlock(32, kernel_size=7, ls_init_value=1.0)
    names = {
        "token_mixing.convolution": "conv_dw",
        "token_mixing.norm": "norm",
        "channel_mixing.mlp.expand": "mlp.fc1",
        "channel_mixing.mlp.reduce": "mlp.fc2",
    }
    state = {"channel_mixing.layer_scale": theirs.gamma}
    for ours_name, theirs_name in names.items():
        for leaf, tensor in theirs.get_submodule(theirs_name).named_parameters():
            state[f"{ours_name}.{leaf}"] = tensor
    ours.load_state_dict(state)
    grid = torch.randn(2, 32, 12, 12)
    torch.testing.assert_close(ours(grid), theirs(grid), rtol=0, atol=1e-5)


def test_pooling_is_poolformers() -> None:
    """The pooling mixer equals timm's, which is the authors'."""
    grid = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(NeighborhoodPooling(3)(grid), TimmPooling(pool_size=3)(grid))


@pytest.mark.parametrize("pooling", ["mean", "class_token"])
def test_metaformer_with_attention_is_vit(pooling: str) -> None:
    """MetaFormer with attention has ViT's weights, bit for bit, and computes the same."""
    settings = SMALL | {"heads": 4, "pooling": pooling}
    vit, metaformer = (build_backbone(specify(name, settings)) for name in ("vit", "metaformer"))
    assert vit.state_dict().keys() == metaformer.state_dict().keys()
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(vit(images), metaformer(images))


def test_metaformer_with_mlp_is_mlp_mixer() -> None:
    """MetaFormer with a token MLP and without positions computes the same as MLP-Mixer."""
    mixer = build_backbone(specify("mlp_mixer", SMALL))
    metaformer = build_backbone(specify("metaformer", SMALL | {"token_mixer": "mlp", "position_embedding": "none"}))
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(mixer(images), metaformer(images))

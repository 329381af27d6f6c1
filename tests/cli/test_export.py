"""Exported weights are what timm makes of them: its own model from the folder is the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from study.backbones import build_backbone, specify
from study.backbones.weight_files import load_weights, read_weights_file
from study.config.options import AugmentOptions, ResolvedData, TrainOptions
from study.config.run import Run
from study.data.dataset_info import DatasetInfo
from study.data.torchvision_schema import declare_missing_operators
from study.export import FILES, main
from study.training.saved_weights import save_weights

declare_missing_operators()
import timm  # noqa: E402 (imports torchvision, whose operators have to be declared first)
from timm.models.convmixer import ConvMixer  # noqa: E402
from timm.models.mlp_mixer import MlpMixer  # noqa: E402

SIZES = {"image_size": 8, "train_images": 52, "val_images": 18, "test_images": 24}
FACTS = DatasetInfo(name="toy", digest="toy", channels=3, class_names=tuple("abcdef"), mean=(0.3,) * 3, std=(0.2,) * 3, **SIZES)
SMALL = {"image_size": 8, "in_channels": 3, "num_classes": 6, "patch_size": 2, "dim": 32, "depth": 2}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("convmixer", {"kernel_size": 3}),
    ("convmixer", {"kernel_size": 5, "activation": "relu"}),
    ("mlp_mixer", {}),
    ("vit", {"position_embedding": "learned"}),
    ("vit", {"pooling": "class_token", "heads": 4, "mlp_dim": 48, "layer_scale": 0.1, "qk_norm": True, "registers": 2}),
]


def keep(path: Path, backbone: str, options: dict[str, Any], **data: Any) -> Run:
    """Weights as `train.keep: last` leaves them, with constant ones moved so that swaps are seen."""
    resolved = ResolvedData(name="folder", digest="toy", num_classes=6, channels=3, **SIZES, **data)
    spec = specify(backbone, SMALL | options)
    run = Run(backbone, spec, resolved, AugmentOptions(), TrainOptions(epochs=1), seed=0)
    weights = build_backbone(spec).state_dict()
    noise = torch.Generator().manual_seed(0)
    for tensor in weights.values():
        if tensor.is_floating_point():
            tensor += 0.1 * torch.rand(tensor.shape, generator=noise)
    save_weights(path, run, weights=weights, facts=FACTS, writer="w")
    return run


def build_timm(folder: Path) -> torch.nn.Module:
    """As the documentation says."""
    config = json.loads((folder / "config.json").read_text())
    if config["architecture"].startswith("vit"):
        return timm.create_model(f"local-dir:{folder}", pretrained=True)
    kind = ConvMixer if config["architecture"].endswith("ConvMixer") else MlpMixer
    activation = {"gelu": torch.nn.GELU, "relu": torch.nn.ReLU}[config["model_args"].pop("act_layer")]
    model = kind(num_classes=config["num_classes"], act_layer=activation, **config["model_args"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


@pytest.mark.parametrize(("backbone", "options"), MODELS, ids=str)
def test_timm_builds_the_exported_model(backbone, options, tmp_path, monkeypatch, capsys):
    """From the folder alone: the same logits, and the run's normalization and classes."""
    monkeypatch.chdir(tmp_path)
    run = keep(tmp_path / "w.safetensors", backbone, options)
    assert main(["w.safetensors", "--format", "timm", "--out", "out"]) == 0
    assert "gives the run's outputs" in capsys.readouterr().out
    theirs, ours = build_timm(Path("out")).eval(), build_backbone(run.model).eval()
    ours.load_state_dict(load_weights(read_weights_file(Path("w.safetensors")), run.model).state)
    images = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(theirs(images), ours(images), rtol=0, atol=1e-5)
    config = json.loads(Path("out/config.json").read_text())["pretrained_cfg"]
    assert (config["mean"], config["std"], config["label_names"]) == ([0.3] * 3, [0.2] * 3, list("abcdef"))


@pytest.mark.parametrize(
    ("backbone", "options", "data", "expected"),
    [
        ("metaformer", {"token_mixer": "attention"}, {}, "timm has no such model"),
        ("vit", {"position_embedding": "sincos"}, {}, "timm's model gives other outputs"),
        ("vit", {"norm": "rms"}, {}, "timm has no model with these options"),
        ("vit", {"channel_mixer": "swiglu"}, {}, "timm has no model with these options"),
        ("vit", {}, {"permute_pixels": True}, "a model of permuted images needs the permutation"),
    ],
    ids=str,
)
def test_what_timm_would_compute_otherwise_is_not_written(backbone, options, data, expected, tmp_path, monkeypatch, capsys):
    """A message, status 2 and no folder."""
    monkeypatch.chdir(tmp_path)
    keep(tmp_path / "w.safetensors", backbone, options, **data)
    assert main(["w.safetensors", "--format", "timm", "--out", "out"]) == 2
    assert expected in capsys.readouterr().err
    assert not Path("out", FILES[0]).exists()

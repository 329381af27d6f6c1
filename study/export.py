"""python -m study.export FILE --format timm [--out FOLDER]: write weights that a run has kept as others read them.

FILE is one of `runs/<sweep>/weights/`. `timm` writes a folder with safetensors and JSON, which timm builds a ViT from by
`timm.create_model("local-dir:FOLDER", pretrained=True)`; for ConvMixer and MLP-Mixer, whose sizes timm's names fix, its JSON
holds the class and its arguments. The folder is written only if timm's model, loaded back, gives the outputs of the run's.
"""

import argparse
import importlib
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from study.atomic_io import whole_file
from study.backbones import build_backbone
from study.backbones.specification import BackboneSpec
from study.backbones.weight_files import convert_to_timm, load_weights, read_weights_file
from study.cli.arguments import command_parser, parse_path
from study.cli.console import open_console
from study.data.torchvision_schema import declare_missing_operators
from study.errors import Problem, UserError, handle_user_errors
from study.training.saved_weights import SavedWeights, read_saved_weights

TIMM_MODELS = {
    "vit": "vit_base_patch16_224",
    "convmixer": "timm.models.convmixer.ConvMixer",
    "mlp_mixer": "timm.models.mlp_mixer.MlpMixer",
}
"""An architecture's name, which takes other sizes, or a class where timm's names don't."""
FILES = ("config.json", "model.safetensors")
_TOLERANCE = 1e-4  # of the largest logit


def parser() -> argparse.ArgumentParser:
    parser = command_parser("export", __doc__)
    parser.add_argument("weights", type=parse_path, metavar="FILE", help="weights that train.keep: last has left")
    parser.add_argument("--format", choices=("timm",), required=True)
    parser.add_argument("--out", type=parse_path, metavar="FOLDER", help="default: exports/<run>")
    return parser


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if find_spec("timm") is None:
        raise UserError(Problem("timm checks what is written and isn't installed here: pip install timm", key="--format"))
    path = Path(arguments.weights)
    saved = read_saved_weights(path)
    if saved is None:
        raise UserError(Problem("not the weights of a run that were kept with train.keep: last", place=str(path)))
    out = Path(arguments.out or f"exports/{saved.run.run_id}")
    apart = export_to_timm(path, saved, out)
    open_console().print(
        f"{out}: timm's model, loaded back, gives the run's outputs (within {apart:.1e} of the largest)",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def export_to_timm(path: Path, saved: SavedWeights, out: Path) -> float:
    """Write the folder if timm's model gives the same outputs; how far they are apart, relative to the largest.

    Raises UserError where timm has no such model.
    """
    spec = saved.run.model
    if saved.run.data.permute_pixels or saved.run.data.permute_patches:
        raise UserError(Problem("a model of permuted images needs the permutation, which timm's hasn't", str(path), "--format"))
    if spec.backbone not in TIMM_MODELS:
        raise UserError(Problem("timm has no such model", str(path), "--format", spec.backbone, list(TIMM_MODELS)))
    state = load_weights(read_weights_file(path), spec).state
    ours = build_backbone(spec).eval()
    ours.load_state_dict(state)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder)
        save_file({name: w.contiguous() for name, w in convert_to_timm(state, spec.backbone).items()}, draft / FILES[1])
        (draft / FILES[0]).write_text(json.dumps(describe_for_timm(saved), indent=1) + "\n", encoding="utf-8")
        images = torch.randn(2, spec.in_channels, spec.image_size, spec.image_size, generator=torch.Generator().manual_seed(0))
        try:
            with torch.inference_mode():
                theirs, expected = load_into_timm(draft).eval()(images), ours(images)
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(Problem(f"timm has no model with these options ({reason})", str(path), "--format")) from None
        apart = float((theirs - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
        if not apart <= _TOLERANCE:
            rule = f"timm's model gives other outputs, by {apart:.1e} of the largest: it has no model with these options"
            raise UserError(Problem(rule, str(path), "--format"))
        for name in FILES:
            with whole_file(out / name) as written:
                written.write_bytes((draft / name).read_bytes())
    return apart


def load_into_timm(folder: Path) -> nn.Module:
    """timm's model of an exported folder."""
    declare_missing_operators()
    import timm  # optional, and slow to load

    config = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
    module, _, name = config["architecture"].rpartition(".")
    if not module:
        found: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
        return found
    given = config["model_args"]
    given["act_layer"] = importlib.import_module("timm.layers").get_act_layer(given["act_layer"])
    model: nn.Module = getattr(importlib.import_module(module), name)(num_classes=config["num_classes"], **given)
    model.load_state_dict(load_file(folder / FILES[1]))
    return model


def describe_for_timm(saved: SavedWeights) -> dict[str, Any]:
    """The content of `config.json`."""
    spec = saved.run.model
    return {
        "architecture": TIMM_MODELS[spec.backbone],
        "num_classes": spec.num_classes,
        "model_args": _list_arguments(spec),
        "pretrained_cfg": {
            "input_size": [spec.in_channels, spec.image_size, spec.image_size],
            "fixed_input_size": True,
            "num_classes": spec.num_classes,
            "mean": saved.mean,
            "std": saved.std,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "label_names": saved.class_names,
        },
    }


def _list_arguments(spec: BackboneSpec) -> dict[str, Any]:
    """The specification as the arguments of timm's constructor; options without one show in names or outputs."""
    options = spec.model_dump()
    shared: dict[str, Any] = {"in_chans": spec.in_channels, "patch_size": spec.patch_size}
    if spec.backbone == "convmixer":
        sizes = {"dim": spec.dim, "depth": spec.depth, "kernel_size": options["kernel_size"], "act_layer": spec.activation}
        return shared | sizes
    shared |= {"img_size": spec.image_size, "embed_dim": spec.dim, "act_layer": spec.activation}
    if spec.backbone == "mlp_mixer":
        ratios = [_find_ratio(options[name], spec.dim) for name in ("token_dim", "channel_dim")]
        return shared | {"num_blocks": spec.depth, "mlp_ratio": ratios}
    pooling: dict[str, Any] = {"global_pool": "avg", "class_token": False, "fc_norm": False}
    return {
        **shared,
        **(pooling if spec.pooling == "mean" else {}),
        "depth": spec.depth,
        "num_heads": options["heads"],
        "mlp_ratio": _find_ratio(options["mlp_dim"], spec.dim),
        "init_values": spec.layer_scale,
        "reg_tokens": options["registers"],
        "qk_norm": options["qk_norm"],
        "pos_embed": "learn" if spec.position_embedding == "learned" else "none",
    }


def _find_ratio(hidden: int, dim: int) -> float:
    """What timm multiplies the width by and rounds down."""
    return hidden / dim if int(dim * (hidden / dim)) == hidden else (hidden + 0.5) / dim


if __name__ == "__main__":
    sys.exit(main())

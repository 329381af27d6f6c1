"""Weights are evaluated as in their publication: timm's transform and model are the oracle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from study.backbones import build_backbone, specify, variants
from study.backbones.weight_files import convert_to_timm as to_timm
from study.backbones.weight_files import load_weights, read_weights_file
from study.cli.console import open_console
from study.config.sweep_file import read_sweep
from study.data import describe_dataset
from study.data.evaluation_folder import scan_evaluation_folder
from study.data.image_folder import scan_folder
from study.data.preprocessing import PUBLISHED_PREPROCESSING, Preprocessing
from study.data.splits import load_splits
from study.data.torchvision_schema import declare_missing_operators
from study.evaluate import evaluate_on_folder, main, parser, resolve_model
from study.planning.sweep_plan import make_plan
from study.prepare import prepare_data
from study.training.checkpoint import Checkpoints
from study.training.device import DeviceChoice
from study.training.engine import train
from study.training.outcome import Outcome
from study.training.saved_weights import save_weights

declare_missing_operators()
import timm  # noqa: E402 (imports torchvision, whose operators have to be declared first)
from timm.data import create_transform, resolve_data_config  # noqa: E402
from timm.models.convmixer import ConvMixer  # noqa: E402
from timm.models.mlp_mixer import MlpMixer  # noqa: E402

CLASSES = ("cat", "dog", "eel")
SIZES = ((90, 70), (70, 90), (64, 64), (301, 57))
TIMM_NAMES = {"convmixer_768_32": "convmixer_768_32", "vit_tiny_patch16": "vit_tiny_patch16_224", "mixer_s32": "mixer_s32_224"}


def make_image(seed: int, size: tuple[int, int]) -> Image.Image:
    """Smooth colors with noise, so that resizing and cropping matter."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(size)
    noise = random.integers(-20, 20, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory) -> Path:
    """A folder train/<class>, val/<class> of images of several sizes and formats."""
    root = tmp_path_factory.mktemp("images")
    for part, count in (("train", 16), ("val", 4)):
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                suffix = ("png", "jpg")[index % 2]
                make_image(100 * label + index + len(part), SIZES[index % 4]).save(root / part / name / f"{index}.{suffix}")
    return root


def build_timm(variant: str) -> torch.nn.Module:
    """timm's model of a variant with random weights and three classes; small, where it can be."""
    torch.manual_seed(3)
    if variant.startswith("convmixer"):
        return ConvMixer(dim=32, depth=2, kernel_size=7, patch_size=7, num_classes=3, act_layer=torch.nn.ReLU).eval()
    if variant.startswith("mixer"):
        return MlpMixer(num_classes=3, patch_size=32, num_blocks=2).eval()
    return timm.create_model(TIMM_NAMES[variant], num_classes=3, depth=2).eval()


SETTINGS = {"convmixer_768_32": ["dim=32", "depth=2"], "vit_tiny_patch16": ["depth=2"], "mixer_s32": ["depth=2"]}


@pytest.mark.parametrize("variant", SETTINGS)
def test_predictions_are_those_of_timms_transform_and_model(variant, image_folder, tmp_path):
    """A checkpoint as timm saves it gives timm's class and probability for every image."""
    model = build_timm(variant)
    weights = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    words = ["--weights", str(weights), "--data", str(image_folder), "--backbone", variant, "--batch-size", "5"]
    arguments = parser().parse_args([*words, "num_classes=3", *SETTINGS[variant]])
    found, folder = resolve_model(weights, arguments), scan_evaluation_folder(image_folder)
    state, outputs = load_weights(read_weights_file(weights), found.spec).state, range(3)
    result = evaluate_on_folder(found, state, folder=folder, outputs=outputs, device=DeviceChoice("cpu"), arguments=arguments)
    config = timm.get_pretrained_cfg(TIMM_NAMES[variant]).to_dict()
    transform = create_transform(**resolve_data_config(pretrained_cfg=config), is_training=False)
    inputs = torch.stack([transform(Image.open(folder.root / file).convert("RGB")) for file in folder.files])
    with torch.inference_mode():
        probability, predicted = model(inputs).softmax(dim=1).max(dim=1)
    assert result.predictions.predicted.tolist() == predicted.tolist()
    np.testing.assert_allclose(result.predictions.probability, probability.numpy(), rtol=1e-4)
    assert result.predictions.label.tolist() == [label for label in range(3) for _ in range(4)]


def test_every_variant_has_timms_preprocessing():
    """Mean, deviation, crop and interpolation are those of timm's default configuration, for every name timm has."""
    assert set(PUBLISHED_PREPROCESSING) == set(variants())
    compared = 0
    for variant in variants():
        name = variant if variant.startswith("convmixer") else f"{variant}_224"
        if timm.is_model(name):
            theirs = timm.get_pretrained_cfg(name)
            expected = Preprocessing(theirs.mean, theirs.std, theirs.crop_pct, theirs.interpolation)
            assert PUBLISHED_PREPROCESSING[variant] == expected, variant
            assert theirs.input_size == (3, 224, 224) and theirs.crop_mode == "center"
            compared += 1
    assert compared == 16


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (224, 224), (1000, 225), (17, 31)])
@pytest.mark.parametrize("name", ["convmixer_768_32", "vit_tiny_patch16", "mixer_s32"])
def test_pixels_are_timms(name, size, tmp_path):
    """Sizes wide, tall, small and equal to the target: after the transform every pixel is timm's, bit for bit."""
    path = tmp_path / "image.png"
    make_image(1, size).save(path)
    config = timm.get_pretrained_cfg(TIMM_NAMES[name]).to_dict()
    transform = create_transform(
        224, is_training=False, interpolation=config["interpolation"], crop_pct=config["crop_pct"], normalize=False
    )
    pixels = PUBLISHED_PREPROCESSING[name].decode(path.read_bytes(), 224)
    assert np.array_equal(pixels, transform(Image.open(path).convert("RGB")).numpy())


def test_saved_weights_give_the_recorded_accuracy(image_folder, tmp_path, capsys, monkeypatch):
    """Weights saved by a run, evaluated on the run's own test folder without other arguments, give its recorded results."""
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(
        f"question: saved?\nbackbone: convmixer\ndata: {{name: folder, root: {image_folder}, image_size: 16}}\n"
        "model: {dim: 8, depth: 1, patch_size: 4, kernel_size: 3}\n"
        "train: {epochs: 2, batch_size: 8, keep: last}\nseeds: [0]\n"
    )
    sweep = read_sweep(Path("sweep.yaml"))
    prepare_data(sweep, open_console())
    planned = make_plan(sweep).runs[0]
    splits = load_splits(planned.run.data, describe_dataset(planned.run.data), seed=planned.run.seed)
    outcome = train(
        planned.run,
        splits,
        device=DeviceChoice("cpu"),
        checkpoints=Checkpoints(tmp_path, "run", "1-0-0"),
        stop=lambda: False,
        report=lambda *_: None,
    )
    assert isinstance(outcome, Outcome) and outcome.status == "done"
    weights = tmp_path / "weights" / "run.safetensors"
    save_weights(weights, planned.run, weights=outcome.weights, facts=splits.info, writer="1-0-0")
    assert main(["--weights", str(weights), "--data", str(image_folder), "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["top1"] == outcome.test_accuracy
    assert output["loss"] == pytest.approx(outcome.test_loss, rel=1e-5)
    assert output["images"] == len(scan_folder(image_folder).labels["test"]) and output["classes_by_name"]
    for name, other in zip(CLASSES, ("ape", "bee", "cat"), strict=True):  # as many, but in sorted order cats would be apes
        shutil.copytree(image_folder / "val" / name, tmp_path / "others" / other)
    assert main(["--weights", str(weights), "--data", str(tmp_path / "others")]) == 2
    error = capsys.readouterr().err
    assert "no class of the model (got 'ape')" in error and "valid: cat, dog, eel" in error


def test_the_output_describes_the_evaluation(image_folder, tmp_path, capsys):
    """Top-1, the number of images, the preprocessing and the weights' digest are printed; status 0."""
    spec = specify("vit_tiny_patch16", {"num_classes": 3, "depth": 1, "image_size": 32})
    save_file(to_timm(_random_state(spec), "vit"), tmp_path / "w.safetensors")
    words = [
        "--weights",
        str(tmp_path / "w.safetensors"),
        "--data",
        str(image_folder / "val"),
        "--backbone",
        "vit_tiny_patch16",
    ]
    assert main([*words, "num_classes=3", "depth=1", "image_size=32", "--device", "cpu"]) == 0
    screen = capsys.readouterr().out
    for output in (
        "top-1",
        "n = 12 images of 3 classes",
        "shorter side to 35 px (bicubic, antialiased), center crop of 32 px",
        "mean 0.5 0.5 0.5",
        "sha256",
    ):
        assert output in screen
    assert "top-5" not in screen  # which is 100 % of three classes


def _random_state(spec) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in build_backbone(spec).state_dict().items()}


def evaluate_tiny(path: Path, data: Path, capsys, *words: str, num_classes: int = 3) -> dict:
    """What `--json` gives for weights of a small ViT."""
    tiny = ["--backbone", "vit_tiny_patch16", f"num_classes={num_classes}", "depth=1", "image_size=32", "--device", "cpu"]
    assert main(["--weights", str(path), "--data", str(data), *tiny, *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_classes_are_matched_by_name(image_folder, tmp_path, capsys):
    """Outputs in another order than the folder's: the same figures as with the classifier's rows put in the sorted order."""
    state = _random_state(specify("vit_tiny_patch16", {"num_classes": 3, "depth": 1, "image_size": 32}))
    state["head.classifier.weight"].normal_()  # which is zero at first
    save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "names.txt").write_text("eel\ncat\ndog\n")
    by_name = evaluate_tiny(tmp_path / "w.safetensors", image_folder, capsys, "--classes", str(tmp_path / "names.txt"))
    ordered = {**state, **{name: state[name][[1, 2, 0]].contiguous() for name in state if name.startswith("head.classifier")}}
    save_file(ordered, tmp_path / "sorted.safetensors")
    by_order = evaluate_tiny(tmp_path / "sorted.safetensors", image_folder, capsys)
    assert (by_name["top1"], by_name["loss"]) == (by_order["top1"], by_order["loss"])
    assert by_name["classes_by_name"] and not by_order["classes_by_name"]
    assert evaluate_tiny(tmp_path / "w.safetensors", image_folder, capsys)["loss"] != by_name["loss"]


def test_some_of_the_classes_are_classified_among_themselves(image_folder, tmp_path, capsys):
    """A folder without eels: the figures of a model that has the outputs of cats and dogs only; other names are refused."""
    state = _random_state(specify("vit_tiny_patch16", {"num_classes": 3, "depth": 1, "image_size": 32}))
    state["head.classifier.weight"].normal_()
    save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "names.txt").write_text("dog\neel\ncat\n")
    for name in ("cat", "dog"):
        shutil.copytree(image_folder / "val" / name, tmp_path / "some" / name)
    words = ["--classes", str(tmp_path / "names.txt")]
    some = evaluate_tiny(tmp_path / "w.safetensors", tmp_path / "some", capsys, *words)
    two = {**state, **{name: state[name][[2, 0]].contiguous() for name in state if name.startswith("head.classifier")}}
    save_file(two, tmp_path / "two.safetensors")
    both = evaluate_tiny(tmp_path / "two.safetensors", tmp_path / "some", capsys, num_classes=2)
    assert (some["top1"], some["loss"]) == (both["top1"], both["loss"])
    assert (some["classes"], some["classes_of_model"]) == (2, 3)
    (tmp_path / "some" / "dog").rename(tmp_path / "some" / "dgo")
    line = ["--weights", str(tmp_path / "w.safetensors"), "--data", str(tmp_path / "some"), "--backbone", "vit_tiny_patch16"]
    assert main([*line, *TINY, *words]) == 2
    assert "no class of the model (got 'dgo')\n    did you mean 'dog'?" in capsys.readouterr().err


def test_parts_are_no_classes(image_folder, tmp_path, capsys):
    """train/ and valid/ beside each other would be two classes; an unlabelled test/ hides no val/ beside it."""
    save_file({"w": torch.zeros(1)}, tmp_path / "w.safetensors")
    words = ["--weights", str(tmp_path / "w.safetensors"), "--backbone", "vit_tiny_patch16", "num_classes=2", "--data"]
    for name in ("train", "valid"):
        shutil.copytree(image_folder / "val", tmp_path / "parts" / name)
    assert main([*words, str(tmp_path / "parts")]) == 2
    assert f"valid: {tmp_path}/parts/train, {tmp_path}/parts/valid" in capsys.readouterr().err
    (tmp_path / "parts" / "valid").rename(tmp_path / "parts" / "val")
    (tmp_path / "parts" / "test").mkdir()
    assert main([*words, str(tmp_path / "parts")]) == 2
    assert "test/ has no class folders" in (error := capsys.readouterr().err) and f"{tmp_path}/parts/val" in error


@pytest.mark.parametrize("option", ["--mean=127.5,127.5,127.5", "--std=0,0,0", "--std=nan,1,1", "--mean=a,b,c", "--crop=x"])
def test_normalization_outside_its_range_is_refused(option, capsys):
    """Means of bytes, deviations of zero and words: the option is named with its range."""
    with pytest.raises(SystemExit) as ended:
        main(["--weights", "w", "--data", "d", option])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and option.split("=")[0] in error and ("to 1" in error or "at most 1" in error)


TINY = ["num_classes=3", "depth=1", "image_size=32"]


@pytest.mark.parametrize(
    ("kind", "words", "output"),
    [
        (
            "other",
            ["--backbone", "vit_tiny_patch16", *TINY],
            ["not the weights of vit", "vit has no counterpart of timm's stem.weight"],
        ),
        ("short", ["--backbone", "vit_tiny_patch16", *TINY], ["1 missing: head.norm.bias"]),
        ("pickle", ["--backbone", "vit_tiny_patch16", *TINY], ["pickled objects", "convert it to safetensors"]),
        ("truncated", ["--backbone", "vit_tiny_patch16", *TINY], ["not a readable weights file"]),
        ("missing", ["--backbone", "vit_tiny_patch16", *TINY], ["no such weights file"]),
        ("right", ["--backbone", "vit_tiny_patch17", *TINY], ["did you mean 'vit_tiny_patch16'?"]),
        ("right", ["--backbone", "vit_tiny_patch16"], ["the model has 1,000 classes, and the folder has 3"]),
        ("right", [], ["doesn't say which model these weights are of"]),
        ("right", ["--backbone", "vit", *TINY, "dim=192", "patch_size=16"], ["give --mean and --std"]),
        ("right", ["--backbone", "vit_tiny_patch16", *TINY, "dpth=1"], ["did you mean 'depth'?"]),
    ],
)
def test_mistakes_fit_one_screen_and_nothing_is_evaluated(kind, words, output, image_folder, tmp_path, capsys):
    """Weights of another model, incomplete, truncated or with pickled objects, unknown names: status 2 and a reason."""
    state = _random_state(specify("vit_tiny_patch16", {"num_classes": 3, "depth": 1, "image_size": 32}))
    path = tmp_path / ("w.pt" if kind == "pickle" else "w.safetensors")
    if kind == "pickle":
        torch.save({"model": build_timm("vit_tiny_patch16")}, path)
    elif kind == "other":
        save_file({"stem.weight": torch.zeros(3)}, path)
    elif kind == "short":
        save_file({name: tensor for name, tensor in state.items() if name != "head.norm.bias"}, path)
    elif kind != "missing":
        save_file(state, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    assert main(["--weights", str(path), "--data", str(image_folder), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    assert len(captured.err.splitlines()) < 24
    for word in output:
        assert word in captured.err


def test_unreadable_images_are_named(image_folder, tmp_path, capsys):
    """An unreadable file ends the evaluation with its path; no result of the others is printed."""
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "broken.jpg").write_bytes(b"no image")
    state = _random_state(specify("vit_tiny_patch16", {"num_classes": 1, "depth": 1, "image_size": 32}))
    save_file(state, tmp_path / "w.safetensors")
    words = ["--weights", str(tmp_path / "w.safetensors"), "--data", str(tmp_path / "data"), "--backbone", "vit_tiny_patch16"]
    assert main([*words, "num_classes=1", "depth=1", "image_size=32"]) == 2
    captured = capsys.readouterr()
    assert "broken.jpg" in captured.err and "top-1" not in captured.out

"""A recipe is a layer of published values: below the file, above the defaults, and identified by its name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from study.backbones import specify
from study.config.options import AugmentOptions, TrainOptions
from study.config.recipes import RECIPES
from study.config.run import Run
from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.planning.sweep_plan import make_plan
from study.training.optimizer import learning_rate

SWEEP = """\
question: which?
recipe: convmixer_cifar10_25
data: {name: cifar10}
backbone: convmixer
model: {patch_size: 2, dim: 256, depth: 8, kernel_size: 5}
seeds: [0]
"""

PUBLISHED = {
    # locuslab/convmixer-cifar10, README's two commands over train.py's defaults; AdamW's own defaults of torch
    "convmixer_cifar10_25": (
        TrainOptions(
            epochs=25,
            batch_size=512,
            lr=0.05,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.005,
            decay="all",
            schedule="one_cycle",
            precision="fp16",
        ),
        AugmentOptions(flip=True, randaugment_n=2, randaugment_m=12),
    ),
    "convmixer_cifar10_100": (
        TrainOptions(
            epochs=100,
            batch_size=512,
            lr=0.05,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.005,
            decay="all",
            schedule="one_cycle",
            precision="fp16",
        ),
        AugmentOptions(flip=True, randaugment_n=2, randaugment_m=12, color_jitter=0.2, erasing=0.2),
    ),
    # SHI-Labs/Compact-Transformers, examples/main.py: defaults; attention_dropout of src/vit.py
    "vit_lite_cifar10_200": (
        TrainOptions(
            epochs=200,
            batch_size=128,
            lr=5e-4,
            weight_decay=0.03,
            decay="all",
            schedule="cosine",
            warmup_epochs=5.0,
            label_smoothing=0.1,
            attention_dropout=0.1,
            stochastic_depth=0.1,
        ),
        AugmentOptions(flip=True, crop=4, auto_augment="cifar10"),
    ),
    # The same, configs/pretrained/cct_7-3x1_cifar10_300epochs.yml; attention_dropout and stochastic_depth of src/cct.py
    "cct": (
        TrainOptions(
            epochs=300 + 10,
            batch_size=128,
            lr=55e-5,
            schedule="cosine",
            warmup_epochs=10.0,
            min_lr=1e-5,
            cooldown_epochs=10,
            weight_decay=6e-2,
            decay="matrices",
            label_smoothing=0.1,
            attention_dropout=0.1,
            stochastic_depth=0.1,
            precision="fp16",
        ),
        AugmentOptions(
            flip=True, resized_crop=0.8, auto_augment="rand-m9-mstd0.5-inc1", mixup=0.8, cutmix=1.0, mixup_off_epoch=175
        ),
    ),
    # facebookresearch/deit, main.py: defaults; 4 x 256 images a batch, README_deit.md
    "deit_300": (
        TrainOptions(
            epochs=300,
            batch_size=4 * 256,
            lr=5e-4 * 4 * 256 / 512,
            schedule="cosine",
            warmup_epochs=5.0,
            min_lr=1e-5,
            weight_decay=0.05,
            decay="matrices",
            label_smoothing=0.1,
            stochastic_depth=0.1,
            precision="fp16",
        ),
        AugmentOptions(
            flip=True,
            resized_crop=0.08,
            auto_augment="rand-m9-mstd0.5-inc1",
            erasing=0.25,
            erasing_mode="pixel",
            mixup=0.8,
            cutmix=1.0,
            repeats=3,
        ),
    ),
    # aanna0701/SPT_LSA_ViT, main.py: defaults; an epoch passes three times over the images
    "spt_cifar": (
        TrainOptions(
            epochs=100 * 3,
            batch_size=128,
            lr=1e-3,
            schedule="cosine",
            warmup_epochs=10.0 * 3,
            min_lr=1e-6,
            weight_decay=5e-2,
            decay="all",
            label_smoothing=0.1,
            stochastic_depth=0.1,
        ),
        AugmentOptions(flip=True, crop=4, auto_augment="cifar10", erasing=0.25, mixup=1.0, cutmix=1.0, mixup_prob=0.5),
    ),
    # locuslab/convmixer, README, over the defaults of its timm: weight decay 2e-5, smoothing 0.1, scale 0.08, flip 0.5
    "convmixer_imagenet_150": (
        TrainOptions(
            epochs=150,
            batch_size=640,
            lr=0.01,
            eps=1e-3,
            weight_decay=2e-5,
            decay="matrices",
            grad_clip=1.0,
            schedule="one_cycle",
            label_smoothing=0.1,
            precision="fp16",
        ),
        AugmentOptions(
            flip=True,
            resized_crop=0.08,
            auto_augment="rand-m9-mstd0.5-inc1",
            erasing=0.25,
            erasing_mode="pixel",
            mixup=0.5,
            cutmix=0.5,
        ),
    ),
}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def planned_run(tmp_path: Path, text: str, *overrides: str) -> Run:
    return make_plan(read_sweep(written(tmp_path, text), overrides)).runs[0].run


def mistakes(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        make_plan(read_sweep(written(tmp_path, text), overrides))
    return caught.value.summary()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves_to_the_published_values(tmp_path, name):
    """Every option of training and augmentation is what the source says, those it leaves at their default too."""
    text = SWEEP.replace("convmixer_cifar10_25", name).replace("convmixer\n", "vit\n").replace(", kernel_size: 5", "")
    run = planned_run(tmp_path, text)
    assert (run.train, run.augment) == PUBLISHED[name]


def test_layers_override_in_order(tmp_path):
    """Default < recipe < the file's section < the backbone's own < an axis; and a recipe's option may be an axis."""
    text = SWEEP.replace("backbone: convmixer\n", "train: {lr: 1e-2, epochs: 30, weight_decay: 0.1}\n")
    text += "backbones: {convmixer: {train: {epochs: 40}}}\naxes: {backbone: [convmixer], train.batch_size: [64]}\n"
    train = planned_run(tmp_path, text).train
    assert (train.betas, train.schedule) == ((0.9, 0.999), "one_cycle")
    assert (train.lr, train.weight_decay, train.epochs, train.batch_size) == (0.01, 0.1, 40, 64)
    assert planned_run(tmp_path, SWEEP, "train.lr=3e-3", "recipe=convmixer_cifar10_100").train.epochs == 100


def test_a_recipe_is_its_values_and_not_its_name(tmp_path):
    """The same values written out are the same run."""
    train = "{epochs: 25, batch_size: 512, lr: 0.05, schedule: one_cycle, weight_decay: 0.005, decay: all, precision: fp16}"
    augment = "{flip: true, randaugment_n: 2, randaugment_m: 12}"
    spelled = SWEEP.replace("recipe: convmixer_cifar10_25", f"train: {train}\naugment: {augment}")
    assert planned_run(tmp_path, SWEEP).run_id == planned_run(tmp_path, spelled).run_id


def test_mistakes_name_the_recipe(tmp_path):
    """An unknown name gets a suggestion; a value of the recipe that breaks a rule is reported as the recipe's."""
    screen = mistakes(tmp_path, SWEEP.replace("cifar10_25", "cifar_25"))
    assert "sweep.yaml:2: recipe: no recipe of this name" in screen
    assert "did you mean 'convmixer_cifar10_25'?" in screen
    screen = mistakes(tmp_path, SWEEP, "data.train_images=300")
    assert "recipe convmixer_cifar10_25: train.batch_size: a batch is larger than the 300 training images" in screen


@pytest.mark.parametrize("name", ["convmixer_cifar10_25", "convmixer_cifar10_100", "vit_lite_cifar10_200", "cct", "spt_cifar"])
def test_the_sweep_of_a_recipe_costs_what_its_header_says(repository, name):
    """The sweep of the recipe's name uses it, trains on all 50,000 images, and states its FLOPs."""
    path = repository / "sweeps" / f"{name}.yaml"
    plan = make_plan(read_sweep(path))
    assert plan.sweep.recipe == RECIPES[name]
    for planned in plan.runs:
        assert planned.run.fitted_images == 50_000
        images = 50_000 // planned.run.train.batch_size * planned.run.train.batch_size  # of full batches
        assert planned.training_flops == 6 * planned.cost.macs * images * planned.run.train.epochs
        assert f" {planned.training_flops / 1e15:.2f} PFLOPs" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["convmixer_imagenet_150", "deit_300"])
def test_the_imagenet_recipe_costs_what_its_header_says(repository, name):
    """Full batches of 1,281,167 images, the recipe's epochs, and the MACs of the sweep's model, the published one."""
    sweep = read_sweep(repository / "sweeps" / f"{name}.yaml")
    [settings] = [sweep.settings(cell) for cell in sweep.cells()]
    model = {key.removeprefix("model."): setting.value for key, setting in settings.items() if key.startswith("model.")}
    spec = specify(settings["backbone"].value, {"image_size": 224, "in_channels": 3, "num_classes": 1000, **model})
    published = {"convmixer_imagenet_150": "convmixer_1536_20", "deit_300": "vit_small_patch16"}[name]
    assert spec.closed_form().macs == specify(published, {}).closed_form().macs
    train = RECIPES[name].train
    images = 1_281_167 // train.batch_size * train.batch_size
    flops = 6 * spec.closed_form().macs * images * train.epochs
    header = (repository / f"sweeps/{name}.yaml").read_text(encoding="utf-8")
    [stated] = re.findall(r"([\d,]+) PFLOPs", header)
    assert float(stated.replace(",", "")) == pytest.approx(flops / 1e15, rel=1e-4)


def test_the_learning_rate_of_the_25_epoch_recipe_is_the_published_curve():
    """train.py sets np.interp(epoch + (i + 1) / batches, [0, 10, 20, 25], [0, 0.05, 0.0025, 0]) before step i."""
    train, batches = PUBLISHED["convmixer_cifar10_25"][0], 97
    ends = [(epoch + (i + 1) / batches) for epoch in range(25) for i in range(batches)]
    published = np.interp(ends, [0, 10, 20, 25], [0, 0.05, 0.0025, 0])
    ours = [learning_rate(step, train, epoch_steps=batches) for step in range(25 * batches)]
    np.testing.assert_allclose(ours, published, atol=1e-12)

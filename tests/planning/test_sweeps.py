"""Every sweep of the project resolves, says what it asks, and costs what its header says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study.cli.console import open_console
from study.config.sweep_file import read_sweep
from study.data import DatasetInfo
from study.planning.sweep_plan import Plan, make_plan
from study.prepare import prepare_data

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"
NAMES = sorted(path.stem for path in SWEEPS.glob("*.yaml"))
IMAGENET = DatasetInfo(
    name="folder",
    digest="0" * 64,
    image_size=224,
    channels=3,
    class_names=tuple(map(str, range(1000))),
    train_images=1_153_050,
    val_images=128_117,
    test_images=50_000,
    mean=(0.5,) * 3,
    std=(0.2,) * 3,
)
TWENTY_CLASSES = {"class_names": IMAGENET.class_names[:20], "train_images": 9_000, "val_images": 1_000, "test_images": 1_000}
PHOTOGRAPHS = replace(IMAGENET, **TWENTY_CLASSES)


def plan_of(name: str, monkeypatch) -> Plan:
    """The plan of a sweep; the sizes of the folders are known, so they need no copy here."""
    sweep = read_sweep(SWEEPS / f"{name}.yaml", ["data.root=photographs"] if name.startswith("photos") else [])
    if "data.name" in sweep.base and sweep.base["data.name"].value == "folder":
        known = PHOTOGRAPHS if name.startswith("photos") else IMAGENET
        monkeypatch.setattr(
            "study.planning.resolver.describe_dataset", lambda options: replace(known, image_size=options.image_size)
        )
    return make_plan(sweep)


def header(name: str) -> dict[str, str]:
    """The header's fields, each joined to one line."""
    text = (SWEEPS / f"{name}.yaml").read_text(encoding="utf-8").split("\n#\n")[0]
    fields = re.findall(r"^# (\w+) +(.*(?:\n# {11}.*)*)", text, flags=re.MULTILINE)
    return {key: re.sub(r"\s*\n#\s*", " ", value) for key, value in fields}


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_costs_what_its_header_says(name, monkeypatch):
    """Its runs, and its FLOPs where the header states them, are those of the plan; the command names the file."""
    stated, plan = header(name), plan_of(name, monkeypatch)
    assert list(stated)[:4] == ["Question", "Expected", "Cost", "Command"]
    assert f"python -m study.launch sweeps/{name}.yaml" in stated["Command"]
    runs = re.match(r"([\d,]+) runs?", stated["Cost"])
    assert runs is not None and int(runs[1].replace(",", "")) == len(plan.whole)
    if stages := re.search(r"\((\d+) trials, (\d+) final\)", stated["Cost"]):
        assert (int(stages[1]), int(stages[2])) == (len(plan.trials), len(plan.finals))
    if passes := re.search(r"([\d,]+) M image passes", stated["Cost"]):
        assert number(passes[1]) == pytest.approx(sum(run.image_passes for run in plan.whole) / 1e6, abs=0.5)
    if size := re.search(r"( of )?([\d,.]+) PFLOPs", stated["Cost"]):
        total = sum(run.training_flops for run in plan.whole) / 1e15
        expected = total / len(plan.whole) if size[1] else total  # "3 runs of 1.11 PFLOPs"
        assert number(size[2]) == pytest.approx(expected, rel=0.005)
    assert plan.sweep.question and plan.sweep.expected and plan.sweep.effect_of_interest


def number(text: str) -> float:
    return float(text.replace(",", ""))


@pytest.mark.parametrize(
    "name",
    [
        "patch_size",
        "patch_size_macs",
        "token_mixer",
        "stem",
        "kernel_size",
        "kernel_pixels",
        "epochs",
        "digits_mixers",
        "digits_patch_size",
        "digits_patch_size_macs",
        "digits_token_mixer",
        "digits_token_mixer_macs",
        "photos_patch_size",
        "photos_token_mixer",
        "cifar10_token_mixer_small",
        "cifar10_token_mixer_macs_small",
        "cifar10_backbone_small",
        "cifar10_permuted_pixels_small",
    ],
)
def test_what_is_held_equal_is_within_two_percent(name, monkeypatch):
    """Every cell meets its budget, also the extreme ones: none is left out of a comparison."""
    plan = plan_of(name, monkeypatch)
    price = "macs" if "macs" in name.split("_") else "params"
    prices = {getattr(run.cost, price) for run in plan.whole}
    assert max(prices) / min(prices) < 1.02 / 0.98
    assert all(abs(run.match.residual) <= 0.02 for run in plan.whole)


def test_kernels_of_equal_span_are_on_the_grid(monkeypatch):
    """The header's diagonals are cells of the sweep, and each is the kernel that a span in pixels asks for."""
    plan = plan_of("kernel_size", monkeypatch)
    cells = {(run.run.model.kernel_size, run.run.model.patch_size) for run in plan.whole}
    diagonals = {4: [(5, 1), (3, 2)], 8: [(9, 1), (5, 2), (3, 4)], 16: [(17, 1), (9, 2), (5, 4)], 32: [(17, 2), (9, 4)]}
    for span, diagonal in diagonals.items():
        for kernel, patch in diagonal:
            assert (kernel, patch) in cells
            model = plan.runs[0].run.model.with_options({"patch_size": patch, "kernel_pixels": span, "kernel_size": kernel})
            assert model.kernel_size == kernel == span // patch + 1


def test_kernels_fixed_in_pixels_have_the_stated_tokens(monkeypatch):
    """The header's table: 17, 9, 5, 3 tokens span 16 pixels at p=1, 2, 4, 8, and 33, 17, 9, 5 span 32."""
    plan = plan_of("kernel_pixels", monkeypatch)
    spans = {(run.run.model.kernel_pixels, run.run.model.patch_size): run.run.model.kernel_size for run in plan.finals}
    expected = {16: (17, 9, 5, 3), 32: (33, 17, 9, 5)}
    assert spans == {(span, 2**n): tokens for span, row in expected.items() for n, tokens in enumerate(row)}


def test_each_row_of_the_papers_ablation_changes_one_thing(monkeypatch):
    """The published configuration, and eleven whose runs differ from it in one option each, each in another way."""
    plan = plan_of("paper_ablation", monkeypatch)
    rows = [run.run.to_json() for run in plan.runs if run.run.seed == 0]
    options = [
        {(part, name): value for part in ("model", "train", "augment") for name, value in row[part].items()} for row in rows
    ]
    changed = [[(key, own[key]) for key in own if own[key] != options[0][key]] for own in options[1:]]
    assert len(rows) == 12 and all(len(keys) == 1 for keys in changed) and len(set(map(str, changed))) == 11
    assert options[0]["model", "residual"] == "depthwise" and options[0]["model", "norm"] == "batch"


def test_imagenets_models_are_the_published_ones(monkeypatch):
    """Parameters of all nine models, as the papers and timm count them."""
    plan = plan_of("imagenet", monkeypatch)
    assert [run.cost.params for run in plan.runs if run.run.seed == 0] == [
        51_625_960,
        21_110_248,
        24_383_464,
        5_717_416,
        22_050_664,
        86_567_656,
        18_528_264,
        59_880_472,
        22_315_624,
    ]


def test_the_imagenet_sweep_plans_any_folder(tmp_path, monkeypatch):
    """A folder of twenty pictures in train/ and val/ represents ImageNet: prepared, it makes a plan of the same models."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for part in ("train", "val"):
        for label in ("n01440764", "n01443537"):
            (tmp_path / "images" / part / label).mkdir(parents=True)
            for index in range(10):
                pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / label / f"{index}.png")
    overrides = ["data.root=images", "data.cache=cache", "train.batch_size=8", "seeds=[0]"]
    sweep = read_sweep(SWEEPS / "imagenet.yaml", overrides)
    prepare_data(sweep, open_console())
    plan = make_plan(sweep)
    assert len(plan.runs) == 9
    assert {run.run.model.num_classes for run in plan.runs} == {2}
    assert {run.run.data.image_size for run in plan.runs} == {224}

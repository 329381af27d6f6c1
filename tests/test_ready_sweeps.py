"""The sweeps that published studies ask for, each planned, trained and reported for real at a tiny size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study import launch, load_report, prepare, report

SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"
FOLDER = ["data.root=pictures", "data.image_size=32", "train.batch_size=16"]
SMALL = ["model.dim=8", "model.depth=1"]
CIFAR = ["data.name=folder", *FOLDER]
PRINTED = {
    "paper_ablation": [*CIFAR, *SMALL, "train.precision=fp32"],
    "convmixer_patch_kernel": [*CIFAR, *SMALL, "train.precision=fp32", "model.patch_size=[2,4]", "model.kernel_size=[3,5]"],
    "pixels_as_tokens": [
        *CIFAR,
        *SMALL,
        "model.heads=1",
        "train.precision=fp32",
        "model.patch_size=[4,8]",
        "train.warmup_epochs=0.5",
    ],
    "data_size": [*CIFAR, "model.depth=1", "match.target=20k", "data.train_images=[40,60]", "train.warmup_epochs=0.5"],
    "convnext_isotropic": [*FOLDER, "train.precision=fp32", "train.warmup_epochs=0.5"],
    "feed_forward_only": [*FOLDER, "model.depth=1", "train.precision=fp32", "train.warmup_epochs=0.5"],
    "two_data_sets": [
        *("data.name=[digits,folder]", "data.root=pictures", "data.train_images=64", "train.batch_size=16", "model.depth=1"),
        *("match.target=20k", "backbones.convmixer.model.kernel_size=3", "model.patch_size=[2,4]", "train.warmup_epochs=0.5"),
    ],
}


@pytest.mark.slow
@pytest.mark.xdist_group("launch")
@pytest.mark.parametrize("name", PRINTED)
def test_a_ready_sweep_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch on some pictures, with three seeds where it has seeds: every run is done, and report and tables are drawn."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 10)):
        for label in ("bright", "dark"):
            (tmp_path / "pictures" / part / label).mkdir(parents=True)
            for index in range(count):
                pixels = noise.integers(0, 128, (32, 32, 3), dtype=np.uint8) + (128 if label == "bright" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pictures" / part / label / f"{index}.png")
    words = [str(SWEEPS / f"{name}.yaml"), "train.epochs=1", "seeds=3", *PRINTED[name]]
    assert prepare.main(words) == 0
    assert launch.main([*words, "--cluster", "local"]) == 0
    assert report.main([*words, "--formats", "svg"]) == 0
    drawn = load_report(f"runs/{name}/report")
    assert (drawn.runs["status"] == "done").all() and len(drawn.answer.parts) == (2 if name == "two_data_sets" else 1)
    assert not drawn.contrasts.empty and (drawn.cells["n"] == 3).all()

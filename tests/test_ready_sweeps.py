"""The sweeps that published studies ask for, each planned, trained and reported for real at a tiny size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study import launch, load_report, prepare, report

SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"
PICTURES = ["data.root=pictures", "data.image_size=32", "train.batch_size=16", "train.precision=fp32"]
CIFAR = ["data.name=folder", *PICTURES]
SHORT = "train.warmup_epochs=0.5"
SETTINGS = {
    "paper_ablation": [*CIFAR, "model.dim=8", "model.depth=1"],
    "convmixer_patch_kernel": [*CIFAR, "model.dim=8", "model.depth=1", "model.patch_size=[2,4]", "model.kernel_size=[3,5]"],
    "pixels_as_tokens": [*CIFAR, "model.dim=8", "model.depth=1", "model.heads=1", "model.patch_size=[4,8]", SHORT],
    "data_size": [*CIFAR, "model.depth=1", "match.target=40k", "match.tolerance=20%", "data.train_images=[40,60]", SHORT],
    "convnext_isotropic": [*PICTURES, "model.patch_size=4", "model.kernel_size=3", SHORT],
    "feed_forward_only": [*PICTURES, "model.patch_size=4", "model.depth=1", SHORT],
    "two_data_sets": [
        *("data.name=[digits,folder]", "data.root=pictures", "data.train_images=64", "train.batch_size=16", "model.depth=1"),
        *(
            "match.target=40k",
            "match.tolerance=20%",
            "backbones.convmixer.model.kernel_size=3",
            "model.patch_size=[2,4]",
            SHORT,
        ),
    ],
}
"""What makes them tiny; the zipped widths and depths of two of them are replaced in the text."""
WIDTHS = {"[384, 768, 1024]": "[8, 16, 24]", "[18, 18, 36]": "[1, 1, 1]", "[192, 768]": "[8, 16]", "[3, 12]": "[1, 2]"}


@pytest.mark.slow
@pytest.mark.xdist_group("launch")
@pytest.mark.parametrize("name", SETTINGS)
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
    text = (SWEEPS / f"{name}.yaml").read_text(encoding="utf-8")
    for written, tiny in WIDTHS.items():
        text = text.replace(written, tiny)
    (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    words = [f"{name}.yaml", "train.epochs=1", "seeds=3", *SETTINGS[name]]
    assert prepare.main(words) == 0
    assert launch.main([*words, "--cluster", "local"]) == 0
    assert report.main([*words, "--formats", "svg"]) == 0
    drawn = load_report(f"runs/{name}/report")
    assert (drawn.runs["status"] == "done").all() and len(drawn.answer.parts) == (2 if name == "two_data_sets" else 1)
    assert not drawn.contrasts.empty and (drawn.cells["n"] == 3).all()

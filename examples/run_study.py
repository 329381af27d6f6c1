"""Run a small study from Python: write a sweep, train its runs on this machine, load the table of results.

    python examples/run_study.py [FOLDER]

Takes less than a minute on two CPU cores and needs no network: the images are scikit-learn's 8x8 digits.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from study import load_table
from study.launch import main as launch

# A sweep is one question. `axes` lists what varies, `match` what is held equal: here every network gets the width at
# which it has 5,000 parameters, within 5 %. Two backbones x two patch sizes x two seeds are eight runs.
SWEEP = """\
question: Does the patch size matter more to a ViT than to a ConvMixer?
data: {name: digits, train_images: 400}
model: {depth: 1}
backbones:
  convmixer: {model: {kernel_size: 3}}
train: {epochs: 3, batch_size: 50, lr: 5e-3}
match: {by: params, target: 5k, tolerance: 5%, head_dim: 8}
axes:
  backbone: [convmixer, vit]
  model.patch_size: [2, 4]
seeds: [0, 1]
"""


def main(folder: Path) -> None:
    """Run the study in `folder`; results go to `folder`/runs/example."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    Path("example.yaml").write_text(SWEEP)

    # The same as `python -m study.launch example.yaml --cluster local`. Runs that are already recorded are not trained
    # again, so this script can be interrupted and restarted at any time.
    if launch(["example.yaml", "--cluster", "local"]) != 0:
        sys.exit("the launch failed")

    # One row per planned run. `status` is done, failed, diverged or missing; accuracies are fractions.
    table = load_table("runs/example")
    print(table[["backbone", "patch_size", "seed", "status", "params", "macs", "test_accuracy"]].to_string(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-study"))

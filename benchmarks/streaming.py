"""python -m benchmarks.streaming [--images N]: preparation, killed preparation and training of a large image folder.

Runs the project's own commands, each in its own process: seconds and peak memory of `study.prepare`, the time that a killed
preparation saves when it is repeated, and the peak of a worker that trains an epoch, against a process that only imports torch.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.circumstances import circumstances
from benchmarks.tables import print_rows, write_json
from study.records import load_table
from study.rng import stream

DRAWN = 256  # distinct images, repeated in the folder; decoding costs the same each time
CLASSES, TEST_SHARE = 20, 20  # one image in twenty is for testing
SWEEP = """\
question: how much memory does a worker need for a large data set?
data: {{name: folder, root: {root}, image_size: {size}}}
device: cpu
backbone: vit
model: {{patch_size: {patch}, dim: 16, depth: 1, heads: 1, mlp_dim: 16}}
train: {{epochs: 1, batch_size: 256, lr: 1e-3}}
augment: {{flip: true, crop: 4}}
seeds: [0]
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=64, help="pixels (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/streaming.json"))
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as place:
        rows = measure(Path(place), images=arguments.images, size=arguments.size)
    print_rows(rows)
    write_json(
        arguments.out, {**circumstances("cpu", threads=1), "images": arguments.images, "size": arguments.size, "rows": rows}
    )
    return 0


def measure(place: Path, *, images: int, size: int) -> list[dict[str, Any]]:
    """Run all steps in order; one row per step."""
    write_folder(place / "images", images=images, size=size)
    sweep = place / "streaming.yaml"
    sweep.write_text(SWEEP.format(root=place / "images", size=size, patch=size // 4))
    prepare = ["-m", "study.prepare", str(sweep), f"data.cache={place / 'cache'}"]
    whole = time_command(prepare, place)
    again = ["-m", "study.prepare", str(sweep), f"data.cache={place / 'cache2'}"]
    cut = time_command(again, place, kill_after=whole["seconds"] / 2)
    rest = time_command(again, place)
    launched = [
        "-m",
        "study.launch",
        str(sweep),
        f"data.cache={place / 'cache'}",
        "--cluster",
        "local",
        "--workers",
        "1",
        "--runs",
        str(place / "runs"),
    ]
    trained = time_command(launched, place)
    [record] = load_table(place / "runs" / "streaming").to_dict("records")
    return [
        {"step": "import torch", **time_command(["-c", "import torch"], place)},
        {"step": "prepare", **whole},
        {"step": "prepare, killed half-way", **cut},
        {"step": "prepare, repeated", **rest},
        {
            "step": "train an epoch (the worker's peak)",
            "seconds": trained["seconds"],
            "read_peak_mib": record["peak_memory_mib"],
        },
    ]


def write_folder(root: Path, *, images: int, size: int) -> None:
    """An image folder of JPEG files of smooth noise, which compresses like a photograph."""
    draws = stream("streaming benchmark")
    files = [encode(draws.random((8, 8, 3)), size) for _ in range(DRAWN)]
    for number in range(images):
        split = "test" if number % TEST_SHARE == 0 else "train"
        folder = root / split / f"class{number // TEST_SHARE % CLASSES:02}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(files[number % DRAWN])


def encode(values: np.ndarray[Any, np.dtype[np.float64]], size: int) -> bytes:
    """A JPEG file of coarse values `h w 3` in [0, 1), upsampled."""
    picture = Image.fromarray((values * 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=90)
    return written.getvalue()


def time_command(words: Sequence[str], place: Path, *, kill_after: float | None = None) -> dict[str, Any]:
    """Seconds and peak resident memory of a Python command; that of its largest process, if it has several."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], cwd=place, env=environment, start_new_session=True)
    if kill_after is not None:
        time.sleep(kill_after)
        os.killpg(process.pid, signal.SIGKILL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    assert kill_after is not None or status == 0, f"{words} ended with {status}"
    return {"seconds": seconds, "read_peak_mib": used.ru_maxrss / 1024}


if __name__ == "__main__":
    sys.exit(main())

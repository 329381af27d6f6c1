"""python -m benchmarks.gpu [--toy]: tests, kernels, steps, epochs and fixed costs on a GPU, in under nine minutes.

Needs torch, the project's files and, for real images, a folder of them; missing packages are taken from
benchmarks/wheels. Results are written after every part, so that a failure costs no other part.
`--toy` checks the logic on a CPU at toy size.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.wheels import unpack_missing

if TYPE_CHECKING:
    from benchmarks.gpu_size import Request

BUDGET_S = 520.0
TESTS_S = 120.0
TESTS = "tests/training"
REPOSITORY = Path(__file__).resolve().parents[1]

Part = Callable[["Request"], list[dict[str, Any]]]


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__.split("\n\n")[0])
    found.add_argument("--toy", action="store_true", help="on the CPU, at toy size: checks the logic, measures nothing")
    found.add_argument("--images", type=Path, help="an image folder (train/<class>/, test/<class>/) instead of random images")
    found.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for everything (default: %(default)s)")
    found.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    began = time.monotonic()
    unpack_missing()
    from benchmarks.circumstances import circumstances
    from benchmarks.gpu_size import GPU, TOY, Request
    from benchmarks.tables import write_json

    request = Request(TOY if arguments.toy else GPU, arguments.images, began + arguments.budget)
    content: dict[str, Any] = {**circumstances(request.scale.kind, threads=len(os.sched_getaffinity(0))), "toy": arguments.toy}
    for name, part in parts().items():
        content[name] = run_part(name, part, request)
        write_json(arguments.out, content)
    print(f"\n{time.monotonic() - began:.0f} s in total, written to {arguments.out}")
    if arguments.toy:
        print("toy size on a CPU: no GPU was measured")
    return int(any("failed" in row for name in parts() for row in content[name]))


def parts() -> Mapping[str, Part]:
    """The parts, the most important ones first."""
    from benchmarks.epochs import epochs, fixed_costs
    from benchmarks.kernels import kernel_table
    from benchmarks.steps import compiled_steps, eager_steps

    return {
        "tests": gpu_tests,
        "fixed_costs": fixed_costs,
        "epochs": epochs,
        "steps": eager_steps,
        "kernels": kernel_table,
        "compiled_steps": compiled_steps,
    }


def run_part(name: str, part: Part, request: Request) -> list[dict[str, Any]]:
    """The part's rows, printed; a failure is a row too."""
    from benchmarks.tables import print_rows

    started = time.monotonic()
    try:
        rows = part(request)
    except Exception as error:  # the other parts continue
        traceback.print_exc()
        rows = [{"failed": f"{type(error).__name__}: {error}".splitlines()[0]}]
    print(f"\n{name.replace('_', ' ')} ({time.monotonic() - started:.0f} s)", flush=True)
    print_rows(rows)
    return rows


def gpu_tests(request: Request) -> list[dict[str, Any]]:
    """The tests that need a GPU, in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", TESTS]
    if request.scale.kind != "cuda":
        command.append("--collect-only")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    limit = min(TESTS_S, request.left())
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=limit, check=False)
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-2000:])
        return [{"failed": next(reversed(done.stdout.strip().splitlines()), "no output")}]
    return [{"outcome": done.stdout.strip().splitlines()[-1]}]


if __name__ == "__main__":
    sys.exit(main())

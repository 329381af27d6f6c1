"""make reliability: every command is killed at its writes, and every fault of a disk is tried; nothing may be lost or silent.

    python tests/reliability FOLDER [--points N] [--time-limit MINUTES] [--processes N]

FOLDER keeps the results, one line of JSON each: what went well is not done again. Where all is done, docs/reliability.md is
written from them. Exit status 1 where something was lost, doubled or different, or ended in a traceback.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from faults import choose_refusals, list_circumstances, run_circumstance, run_refusal  # noqa: E402
from kill_points import SCENARIOS, choose_points, make_twin, mix, run_point  # noqa: E402
from page import write_page  # noqa: E402
from sandbox import Sandbox  # noqa: E402

from study.records.code_snapshot import code_hash, find_origin  # noqa: E402

Job = tuple[str, Callable[[], dict[str, Any]]]


def list_jobs(sandbox: Sandbox, folder: Path, *, points: int, faults: int) -> list[Job]:
    """The names of all points and fault cases, each with what tries it; mixed, so that any part is a sample."""
    twins = {each.name: make_twin(sandbox, each, place=folder / "twins" / code_hash() / each.name) for each in SCENARIOS}
    chosen = choose_points(twins, points)
    jobs: list[Job] = [(str(point), partial(run_point, sandbox, twins, point)) for point in chosen]
    jobs += [(str(each), partial(run_refusal, sandbox, twins, each)) for each in choose_refusals(twins, faults)]
    jobs += [(str(each), partial(run_circumstance, sandbox, twins, each)) for each in list_circumstances()]
    return sorted(jobs, key=lambda job: mix(job[0]))


def work(folder: Path, asked: argparse.Namespace) -> None:
    """Do every n-th job that has no result yet."""
    results = folder / "results.jsonl"
    results.touch()
    earlier = map(json.loads, results.read_text(encoding="utf-8").splitlines())
    done = {found["name"] for found in earlier if not found["bad"]}
    first, step = map(int, asked.share.split("/"))
    commit = find_origin().commit
    deadline = time.monotonic() + 60 * asked.time_limit
    base = Path(tempfile.mkdtemp(prefix="reliability-"))
    with Sandbox(base) as sandbox:
        for name, run in list_jobs(sandbox, folder, points=asked.points, faults=asked.faults):
            own = int(mix(name)[-8:], 16) % step == first
            if own and name not in done and asked.only in name and time.monotonic() < deadline:
                began = time.monotonic()
                found = {"name": name, **run(), "seconds": round(time.monotonic() - began, 2), "commit": commit}
                found["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
                print(f"{'BAD' if found['bad'] else 'ok '} {found['seconds']:6.1f} s  {name}", flush=True)
        if not (base / "kept").exists():
            shutil.rmtree(base)
        else:
            print(f"what there is to look at: {base / 'kept'}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where the results are kept")
    parser.add_argument("--points", type=int, default=600, metavar="N", help="kill points and power cuts (default: 600)")
    parser.add_argument("--faults", type=int, default=120, metavar="N", help="refused calls (default: 120)")
    parser.add_argument("--time-limit", type=float, default=600, metavar="MINUTES", help="begin nothing after this time")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--only", default="", metavar="PART", help="what has this part in its name")
    parser.add_argument("--share", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.share:
        work(asked.folder, asked)
        return 0
    words = [sys.executable, *sys.argv]
    shares = [subprocess.Popen([*words, f"--share={n}/{asked.processes}"]) for n in range(asked.processes)]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if max(share.wait() for share in shares):
            return 1
    finally:
        for share in shares:
            share.terminate()
    lines = (asked.folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    newest = {found["name"]: found for found in map(json.loads, lines)}
    return write_page(list(newest.values()), REPOSITORY / "docs/reliability.md")


if __name__ == "__main__":
    sys.exit(main())

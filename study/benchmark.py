"""python -m study.benchmark SWEEP [key=value ...]: measure how fast each architecture of a sweep is, on the device at hand.

Every round measures all architectures in turn, so a machine that slows down for a while slows all of them. The file
is in runs/<sweep>/benchmarks and joins the run table; with it `study.plan` prints device-hours, and shares are balanced by it.
"""

import contextlib
import os
import re
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from study.benchmarking.timing import VARIANTS, Workload, input_key, list_workloads, summarize_laps, time_input, time_round
from study.cli.arguments import add_json_option, positive_int, sweep_folder, sweep_parser
from study.cli.console import open_console, print_json
from study.config.sweep_file import read_sweep
from study.errors import Problem, UserError, handle_user_errors
from study.planning.sweep_plan import Plan, make_plan
from study.records.benchmark_file import Benchmark, InputSpeed, median, spread
from study.records.code_snapshot import find_origin
from study.records.sweep_folder import write_whole
from study.training.determinism import enable_deterministic_cublas
from study.training.device import DeviceChoice, choose_device
from study.training.fingerprint import make_fingerprint
from study.training.model_setup import with_cpu_kernels

ROUNDS = 5


@handle_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = sweep_parser("benchmark", __doc__)
    parser.add_argument("--rounds", type=positive_int, default=ROUNDS, help=f"over all architectures (default: {ROUNDS})")
    parser.add_argument("--batch-size", type=positive_int, metavar="N", help="instead of each run's own")
    parser.add_argument(
        "--variants",
        action="store_true",
        help="each architecture in both memory layouts, plain and compiled: launches then train in the fastest",
    )
    parser.add_argument("--threads", type=positive_int, metavar="N", help="of a CPU (default: all that are allotted)")
    add_json_option(parser)
    arguments = parser.parse_intermixed_args(argv)
    console = open_console(for_json=arguments.json)
    sweep = read_sweep(arguments.sweep, arguments.overrides)
    with sweep.plugins.in_use():
        plan = make_plan(sweep)
        if plan.sweep.deterministic:
            enable_deterministic_cublas(os.environ)
        device = with_cpu_kernels(
            choose_device(plan.sweep.device, os.environ, deterministic=plan.sweep.deterministic), os.environ
        )
        torch.set_num_threads(arguments.threads or len(os.sched_getaffinity(0)))
        variants = VARIANTS[device.kind] if arguments.variants else (None,)
        workloads = list(list_workloads(plan.runs, arguments.batch_size, variants=variants))
        with limit_memory() if device.kind == "cpu" else contextlib.nullcontext():
            benchmark = measure(plan, workloads, device=device, rounds=arguments.rounds, console=console)
    # runs/<sweep>/benchmarks/20260102t101500-nvidia-h200.json
    moment = re.sub(r"[-:Z]", "", benchmark.began).lower()
    name = re.sub(r"[^a-z0-9]+", "-", benchmark.device_name.lower()).strip("-")
    path = sweep_folder(arguments, plan.sweep.name).benchmarks / f"{moment}-{name}.json"
    write_whole(path, benchmark.model_dump_json(indent=1) + "\n")
    console.print(speed_table(benchmark))
    for message in benchmark.left_out:
        console.print(f"left out: {message}", style="red")
    console.print(f"written to {path}", highlight=False, soft_wrap=True)
    if arguments.json:
        print_json("benchmark", {"file": str(path), "benchmark": benchmark.model_dump(mode="json")})
    return 1 if benchmark.left_out else 0


def measure(plan: Plan, workloads: Sequence[Workload], *, device: DeviceChoice, rounds: int, console: Console) -> Benchmark:
    """All rounds over all workloads and their inputs; UserError where not one could be measured."""
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    inputs = {input_key(workload.planned): workload.planned for workload in workloads}
    fed: dict[str, list[float]] = {key: [] for key in inputs}
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=rounds * (len(workloads) + len(inputs)))
        for turn in range(rounds):
            started = time.monotonic()
            for workload in workloads:
                bar.update(task, description=f"round {turn + 1}: {workload.label}")
                time_round(workload, device)
                bar.advance(task)
            for key, planned in inputs.items():
                bar.update(task, description=f"round {turn + 1}: augmentation")
                fed[key].append(time_input(planned.run, device=device))
                bar.advance(task)
            if not console.is_terminal:
                console.print(f"round {turn + 1} of {rounds}: {time.monotonic() - started:.0f} s")
    if all(workload.fault for workload in workloads):
        raise UserError(*(Problem(workload.fault or "", workload.label) for workload in workloads))
    execution = make_fingerprint(device, memory_layout="", micro_batches=0)
    return Benchmark(
        sweep=plan.sweep.name,
        began=began,
        rounds=rounds,
        device=device.kind,
        device_name=str(execution["device_name"]),
        fingerprint={name: value for name, value in execution.items() if name not in ("memory_layout", "micro_batches")},
        provenance=asdict(find_origin()),
        architectures=tuple(summarize_laps(workload) for workload in workloads if not workload.fault),
        inputs=tuple(
            InputSpeed(
                augment=planned.run.augment.model_dump(mode="json"),
                channels=planned.run.data.channels,
                image_size=planned.run.data.image_size,
                images_per_second=tuple(fed[key]),
            )
            for key, planned in inputs.items()
        ),
        left_out=tuple(f"{workload.label}: {workload.fault}" for workload in workloads if workload.fault),
    )


@contextlib.contextmanager
def limit_memory() -> Iterator[None]:
    """Inside, allocations beyond the memory that was available before fail, as on a GPU: the system would kill the process."""
    used = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    free = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert used and free, "the kernel says how much memory there is"
    former = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * (int(used[1]) + int(free[1])), former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, former)


def speed_table(benchmark: Benchmark) -> Table:
    """Medians over the rounds, with their interquartile range in percent."""
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        title_justify="left",
        title=f"{benchmark.device_name}, {benchmark.fingerprint['threads']} threads, {benchmark.rounds} rounds",
    )
    table.add_column("architecture")
    for name in ("dtype", "layout", "batch", "train images/s", "IQR", "infer images/s", "IQR", "latency ms", "peak MiB"):
        table.add_column(name, justify="right")
    for speed in benchmark.architectures:
        memory = "" if speed.peak_memory_mib is None else f"{speed.peak_memory_mib:,.0f}"
        table.add_row(
            speed.label,
            speed.precision,
            speed.variant.label,
            str(speed.batch_size),
            f"{speed.train_images_per_second:,.0f}",
            f"{spread(speed.train_step_seconds):.0%}",
            f"{speed.inference_images_per_second:,.0f}",
            f"{spread(speed.inference_step_seconds):.0%}",
            f"{1000 * median(speed.inference_latency_seconds):.2f}",
            memory,
        )
    return table


if __name__ == "__main__":
    sys.exit(main())

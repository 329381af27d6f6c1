"""How a sweep's runs are executed on one kind of device: threads, memory layouts, compiled code and kernels.

All of these change the last bits of a training. So they are decided by the sweep's first launch on that kind of device, kept
in its ledger, and used by every later launch, whatever is left to train: a sweep that was killed and launched again ends with
the bits of an undisturbed one. `--threads N` decides anew, and records from then on say that they aren't exact.
"""

import os

from rich.console import Console

from study.cpu_kernels.compiler import KernelsUnavailable
from study.cpu_kernels.extension import load_extension
from study.records.benchmark_file import Benchmark, read_benchmark
from study.records.ledger import DeviceKind, Execution, Launch, read_launches
from study.records.sweep_folder import SweepFolder


def find_execution(folder: SweepFolder, device: DeviceKind) -> Launch | None:
    """The newest launch that says how runs are executed on this kind of device; None before the first one."""
    launches = [launch for launch in read_launches(folder) if launch.execution and launch.execution.device == device]
    return launches[-1] if launches else None


def decide_execution(
    folder: SweepFolder, device: DeviceKind, *, threads: int, asked: int | None, here: bool
) -> tuple[Execution, Execution]:
    """The execution of a new launch, and the one that its bits are compared with: that of the sweep's recorded runs.

    `threads` are those of a first launch, `asked` those that the user demands. Only for workers `here`, on this machine, is it
    known whether the CPU kernels can be compiled. To be called under the sweep's lock.
    """
    kept = find_execution(folder, device)
    if kept is not None and kept.execution is not None and asked is None:
        return kept.execution, kept.first_execution or kept.execution
    benchmarks = sorted(path.name for path in folder.benchmarks.glob("*.json"))  # names begin with their time
    kernels = _can_compile_kernels() if device == "cpu" and here else None
    execution = Execution(device, asked or threads, benchmarks[-1] if benchmarks else None, kernels)
    if kept is None or not any(folder.records.glob("*.jsonl")):
        return execution, execution
    return execution, kept.first_execution or execution


def _can_compile_kernels() -> bool:
    try:
        load_extension(os.environ)
    except KernelsUnavailable:
        return False
    return True


def kept_benchmark(folder: SweepFolder, execution: Execution) -> Benchmark | None:
    """The benchmark whose fastest variants the runs are trained in."""
    return read_benchmark(folder.benchmarks / execution.benchmark) if execution.benchmark else None


def print_changes(launch: Launch, console: Console) -> None:
    """Say what a launch changes of how the sweep's runs are executed."""
    if launch.changes:
        console.print(f"execution changed ({', '.join(launch.changes)}): runs of this launch are recorded as not exact")


def describe_execution(folder: SweepFolder) -> list[str]:
    """A line for each kind of device that runs of the sweep were launched on."""
    kinds: tuple[DeviceKind, ...] = ("cpu", "cuda")
    found = (launch.execution for device in kinds if (launch := find_execution(folder, device)))
    return [f"execution on {each.device}, kept for all launches: {each}" for each in found if each]

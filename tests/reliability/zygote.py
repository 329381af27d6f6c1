"""Two processes that have everything loaded and fork one for each command or worker, under the interposition's filter.

    python zygote.py CHANNEL COMMANDS WORKERS EXECUTABLE     three sockets' descriptors, and what workers are started with

The one for commands has imported the project, the one for workers only the libraries: a worker imports the code snapshot that
its launch took. Workers' monotonic clock is faster, so that they save checkpoints in runs of a fraction of a second.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import importlib
import os
import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import preloaded_python
from interposition import install_filter
from preloaded_python import LIBRARIES, Request, exit_status, serve

REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = ("launch", "report", "cancel", "status", "prepare", "plan")
LOADED_LATE = ("matplotlib.backends.backend_svg", "seaborn", "sklearn.linear_model", "altair", "itables", "pyarrow.parquet")
CLOCK = "RELIABILITY_CLOCK"
"""An environment variable: what a process's clock is to be set to, as `seconds` or `+seconds`, after how many questions."""
PAUSE = "RELIABILITY_PAUSE"
"""An environment variable: the seconds that a step of training takes at least."""
SPEED = 1000.0


def set_clock(words: str) -> None:
    """Make the clock jump: `+3600 20` is an hour ahead after it was asked 20 times, `0 0` is 1970 at once."""
    offset, _, after = words.partition(" ")
    original, asked = time.time, 0
    shift = float(offset) if offset[0] in "+-" else float(offset) - original()

    def jumping() -> float:
        nonlocal asked
        asked += 1
        return original() + (shift if asked > int(after or 0) else 0.0)

    time.time = jumping


def run_command(request: Request, executable: str) -> None:
    """Run `study WORDS` as `python -m study.COMMAND` does."""
    sys.executable, sys.argv = executable, ["study", *request.words]
    if clock := request.environment.get(CLOCK):
        set_clock(clock)
    encoding = request.environment.get("PYTHONIOENCODING", "utf-8")
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False, encoding=encoding) for number in (1, 2))  # noqa: SIM115
    status = 1
    try:
        status = importlib.import_module(f"study.{request.words[0]}").main(request.words[1:])
    except BaseException as ending:
        status = exit_status(ending)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(status)


def run_worker(request: Request, executable: str) -> None:
    """Run a worker's module with its launch's code, on a clock that is faster."""
    original = time.monotonic
    time.monotonic = lambda: SPEED * original()
    if pause := request.environment.get(PAUSE):
        import torch

        step = torch.optim.AdamW.step

        def slow_step(*words: object, **more: object) -> object:
            time.sleep(float(pause))
            return step(*words, **more)

        torch.optim.AdamW.step = slow_step
    if clock := request.environment.get(CLOCK):
        set_clock(clock)
    preloaded_python.run(request, executable)


def main() -> None:
    channel, commands, workers = (socket.socket(fileno=int(word)) for word in sys.argv[1:4])
    executable = sys.argv[4]
    listener = install_filter()
    channel.sendmsg([b"l"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
    os.close(listener)
    for name in LIBRARIES:
        importlib.import_module(name)
    lifeline = os.dup(0)
    gc.collect()
    gc.freeze()  # what is loaded stays shared memory
    if not (pid := os.fork()):
        sys.path[:] = [path for path in sys.path if not path.startswith(str(REPOSITORY / "tests"))]
        sys.path[:] = [path for path in sys.path if path != str(REPOSITORY)]
        sys.pycache_prefix, sys.dont_write_bytecode = str(Path(executable).with_name("bytecode")), False  # equal snapshots
        if (request := serve(workers, lifeline)) is not None:
            run_worker(request, executable)
        return
    sys.path.insert(0, str(REPOSITORY))
    for name in (*LOADED_LATE, *(f"study.{command}" for command in COMMANDS)):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    channel.sendall(f"{pid:>20}".encode())
    if (request := serve(commands, lifeline)) is not None:
        run_command(request, executable)
    else:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()

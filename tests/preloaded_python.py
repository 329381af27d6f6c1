"""A Python that starts with torch and the other libraries loaded, for the workers and jobs that tests start by the dozen.

`preloaded_python()` names an executable that takes `[-u] -m MODULE ARGUMENTS...` as Python does. Importing torch costs seconds
of CPU and training in a test a fraction of one; so the executable has its module run by a process forked from a server that
has imported the libraries, though nothing of this project: that comes from the PYTHONPATH of whoever calls, as always.

    slurmstepd, a launch -> the executable (a proxy: the process that others see, signal and wait for)
                                | socket: arguments, environment, folder, signal mask, standard streams
    pytest -> server -> forked process that runs the module

Signals to the proxy go on to the forked process, its exit status (or deadly signal) becomes the proxy's, and when the proxy
dies, by SIGKILL too, the server kills the forked process. SIGSTOP isn't passed on: who needs it takes sys.executable.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import runpy
import selectors
import shutil
import signal
import site
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = (  # what a worker or a launch imports, by itself or on the first training step
    *("torch", "torch.distributed", "torch._dynamo", "numpy", "scipy.special", "sklearn.datasets", "pandas"),
    *("pyarrow.parquet", "pydantic", "submitit", "submitit.core._submit", "ruamel.yaml", "rich.progress", "fvcore.nn"),
)
LENGTH = struct.Struct("!I")
STREAMS = 3  # standard input, output and error


@functools.cache
def preloaded_python() -> str:
    """The executable's path. Its server starts with the first call in a process, and ends with that process."""
    folder = Path(tempfile.mkdtemp(prefix="python-"))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.listen(128)  # who comes while the libraries are being imported waits
    executable = folder / "python"
    proxy = Path(__file__).with_name("preloaded_python_proxy.py").read_text()
    executable.write_text(f"#!{sys.executable} -IS\n{proxy}")  # isolated and without `site`, which makes it start in 15 ms
    executable.chmod(0o755)
    command = [sys.executable, __file__, str(listener.fileno()), str(executable)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()], env=environment, start_new_session=True
    )
    listener.close()
    atexit.register(functools.partial(_end, server))
    return str(executable)


def _end(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    server.wait()


# ---- The server --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What a proxy hands over of the process that it stands for."""

    words: list[str]
    environment: dict[str, str]
    folder: str
    umask: int
    ignored: list[int]
    blocked: list[int]


def receive(connection: socket.socket) -> tuple[Request, list[int]]:
    """A request and the standard streams that came with it."""
    head, streams, _, _ = socket.recv_fds(connection, LENGTH.size, STREAMS)
    (left,) = LENGTH.unpack(head)
    body = b""
    while len(body) < left:
        body += connection.recv(left - len(body))
    return Request(**json.loads(body)), streams


def serve(listener: socket.socket, lifeline: int) -> Request | None:
    """Forks for each connection. Returns in each forked process, with its request; in the server when the lifeline is cut."""
    processes: dict[socket.socket, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(lifeline, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is lifeline or key.fd == lifeline:
                    for pid in processes.values():
                        os.kill(pid, signal.SIGKILL)
                    return None
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    request, streams = receive(connection)
                    pid = os.fork()
                    if not pid:
                        for open_one in (listener, connection, *processes):
                            open_one.close()
                        settle(request, streams)
                        return request
                    for stream in streams:
                        os.close(stream)
                    connection.sendall(LENGTH.pack(pid))
                    processes[connection] = pid
                    selector.register(connection, selectors.EVENT_READ)
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, connection)
                elif isinstance(key.fileobj, socket.socket):  # its proxy is dead
                    selector.unregister(key.fileobj)
                    if key.fileobj in processes:
                        os.kill(processes[key.fileobj], signal.SIGKILL)
                else:  # a process has ended
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _, status = os.waitpid(processes.pop(key.data), 0)
                    with contextlib.suppress(OSError):
                        key.data.sendall(LENGTH.pack(status))
                    if key.data in selector.get_map():
                        selector.unregister(key.data)
                    key.data.close()


def settle(request: Request, streams: list[int]) -> None:
    """Makes a forked process what the proxy would be, had it become the module's process by itself."""
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.chdir(request.folder)
    os.umask(request.umask)
    os.environ.clear()
    os.environ.update(request.environment)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number == signal.SIGPIPE or number in request.ignored:
            signal.signal(number, signal.SIG_IGN)
        elif number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        else:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, request.blocked)


def run(request: Request, executable: str) -> None:
    """Runs the module as `python -m` does, with sys.path as it would be."""
    own = [path for path in request.environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    here = [] if request.environment.get("PYTHONSAFEPATH") else [request.folder]
    sys.path[:] = [*here, *own, *sys.path]
    sys.executable = executable
    # New objects: the server's own remember whether its streams, which were others, could seek.
    sys.stdout, sys.stderr = (open(target, "w", buffering=1, closefd=False) for target in (1, 2))  # noqa: SIM115
    site.execsitecustomize()
    words = request.words[1:] if request.words[0] == "-u" else request.words
    sys.argv = ["-m", *words[2:]]
    status = 0
    try:
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    except BaseException as ending:
        status = exit_status(ending)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # what Python would do now is take the libraries' modules to pieces, for seconds


def exit_status(ending: BaseException) -> int:
    """As Python's own, with a message or traceback where it prints one."""
    if isinstance(ending, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    if not isinstance(ending, SystemExit):
        traceback.print_exception(ending)
        return 1
    if isinstance(ending.code, int | None):
        return ending.code or 0
    print(ending.code, file=sys.stderr)
    return 1


def main() -> None:
    listener, executable = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]
    own = os.environ.pop("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [path for path in sys.path if path not in own]
    for name in LIBRARIES:
        __import__(name)
    gc.collect()
    gc.freeze()  # what is loaded stays shared memory: no collection in a forked process touches it
    lifeline = os.dup(0)
    assert not [name for name in sys.modules if name.partition(".")[0] == "study"], "workers import the code that was launched"
    request = serve(listener, lifeline)
    if request is None:  # whoever started the server is gone, perhaps without an orderly end
        shutil.rmtree(Path(executable).parent, ignore_errors=True)
    else:
        os.close(lifeline)
        run(request, executable)


if __name__ == "__main__":
    main()

"""A folder in which commands run under supervision, and the processes that run them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from interposition import Answer, Call, Supervisor, let_happen
from preloaded_python import LENGTH

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PATIENCE_S = 240.0


@dataclass
class Command:
    """A command that runs."""

    process: int
    connection: socket.socket
    out: Path

    def wait(self) -> int:
        """Wait for its end; the exit status, or minus the signal that ended it."""
        self.connection.settimeout(PATIENCE_S)
        answer = self.connection.recv(LENGTH.size, socket.MSG_WAITALL)
        self.connection.close()
        return os.waitstatus_to_exitcode(LENGTH.unpack(answer)[0])

    @property
    def printed(self) -> str:
        return self.out.read_text(encoding="utf-8", errors="replace")


class Sandbox:
    """`folder` is where commands run; it can be emptied, or filled with a copy of another. Use as a context."""

    def __init__(self, base: Path):
        self.base, self.folder = base, base / "sandbox"
        self.folder.mkdir(parents=True)
        executable = base / "python"
        proxy = (HERE.parent / "preloaded_python_proxy.py").read_text(encoding="utf-8")
        executable.write_text(f"#!{sys.executable} -IS\n{proxy}", encoding="utf-8")
        executable.chmod(0o755)
        channel, far = socket.socketpair()
        listeners = []
        for name in ("commands", "socket"):  # the proxy connects to the latter
            listeners.append(socket.socket(socket.AF_UNIX))
            listeners[-1].bind(str(base / name))
            listeners[-1].listen(128)
        handed = [far.fileno(), *(listener.fileno() for listener in listeners)]
        words = [sys.executable, str(HERE / "zygote.py"), *map(str, handed), str(executable)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        self._zygote = subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=handed, env=environment, start_new_session=True)
        for each in (far, *listeners):
            each.close()
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        self.supervisor = Supervisor(descriptors[0], self.folder)
        self.supervisor.start()
        self.worker_server = int(channel.recv(20, socket.MSG_WAITALL))
        channel.close()
        self.ignored = 0  # a process whose calls count for nothing

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        self._zygote.wait()

    @contextlib.contextmanager
    def answering(self, answer: Answer) -> Iterator[None]:
        """Let `answer` decide about every lasting call on the sandbox's files."""
        self.supervisor.answer = lambda call: 0 if call.owner == self.ignored else answer(call)
        try:
            yield
        finally:
            self.supervisor.answer = let_happen

    def start(self, words: str, *, out: Path | None = None, errors: Path | None = None, **environment: str) -> Command:
        """Start `study WORDS` in the folder; errors go where the output goes, unless a file is given for them."""
        out = out or self.base / "printed.txt"
        streams = [os.open(os.devnull, os.O_RDONLY), os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)]
        streams.append(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if errors else os.dup(streams[1]))
        variables: Mapping[str, str] = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "CXX": "none",
            **environment,
        }  # compiles no kernels
        body = json.dumps(
            {
                "words": words.split(),
                "environment": dict(variables),
                "folder": str(self.folder),
                "umask": 0o022,
                "ignored": [],
                "blocked": [],
            }
        ).encode()
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.base / "commands"))
        socket.send_fds(connection, [LENGTH.pack(len(body))], streams)
        connection.sendall(body)
        for each in streams:
            os.close(each)
        process = LENGTH.unpack(connection.recv(LENGTH.size, socket.MSG_WAITALL))[0]
        return Command(process, connection, out)

    def type(self, words: str, **environment: str) -> tuple[int, str]:
        """Run a command; its exit status and what it printed."""
        command = self.start(words, **environment)
        status = command.wait()
        return status, command.printed

    def is_worker(self, call: Call) -> bool:
        return call.parent == self.worker_server

    def processes(self) -> list[int]:
        """Whatever runs in the folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(entry / "cwd").startswith(str(self.folder)):
                    found.append(int(entry.name))
        return found

    def kill_all(self) -> None:
        """End everything that runs in the folder, at once."""
        while processes := self.processes():
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.005)

    def wait_for_all(self) -> None:
        """Wait until nothing runs in the folder, such as workers that outlive their launch."""
        deadline = time.monotonic() + PATIENCE_S
        while self.processes():
            assert time.monotonic() < deadline, "processes are left"
            time.sleep(0.02)

    def fill(self, source: Path | None) -> None:
        """Replace the folder's content with a copy of another folder, or with nothing."""
        shutil.rmtree(self.folder)
        if source is None:
            self.folder.mkdir()
        else:
            shutil.copytree(source, self.folder, symlinks=True)

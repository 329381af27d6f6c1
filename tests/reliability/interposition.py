"""Every lasting system call of a process and of all that it starts, seen before it happens and let through, refused or ended.

The kernel does it (seccomp's user notification, Linux 5.5 or newer): the calling thread waits, whatever library called, until
this process has answered. What is written through a memory map is no call and isn't seen; the program writes through none.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

READ, CREATE, WRITE = "read", "create", "write"
CALLS = {  # x86-64: number, what it does, position of the descriptor or of the path (negative: after a folder's descriptor)
    1: (WRITE, 0),  # write
    18: (WRITE, 0),  # pwrite64
    20: (WRITE, 0),  # writev
    296: (WRITE, 0),  # pwritev
    40: (WRITE, 0),  # sendfile
    326: (WRITE, 2),  # copy_file_range
    77: (WRITE, 0),  # ftruncate
    285: (WRITE, 0),  # fallocate
    74: ("fsync", 0),
    75: ("fsync", 0),  # fdatasync
    73: ("lock", 0),  # flock
    72: ("lock", 0),  # fcntl, with the commands in LOCK_COMMANDS
    2: (CREATE, 0),  # open
    257: (CREATE, -1),  # openat
    83: ("mkdir", 0),
    258: ("mkdir", -1),
    87: ("unlink", 0),
    263: ("unlink", -1),
    84: ("rmdir", 0),
    82: ("rename", 0),
    264: ("rename", -1),
    316: ("rename", -1),  # renameat2
}
PLAIN_WRITES = (1, 18)
OPEN_FLAGS = {2: 1, 257: 2}
CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
LOCK_COMMANDS = (6, 7, 37, 38)  # F_SETLK, F_SETLKW and those of open file descriptions
AT_FDCWD = 0xFFFFFF9C
SYS_SECCOMP, NEW_LISTENER, NO_NEW_PRIVILEGES = 317, 8, 38
ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
RECEIVE, ANSWER, STILL_VALID, CONTINUE = 0xC0502100, 0xC0182101, 0x40082102, 1
NOTICE = struct.Struct("=QIIiIQ6Q")  # id, process, flags; number, architecture, instruction, arguments


def is_supported() -> bool:
    """Whether this machine has what the interposition needs."""
    return platform.system() == "Linux" and platform.machine() == "x86_64" and os.path.exists("/proc/sys/kernel/seccomp")


def install_filter() -> int:
    """Let the kernel ask about the calls of this process and of all that it starts; the descriptor to answer at."""

    def instruction(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
        return struct.pack("HBBI", code, true, false, value)

    def argument(position: int) -> bytes:
        return instruction(0x20, 16 + 8 * position)

    ask, number = instruction(0x06, NOTIFY), instruction(0x20, 0)
    program = number
    for call, position in OPEN_FLAGS.items():
        tail = argument(position) + instruction(0x45, CHANGING, 0, 1) + ask + instruction(0x06, ALLOW)
        program += instruction(0x15, call, 0, len(tail) // 8) + tail
    compared = b"".join(instruction(0x15, command, len(LOCK_COMMANDS) - n) for n, command in enumerate(LOCK_COMMANDS))
    tail = argument(1) + compared + instruction(0x06, ALLOW) + ask
    program += instruction(0x15, 72, 0, len(tail) // 8) + tail
    for call in CALLS.keys() - {2, 257, 72}:
        program += instruction(0x15, call, 0, 1) + ask
    program += instruction(0x06, ALLOW)
    content = ctypes.create_string_buffer(program)

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    descriptor = libc.syscall(SYS_SECCOMP, 1, NEW_LISTENER, ctypes.byref(Program(len(program) // 8, ctypes.addressof(content))))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
    return int(descriptor)


@dataclass(frozen=True)
class Call:
    """A call that waits for an answer. `process` is the thread that makes it."""

    process: int
    number: int
    arguments: Sequence[int]

    @property
    def kind(self) -> str:
        return CALLS[self.number][0]

    @cached_property
    def path(self) -> str:
        """The file that is changed; for a rename, its former name."""
        position = CALLS[self.number][1]
        if self.kind in (WRITE, "fsync", "lock"):
            return self._descriptor(self.arguments[position])
        return self._path(0 if position == 0 else 1, relative=position != 0)

    @cached_property
    def target(self) -> str:
        """The new name of a rename."""
        return self._path(1) if self.number == 82 else self._path(3, relative=True)

    @cached_property
    def is_new(self) -> bool:
        """Whether an open creates the file."""
        return bool(self.arguments[OPEN_FLAGS[self.number]] & os.O_CREAT) and not os.path.lexists(self.path)

    @property
    def truncates(self) -> bool:
        return bool(self.arguments[OPEN_FLAGS[self.number]] & os.O_TRUNC)

    @cached_property
    def owner(self) -> int:
        """The process that the thread belongs to."""
        return int(self._status("Tgid"))

    @cached_property
    def parent(self) -> int:
        return int(self._status("PPid"))

    def _status(self, name: str) -> str:
        text = Path(f"/proc/{self.process}/status").read_text()
        return next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:"))

    def _descriptor(self, number: int) -> str:
        return os.readlink(f"/proc/{self.process}/fd/{number & 0xFFFFFFFF}")

    def _path(self, position: int, *, relative: bool = False) -> str:
        name = self._text(self.arguments[position])
        folder = self.arguments[position - 1] & 0xFFFFFFFF if relative else AT_FDCWD
        base = os.readlink(f"/proc/{self.process}/cwd") if folder == AT_FDCWD else self._descriptor(folder)
        return os.path.normpath(os.path.join(base, name))

    def _text(self, address: int) -> str:
        with open(f"/proc/{self.process}/mem", "rb", buffering=0) as memory:
            text = b""
            while b"\0" not in text:
                text += os.pread(memory.fileno(), 4096 - (address + len(text)) % 4096, address + len(text))
        return os.fsdecode(text.partition(b"\0")[0])

    def write_half(self) -> None:
        """What a power failure or a kill may leave of a write: its first half."""
        if self.number in PLAIN_WRITES:
            descriptor, address, size = self.arguments[:3]
            information = Path(f"/proc/{self.process}/fdinfo/{descriptor}").read_text().split()
            position, flags = int(information[1]), int(information[3], 8)
            with open(f"/proc/{self.process}/mem", "rb", buffering=0) as memory:
                half = os.pread(memory.fileno(), size // 2, address)
            file = os.open(self.path, os.O_WRONLY)
            position = os.fstat(file).st_size if flags & os.O_APPEND else position
            os.pwrite(file, half, self.arguments[3] if self.number == 18 else position)
            os.close(file)


Answer = Callable[[Call], int]
"""What to do with a call: 0 lets it happen, an errno refuses it. A caller that was killed meanwhile gets no answer."""


def let_happen(_: Call) -> int:
    return 0


@dataclass
class Supervisor:
    """Answers the calls on files under `root`; all others happen."""

    listener: int
    root: Path
    answer: Answer = let_happen
    faults: list[str] = field(default_factory=list)  # of this program

    def start(self) -> None:
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            notice = bytearray(NOTICE.size)
            try:
                fcntl.ioctl(self.listener, RECEIVE, notice)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return
            identity, process, _, number, _, _, *arguments = NOTICE.unpack(notice)
            refused = 0
            try:
                call = Call(process, number, arguments)
                inside = f"{self.root}{os.sep}"
                if call.path.startswith(inside) or (call.kind == "rename" and call.target.startswith(inside)):
                    refused = self.answer(call)
            except (FileNotFoundError, ProcessLookupError):  # the caller is dead, or names what isn't there
                pass
            except Exception as error:
                self.faults.append(f"{type(error).__name__}: {error}")
            response = struct.pack("=Qqii", identity, 0, -refused, 0 if refused else CONTINUE)
            with contextlib.suppress(OSError):
                fcntl.ioctl(self.listener, ANSWER, bytearray(response))

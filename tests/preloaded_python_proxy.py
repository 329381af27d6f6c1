# The executable of `preloaded_python`: hands its module to the server beside it, passes signals on, ends as the module does.
import json
import os
import signal
import socket
import struct
import sys

LENGTH = struct.Struct("!I")
here = os.path.dirname(os.path.abspath(__file__))
words = sys.argv[1:]
if not {"-m"} <= set(words[:2]) or "submitit.local._local" in words:  # the latter names files by its process id
    os.execv(sys.executable, [sys.executable, *words])

numbers = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTSTP, signal.SIGPIPE}
ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
heard, process = [], 0


def forward(number, _frame):
    if process:
        os.kill(process, number)
    else:
        heard.append(number)


for number in numbers:
    signal.signal(number, forward)
signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

request = {
    "words": words,
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "umask": os.umask(0o077),
    "ignored": ignored,
    "blocked": list(blocked),
}
body = json.dumps(request).encode()
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.path.join(here, "socket"))
socket.send_fds(connection, [LENGTH.pack(len(body))], [0, 1, 2])
connection.sendall(body)


def receive():
    answer = b""
    while len(answer) < LENGTH.size:
        part = connection.recv(LENGTH.size - len(answer))
        if not part:
            sys.exit("the server of preloaded_python has ended")
        answer += part
    return LENGTH.unpack(answer)[0]


process = receive()
while heard:
    os.kill(process, heard.pop(0))
status = receive()
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) != signal.SIGKILL else None
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.waitstatus_to_exitcode(status))

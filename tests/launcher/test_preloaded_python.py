"""A module run by `preloaded_python()` behaves as one that Python runs: same output, status, signals, paths and death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from preloaded_python import preloaded_python
from typed_commands import wait_until

pytestmark = pytest.mark.xdist_group("launch")  # where its server runs already

MODULE = """\
import os, signal, sys, time
print(__name__, sys.argv[1:], os.getcwd(), os.environ["COLOR"], sys.stdin.read(), value := __import__("neighbor").VALUE)
print("on standard error", file=sys.stderr)
def hear(number, frame):
    sys.exit(number)
how = sys.argv[1]
if how == "exit":
    sys.exit(int(sys.argv[2]))
elif how == "message":
    sys.exit("a message")
elif how == "raise":
    raise ValueError("a mistake")
elif how == "die":
    os.kill(os.getpid(), signal.SIGSEGV)
elif how == "listen":
    signal.signal(signal.SIGUSR2, hear)
if how in ("listen", "sleep"):
    print("process", os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A folder with the module and one that it imports, and variables that lead there."""
    (tmp_path / "module.py").write_text(MODULE)
    (tmp_path / "neighbor.py").write_text("VALUE = 'from the path'\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1", "COLOR": "blue"}


@pytest.mark.parametrize("words", ["exit 0", "exit 7", "message", "raise", "die", "sleepless"])
def test_it_ends_as_python_does(tmp_path: Path, environment: dict[str, str], words: str) -> None:
    """Python itself is the oracle; tracebacks differ in the frames of `runpy` alone."""
    by_python, here = (
        subprocess.run(
            [executable, "-u", "-m", "module", *words.split()],
            env=environment, cwd=tmp_path, input="typed", capture_output=True, text=True, check=False,
        )
        for executable in (sys.executable, preloaded_python())
    )  # fmt: skip
    assert (here.returncode, here.stdout) == (by_python.returncode, by_python.stdout)
    assert here.stderr.splitlines()[:1] == by_python.stderr.splitlines()[:1]
    assert here.stderr.splitlines()[-1:] == by_python.stderr.splitlines()[-1:]


def begin(how: str, environment: dict[str, str]) -> tuple[subprocess.Popen[str], int]:
    """The proxy of a module that runs, and the process id of the module."""
    proxy = subprocess.Popen(
        [preloaded_python(), "-u", "-m", "module", how],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert proxy.stdout is not None
    proxy.stdout.readline()
    return proxy, int(proxy.stdout.readline().split()[1])


@pytest.mark.parametrize(("how", "status"), [("listen", signal.SIGUSR2), ("sleep", -signal.SIGUSR2)])
def test_signals_go_on_to_the_module(environment: dict[str, str], how: str, status: int) -> None:
    """One that handles it ends by its own status, one that doesn't dies of it, and so does the proxy."""
    with begin(how, environment)[0] as proxy:
        proxy.send_signal(signal.SIGUSR2)
        assert proxy.wait(60) == status


def test_ignored_signals_stay_ignored(environment: dict[str, str]) -> None:
    """As after the `trap ""` of a Slurm job: nothing is heard before the module wants to hear it."""
    ignoring = ["bash", "-c", 'trap "" USR2; exec "$0" "$@"', preloaded_python(), "-u", "-m", "module", "sleep"]
    with subprocess.Popen(ignoring, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        proxy.stdout.readline()
        proxy.stdout.readline()
        proxy.send_signal(signal.SIGUSR2)
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(60) == -signal.SIGTERM


@pytest.mark.parametrize("victim", ["proxy", "module"])
def test_neither_outlives_the_other(environment: dict[str, str], victim: str) -> None:
    """kill -9 of one ends both, and whoever waits for the proxy sees a process that was killed."""
    proxy, module = begin("sleep", environment)
    with proxy:
        os.kill(proxy.pid if victim == "proxy" else module, signal.SIGKILL)
        assert proxy.wait(60) == -signal.SIGKILL
        wait_until(lambda: not Path(f"/proc/{module}").exists())


def test_libraries_are_loaded_and_the_project_is_not(tmp_path: Path, environment: dict[str, str]) -> None:
    """So a worker imports the code that was launched."""
    (tmp_path / "module.py").write_text("import sys; print('torch' in sys.modules, 'study' in sys.modules)")
    done = subprocess.run([preloaded_python(), "-m", "module"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"

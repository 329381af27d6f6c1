"""Wrong commands end with status 2 and one screen that helps; right ones do what the first line of their help says."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from study import benchmark, launch, plan, prepare, report, status
from study.__main__ import COMMANDS
from study.__main__ import main as study
from study.cli.arguments import format_command
from study.config.sweep_file import read_sweep

PROJECT = Path(__file__).parents[2]
SCRIPTS = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
MODULES = {"plan": plan, "prepare": prepare, "benchmark": benchmark, "launch": launch, "status": status, "report": report}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("words", [["no/such.yaml"], ["no/such.yaml", "train.epochs"]])
def test_a_wrong_sweep_is_no_traceback(name, words, capsys, tmp_path, monkeypatch):
    """A path that isn't there: status 2, the path in the message, nothing on standard output, no folder made."""
    monkeypatch.chdir(tmp_path)
    assert MODULES[name].main(words) == 2
    captured = capsys.readouterr()
    assert "no/such.yaml" in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_sweeps_runs_is_answered_with_its_file(capsys, tmp_path, monkeypatch):
    """Also where the sweep is in the working folder, and other sweeps are elsewhere."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/mine", "sweeps"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("mine.yaml", "sweeps/other.yaml", "sweeps/mime.yaml"):
        (tmp_path / name).touch()
    for word in ("runs/mine", "runs/mine/"):
        assert status.main([word]) == 2
        assert "Is a directory" in (printed := capsys.readouterr().err) and printed.endswith("\n    valid: mine.yaml\n")


def test_what_the_system_refuses_is_one_screen(tmp_path, monkeypatch, capsys):
    """A folder of runs that is a file: status 1, the file, the operation and what to do; a plan needs no folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").touch()
    sweep = str(PROJECT / "sweeps/quickstart.yaml")
    assert MODULES["launch"].main([sweep]) == 1
    printed = capsys.readouterr().err
    assert "runs/quickstart" in printed and "again" in printed and len(printed.splitlines()) < 5, printed
    assert MODULES["plan"].main([sweep]) == 0


COMMAND = """
import sys
from study.errors import handle_user_errors
@handle_user_errors
def main(argv):
    print("Gr\\xf6\\xdfe?")
    return 0
sys.exit(main(None))
"""


@pytest.mark.parametrize("output", ["full", "closed", "ascii"])
def test_output_that_cannot_be_written_is_no_traceback(tmp_path, output):
    """A full device is told, a closed pipe (`head`) is no mistake, and characters that the output lacks are escaped."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    if output == "full":
        out = os.open("/dev/full", os.O_WRONLY)
    elif output == "closed":
        reader, out = os.pipe()
        os.close(reader)
    else:
        out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    command = [sys.executable, "-c", COMMAND]
    answer = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    os.close(out)
    assert answer.returncode == (0 if output == "ascii" else 1)
    assert ("No space left" in answer.stderr) == (output == "full") and "Traceback" not in answer.stderr
    assert output != "ascii" or (tmp_path / "out").read_text() == "Gr\\xf6\\xdfe?\n"


@pytest.mark.parametrize("words", [["-m", "study.launch"], ["-m", "study", "launch"]])
def test_ctrl_c_while_a_command_is_imported_is_no_traceback(tmp_path, words):
    """It comes here from a module in torch's place, which is imported before the command can catch anything."""
    (tmp_path / "torch.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}
    done = subprocess.run(
        [sys.executable, *words, "sweep.yaml"],
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode in (-signal.SIGINT, 130) and "Traceback" not in done.stderr


def test_every_command_explains_itself():
    """--help of each command names it and describes it in a sentence."""
    for name in COMMANDS:
        answer = subprocess.run([sys.executable, "-m", f"study.{name}", "--help"], capture_output=True, text=True, check=True)
        usage, description, _ = answer.stdout.split("\n\n", 2)
        assert f"study.{name}" in usage
        assert description[0].isupper() and description.endswith(".") and "key=value" not in description


def test_three_spellings_of_a_command_are_one(tmp_path):
    """`python -m study.plan`, `python -m study plan` and `study plan` give the same answer and status."""
    module, _, function = SCRIPTS["study"].partition(":")
    script = f"import sys; from {module} import {function}; sys.exit({function}())"  # what an installer writes
    spellings = (["-m", "study.plan"], ["-m", "study", "plan"], ["-c", script, "plan"])
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    answers = [
        subprocess.run(
            [sys.executable, *words, "no/such.yaml"], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
        )
        for words in spellings
    ]
    assert [answer.returncode for answer in answers] == [2, 2, 2]
    assert "no/such.yaml" in answers[0].stderr and len({answer.stderr for answer in answers}) == 1


def test_a_misspelt_command_gets_a_suggestion(capsys):
    """`study pln` finds plan; `study` alone lists the commands."""
    assert study(["pln"]) == 2
    assert "did you mean plan?" in capsys.readouterr().err
    assert study([]) == 2
    listed = capsys.readouterr().out
    assert all(name in listed for name in COMMANDS)


def test_a_suggested_command_is_short_and_the_same(tmp_path):
    """A thousand seeds are one word of it; what it means is unchanged, quoting included."""
    path = tmp_path / "a sweep.yaml"
    path.write_text("question: which?\nbackbone: vit\nseeds: [0]\n", encoding="utf-8")
    words = [f"seeds={list(range(1000))}", "expected=that it does", "train.lr=1e-3"]
    sweep = read_sweep(path, words)
    command = format_command("status", sweep, sweep.overrides, runs="elsewhere")
    assert len(command) < 200 and "seeds=1000" in command
    _, _, module, sweep_path, *overrides, option, runs = shlex.split(command)
    assert (module, option, runs) == ("study.status", "--runs", "elsewhere")
    again = read_sweep(sweep_path, overrides)
    assert again.seeds == sweep.seeds and again.base == sweep.base and again.expected == sweep.expected


@pytest.mark.parametrize("module", ["study.report", "study.status", "study.records", "study.reporting.report_folder"])
def test_reporting_works_without_torch(module):
    """Nothing that reports imports torch: a laptop without it redraws a report."""
    program = f"import sys; import {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

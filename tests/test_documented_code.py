"""Every example in the documentation is valid: commands are parsed, sweeps are read, Python is executed."""

from __future__ import annotations

import argparse
import contextlib
import doctest
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from preloaded_python import preloaded_python
from ruamel.yaml import YAML

from study.__main__ import COMMANDS
from study.config.sweep_file import read_sweep
from study.launcher.slurm.profile import read_profile
from study.planning.sweep_plan import make_plan

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "slurm" / "README.md", ROOT / "benchmarks" / "README.md"])
EXAMPLES = sorted(ROOT.glob("examples/*.py"))
LANGUAGES = {"bash", "yaml", "python", "text"}
PLACEHOLDERS = {"SWEEP": "sweeps/quickstart.yaml", "FOLDER": "folder", "FILE": "file", "N": "1"}
SMALLEST = """\
question: q
data: {name: digits, train_images: 100, predictions: true}
backbone: vit
model: {patch_size: 4, depth: 1, dim: 32}
train: {epochs: 1, batch_size: 50}
seeds: [0]
"""
OTHER_PROGRAMS = {"sinfo", "tensorboard", "eval", ".venv/bin/pre-commit"}  # used as their own documentation says


class Block(NamedTuple):
    """A fenced block of a page: where it begins, in which language, and what it says."""

    page: str
    line: int
    language: str
    text: str


def code_blocks() -> Iterator[Block]:
    """All fenced blocks, and the indented ones in the docstrings of the examples."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, flags=re.DOTALL | re.MULTILINE):
            yield Block(str(page.relative_to(ROOT)), text[: match.start()].count("\n") + 1, match[2], match[3])
    for script in EXAMPLES:
        for match in re.finditer(r"^(?:# )?    (python .*)$", script.read_text(encoding="utf-8"), flags=re.MULTILINE):
            yield Block(str(script.relative_to(ROOT)), 1, "bash", match[1])


def inline_commands() -> Iterator[Block]:
    """Commands between backticks in running text: they begin with one of the project's own."""
    for page in PAGES:
        text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for span in re.findall(r"`((?:python -m |python slurm|python examples|make |study )[^`]*)`", text):
            yield Block(str(page.relative_to(ROOT)), 0, "bash", span)


def commands() -> list[Block]:
    """One block for each command, its lines joined and its comment removed."""
    found = []
    for block in [*code_blocks(), *inline_commands()]:
        if block.language == "bash":
            lines = block.text.replace("\\\n", " ").splitlines()
            found += [block._replace(text=line.strip()) for line in lines if line.split("#")[0].strip()]
    return found


def described(block: Block) -> str:
    return f"{block.page}:{block.line} {block.text[:70]}" if block.language == "bash" else f"{block.page}:{block.line}"


def without_placeholders(words: Sequence[str]) -> list[str]:
    return [PLACEHOLDERS.get(word, word) for word in words if word != "..."]


class Parsed(BaseException):
    """Raised in place of what a command would do, with its arguments."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments


def parse_arguments(main: Callable[[Sequence[str]], int], words: Sequence[str]) -> argparse.Namespace:
    """The arguments as a command parses them; the command itself does not run."""
    parse = argparse.ArgumentParser.parse_known_intermixed_args

    def stop(parser: argparse.ArgumentParser, args: Sequence[str] | None = None, namespace: None = None) -> None:
        found, rest = parse(parser, args, namespace)
        raise Parsed(parser.error(f"unknown arguments {rest}") if rest else found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(argparse.ArgumentParser, "parse_intermixed_args", stop)
        try:
            status = main(words)
        except Parsed as parsed:
            return parsed.arguments
    pytest.fail(f"exit status {status} before the arguments were parsed")


@cache
def check_sweep(path: str, overrides: Sequence[str]) -> None:
    """The sweep exists and can be planned with the overrides; of image folders, which aren't here, it is only read."""
    sweep = read_sweep(ROOT / path, overrides)
    if sweep.base["data.name"].value != "folder":
        with sweep.plugins.in_use():
            make_plan(sweep)


def check_study(name: str, words: Sequence[str]) -> None:
    """A command of the project: its arguments parse, its sweep exists and takes the overrides, its profile takes them too."""
    if name not in COMMANDS:
        assert words == [] and name in ("--version", "--help"), f"no such command: {name}"
        return
    if not words:
        return  # the command is only mentioned
    arguments = parse_arguments(importlib.import_module(f"study.{name}").main, words)
    for sweep in [getattr(arguments, "sweep", ""), *getattr(arguments, "compare", [])]:
        if str(sweep).endswith(".yaml"):
            check_sweep(sweep, tuple(arguments.overrides))
    if overrides := getattr(arguments, "profile_overrides", []):
        read_profile(ROOT / "slurm" / "default.yaml", overrides)


def check_make(words: Sequence[str]) -> None:
    """A target of the Makefile; variables are those that it uses."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert targets is not None
    for word in words:
        name, _, value = word.partition("=")
        assert f"$({name})" in makefile or f",{name}" in makefile if value else name in targets[1].split(), word


def check_module(module: str, words: Sequence[str]) -> None:
    """`python -m MODULE`: a command of the project, a benchmark, or pytest with existing files."""
    package, _, name = module.partition(".")
    if package == "study":
        check_study(name or words[0], words if name else words[1:])
    elif package == "benchmarks":
        parse_arguments(importlib.import_module(module).main, words)
    else:
        assert module == "pytest"
        assert all((ROOT / word).exists() for word in words if not word.startswith("-")), words


def check_devcluster(words: Sequence[str]) -> None:
    """The throwaway cluster: a known action with the options that it lists."""
    action, *rest = words
    command = [sys.executable, "slurm/devcluster", action, "--help"]
    help_text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(word in help_text for word in rest if word.startswith("--")), words


def check_pip(words: Sequence[str]) -> None:
    """Extras of the project exist; of other packages only pre-commit is named."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert words[0] == "install"
    for word in words[1:]:
        match = re.fullmatch(r"(?:patch-or-attention|\.)(?:\[([\w,]+)\])?", word)
        assert word in ("-e", "pre-commit") or match is not None, word
        assert match is None or set((match[1] or "").split(",")) <= {"", *extras}, word


def check_debian(words: Sequence[str]) -> None:
    """The Debian packages are among those that `make test` installs."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    packages = re.search(r"^DEBIAN_PACKAGES := (.*)$", makefile, flags=re.MULTILINE)
    assert packages is not None
    assert words[0] == "install"
    assert {word for word in words[1:] if not word.startswith("-")} <= set(packages[1].split())


def check_command(words: Sequence[str]) -> None:
    """Raise for a command that would not be understood, or that this test doesn't know."""
    words = without_placeholders(words)
    while re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        words = words[1:]  # an environment variable
    program, *rest = words
    if program == "make":
        check_make(rest)
    elif program == "study":
        check_study(rest[0], rest[1:])
    elif program in ("pip", ".venv/bin/pip"):
        check_pip(rest)
    elif program == "sudo":
        assert rest[0] == "apt-get"
        check_debian(rest[1:])
    elif program in ("python", ".venv/bin/python") and rest[0] == "-m":
        check_module(rest[1], rest[2:])
    elif program == "python" and rest[0] == "slurm/devcluster":
        check_devcluster(rest[1:])
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), rest[0]
    else:
        assert program in OTHER_PROGRAMS, f"this test doesn't know the program {program}"


@pytest.mark.parametrize("block", commands(), ids=described)
def test_commands_are_valid(block: Block) -> None:
    """Options, sweeps, overrides and targets exist."""
    nested = re.search(r"\$\((python .*?)\)", block.text)
    words = shlex.split(nested[1] if nested else block.text, comments=True)
    check_command(words[: words.index("|")] if "|" in words else words)


def test_code_blocks_name_their_language() -> None:
    """Blocks are fenced and have a language that this test checks; none is indented."""
    assert [described(block) for block in code_blocks() if block.language not in LANGUAGES] == []
    indented = re.compile(r"\n\n {4}(?![-*\d ])\S")
    assert [page.name for page in PAGES if indented.search(page.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("block", [block for block in code_blocks() if block.language == "yaml"], ids=described)
def test_yaml_can_be_read(block: Block, tmp_path: Path) -> None:
    """A whole sweep is read as it is; a part of one is completed by the options that are required."""
    file = tmp_path / "sweep.yaml"
    file.write_text(block.text, encoding="utf-8")
    shutil.copy(ROOT / "examples" / "plugin" / "my_models.py", tmp_path)
    yaml = YAML()
    given = yaml.load(block.text)
    if "question" not in given:
        required = {"question": "q", "backbone": "vit", "data": {"name": "digits"}, "seeds": [0]}
        sections = {"model": {"patch_size": 4, "depth": 1}, "train": {"epochs": 1}, "match": {"by": "params", "target": "5k"}}
        completed = {name: {**section, **given.get(name, {})} for name, section in sections.items()}
        yaml.dump({**required, **given, **completed}, file)
    assert read_sweep(file).question


@pytest.fixture(scope="module")
def recorded_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of the sweeps that the documentation loads: the smallest run that there is."""
    folder = tmp_path_factory.mktemp("documented")
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "quickstart.yaml").write_text(SMALLEST, encoding="utf-8")
    (folder / "reports").symlink_to(ROOT / "reports")
    command = [preloaded_python(), "-m", "study.launch", "sweeps/quickstart.yaml", "--cluster", "local"]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    shutil.copytree(folder / "runs" / "quickstart", folder / "runs" / "patch_size")
    return folder


def python_examples() -> list[Block]:
    return [block for block in code_blocks() if block.language == "python"]


@pytest.mark.xdist_group("launch")
@pytest.mark.parametrize("block", python_examples(), ids=described)
def test_python_examples_are_correct(block: Block, recorded_runs: Path) -> None:
    """Examples with `>>>` print what they show, where they show something; other blocks are executed."""
    with contextlib.chdir(recorded_runs):
        if ">>>" not in block.text:
            exec(block.text, {})
            return
        examples = doctest.DocTestParser().get_doctest(block.text, {}, described(block), block.page, block.line)
        for example in examples.examples:
            if not example.want:
                example.options[doctest.SKIP] = True
                exec(example.source, examples.globs)
        runner = doctest.DocTestRunner(verbose=False)
        runner.run(examples, clear_globs=False)
        assert runner.failures == 0

"""What keeps the code easy to find one's way in, where neither ruff nor import-linter can check it."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "study"
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 320, 60
FOLDERS, LEVELS = 20, 9
OF_EVERY_COMMAND = {"main", "parser"}
PUBLIC_INTERFACE = {Path("study/__init__.py"), Path("study/notebook.py")}  # for users: nothing in the package imports it
ODD_WORDS = re.compile(
    r"\b(told|mend(s|ed|ing)?|hangs on|goes before|nobody's|typed again|how-manieth|let go of|hopeless|dearest|handed on"
    r"|laid out|stands? beside|as written down)\b",
    re.IGNORECASE,
)
TEXT = {".py", ".md", ".yaml", ".yml", ".html", ".js", ".css", ".cpp", ".h", ".toml", ".sh", ""}
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(root|work)/\w|(?<![\w.])/tmp/(wt|tools)\b")


@cache
def parsed() -> Mapping[Path, ast.Module]:
    """Every module of the package by its path in the repository."""
    return {path.relative_to(REPOSITORY): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path, tree in parsed().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path}:{node.lineno} {node.name}", node


def text_files(*names: str) -> Iterator[tuple[Path, str]]:
    """The tracked text files under these folders, or all of them."""
    listed = subprocess.run(["git", "ls-files", "-z", *names], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        path = REPOSITORY / name
        if path.suffix in TEXT and path.is_file():
            yield path.relative_to(REPOSITORY), path.read_text(encoding="utf-8")


def expect_none(found: Mapping[str, object]) -> None:
    assert not found, "\n".join(f"{place}: {what}" for place, what in found.items())


def test_a_module_name_occurs_once() -> None:
    """A file is found by its name alone."""
    paths = defaultdict(list)
    for path in parsed():
        if path.stem != "__init__":
            paths[path.stem].append(str(path))
    expect_none({stem: found for stem, found in paths.items() if len(found) > 1})


def test_a_public_name_means_one_thing() -> None:
    """No two modules define the same public function, class or constant."""
    paths = defaultdict(list)
    for path, tree in parsed().items():
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            names += [target.id for target in targets if isinstance(target, ast.Name)]
            for name in names:
                if not name.startswith("_") and name not in OF_EVERY_COMMAND and path not in PUBLIC_INTERFACE:
                    paths[name].append(str(path))
    expect_none({name: found for name, found in paths.items() if len(found) > 1})


def test_functions_name_their_arguments() -> None:
    """`**kwargs` hides what a function takes; decorators pass on a typed P.kwargs, and `build` checks a backbone's settings."""
    found = {}
    for place, function in functions():
        annotation = function.args.kwarg.annotation if function.args.kwarg else None
        passed_on = isinstance(annotation, ast.Attribute) and annotation.attr == "kwargs"
        if function.args.kwarg and not passed_on and not re.fullmatch(r"study/backbones/registry.py:\d+ build", place):
            found[place] = ast.unparse(function.args)
    expect_none(found)


def test_files_and_functions_have_readable_lengths() -> None:
    """A file is a chapter, a function fits a screen."""
    lengths = {str(path): len((REPOSITORY / path).read_text(encoding="utf-8").splitlines()) for path in parsed()}
    expect_none({path: lines for path, lines in lengths.items() if lines > LINES_OF_A_FILE})
    long = {place: 1 + (node.end_lineno or 0) - node.lineno for place, node in functions()}
    expect_none({place: lines for place, lines in long.items() if lines > LINES_OF_A_FUNCTION})


def test_no_assert_has_an_effect() -> None:
    """`python -O` executes none: an assert calls only what answers a question."""
    pure = {"GELU", "len", "sum", "map", "abs", "min", "max", "all", "isinstance", "list", "closed_form", "read_text", "values"}
    found = {}
    for path, tree in parsed().items():
        for test in (node.test for node in ast.walk(tree) if isinstance(node, ast.Assert)):
            calls = {ast.unparse(node.func).rpartition(".")[2] for node in ast.walk(test) if isinstance(node, ast.Call)}
            effects = {name for name in calls - pure if not re.match("is_?[A-Z_]|has_|can_|sees_", name)}
            if effects or any(isinstance(node, ast.NamedExpr) for node in ast.walk(test)):
                found[f"{path}:{test.lineno}"] = sorted(effects)
    expect_none(found)


def test_words_are_standard_english() -> None:
    """None of the words that an earlier version of this project used for what has a common name."""
    found = {
        f"{path}:{number}": match[0]
        for path, text in text_files("study", "docs", "README.md", "sweeps", "examples")
        for number, line in enumerate(text.splitlines(), start=1)
        for match in ODD_WORDS.finditer(line.replace("_", " "))
    }
    expect_none(found)


def test_nothing_names_the_machine_it_was_written_on() -> None:
    """No home folder and no workplace occurs in any tracked file."""
    found = {
        f"{path}:{number}": line.strip()
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), start=1)
        if MACHINE_PATH.search(line)
    }
    expect_none(found)


# ---- Folders and who imports whom (that there are no circles is an import-linter contract in pyproject.toml) -------------


def folder_of(module: str) -> str:
    """The folder under study/ of a module. Modules at the top are commands, or what every folder may use."""
    folder, _, rest = module.removeprefix("study.").partition(".")
    if rest or (PACKAGE / folder).is_dir():
        return folder
    tree = parsed()[Path("study", f"{folder}.py")]
    return "commands" if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body) else "basis"


def imports_of(tree: ast.Module) -> Iterator[str]:
    """The modules of the package that a module imports anywhere, also for its types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("study."))
        elif isinstance(node, ast.ImportFrom) and node.module == "study":
            yield from (f"study.{alias.name}" for alias in node.names if not alias.name.startswith("__"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("study."):
            yield str(node.module)


def test_there_are_few_folders() -> None:
    """As many as a reader can keep in mind, folders inside folders included."""
    folders = {path.parent for path in parsed()}
    assert len(folders) <= FOLDERS, sorted(map(str, folders))


def test_folders_form_few_levels() -> None:
    """From a command down to what every folder may use."""
    imported: dict[str, set[str]] = defaultdict(set)
    for path, tree in parsed().items():
        if path not in PUBLIC_INTERFACE:
            folder = path.parts[1] if len(path.parts) > 2 else folder_of(f"study.{path.stem}")
            imported[folder].update({folder_of(name) for name in imports_of(tree)} - {folder})
    levels: dict[str, int] = {}
    for folder in graphlib.TopologicalSorter(imported).static_order():  # raises CycleError with a circle
        levels[folder] = 1 + max((levels[below] for below in imported.get(folder, ())), default=0)
    assert max(levels.values()) <= LEVELS, levels

"""Plug-ins: what a user's file registers, its part in identities, its copy for workers, and its mistakes with their lines."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from study import Sweep, load_table
from study.backbones import names
from study.backbones.token_mixers import TOKEN_MIXERS
from study.config.plugins import load_plugins
from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.plan import main as plan
from study.planning.sweep_plan import make_plan
from study.records.code_snapshot import list_copied_plugins, require_launched_code, take_snapshot

ROOT = Path(__file__).resolve().parents[2]
SWEEP = """question: "A mixer of mine?"
plugins: [mine.py]
data: {name: digits}
model: {patch_size: 4, dim: 8, depth: 1, heads: 2}
train: {epochs: 1}
zip:
  - backbone: [vit, metaformer]
    model.token_mixer: [attention, double]
seeds: 1
"""
PLUGIN = """from torch import nn
from study.backbones.closed_form import PartCost
from study.backbones.token_mixers import TOKEN_MIXERS, TokenMixer

class Double(nn.Module):
    def __init__(self, spec):
        super().__init__()
    def forward(self, tokens):
        return 2 * tokens

def cost(spec):
    return PartCost()

TOKEN_MIXERS.register("double", TokenMixer(Double, cost))
"""


def write(folder: Path, plugin: str = PLUGIN, sweep: str = SWEEP) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(plugin)
    (folder / "sweep.yaml").write_text(sweep)
    return folder / "sweep.yaml"


def run_ids(path: Path) -> list[str]:
    sweep = read_sweep(path)
    with sweep.plugins.in_use():
        return [planned.run_id for planned in make_plan(sweep).runs]


def test_the_digest_is_part_of_the_identity_of_the_runs_that_use_the_code(tmp_path: Path) -> None:
    """A changed file makes another run of the mixer's cell; the other cell is the run of a sweep without plug-ins."""
    path = write(tmp_path)
    before = run_ids(path)
    write(tmp_path, PLUGIN + "# changed\n")
    after = run_ids(path)
    assert before[0] == after[0] and before[1] != after[1]
    plain = SWEEP.replace("plugins: [mine.py]\n", "").replace("double", "identity")
    assert run_ids(write(tmp_path / "plain", sweep=plain))[0] == before[0]


def test_sweeps_of_one_process_have_their_own_parts(tmp_path: Path) -> None:
    """Two files register the same name; outside of a sweep's use there is neither."""
    one = read_sweep(write(tmp_path / "one"))
    two = read_sweep(write(tmp_path / "two", PLUGIN.replace("2 * tokens", "3 * tokens")))
    for sweep in (one, two, one):
        with sweep.plugins.in_use():
            found = TOKEN_MIXERS.find_plugin_part("double")
            assert found is not None and found.place.endswith("/mine.py:14")
            assert TOKEN_MIXERS["double"] is sweep.plugins.parts.parts["token mixer", "double"].part
    assert "double" not in TOKEN_MIXERS and one.plugins.parts != two.plugins.parts


MISTAKES = {
    "an import": (PLUGIN.replace("import nn", "import nn, nothing"), "mine.py:1: ImportError: cannot import name 'nothing'"),
    "syntax": (PLUGIN.replace("2 * tokens", "2 *"), "mine.py:9: SyntaxError"),
    "a taken name": (PLUGIN.replace('"double"', '"mlp"'), "mine.py:14: token mixer mlp: the package has a token mixer"),
    "twice": (PLUGIN + PLUGIN.splitlines()[-1], "mine.py:15: token mixer double: a token mixer of this name is registered at"),
    "another type": (PLUGIN.replace("TokenMixer(Double, cost)", "Double"), "mine.py:14: token mixer double: not a TokenMixer"),
    "a signature": (
        PLUGIN.replace("__init__(self, spec)", "__init__(self, spec, heads)"),
        "mine.py:14: token mixer double: construct is called with the specification: missing a required argument: 'heads'",
    ),
    "in a cost": (PLUGIN.replace("return PartCost()", "return PartCost(spec.nothing)"), "mine.py:12: AttributeError"),
    "a wrong cost": (PLUGIN.replace("PartCost()", "PartCost(macs=1)"), "mine.py:14: the closed form of metaformer is wrong"),
    "in use": (PLUGIN.replace("2 * tokens", "tokens.nothing"), "mine.py:9: AttributeError"),
    "construction": (
        PLUGIN.replace(
            "super().__init__()", 'super().__init__(); self.register_buffer("a", torch.tensor(random.random()))'
        ).replace("from torch", "import random, torch\nfrom torch", 1),
        "mine.py:15: metaformer with double: two models with the same seed differ",
    ),
    "nothing": ("", "mine.py: plugins: this plug-in registers nothing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_reported_at_their_lines(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, the file and line, one screen."""
    content, message = MISTAKES[mistake]
    write(tmp_path, content)
    monkeypatch.chdir(tmp_path)
    assert plan(["sweep.yaml"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(message) and len(printed.splitlines()) < 38


def test_a_missing_file_is_reported_at_its_line_in_the_sweep(tmp_path: Path) -> None:
    """The place is the entry of `plugins`."""
    path = write(tmp_path)
    (tmp_path / "mine.py").unlink()
    with pytest.raises(UserError, match=r"sweep.yaml:2: plugins: cannot read this plug-in"):
        read_sweep(path)
    assert read_sweep(path, with_plugins=False).name == "sweep"


def test_workers_import_the_copy(tmp_path: Path) -> None:
    """The copy's name covers the file, edits of the original change nothing, an edited copy is refused."""
    path = write(tmp_path).parent / "mine.py"
    package = tmp_path / "study"
    package.mkdir()
    (package / "a.py").write_text("")
    name = take_snapshot(tmp_path / "code", package, plugins=[path])
    copy = tmp_path / "code" / name / "study"
    path.write_text("")
    require_launched_code(name, copy, plugins=["mine.py"])
    [copied] = list_copied_plugins(["mine.py"], copy)
    assert list(load_plugins([copied]).parts.parts) == [("token mixer", "double")]
    copied.write_text("")
    with pytest.raises(UserError, match="imported other code"):
        require_launched_code(name, copy, plugins=["mine.py"])


def test_the_example_is_planned_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's ViT is solved over traced counts; the data set is what its function returns."""
    shutil.copytree(ROOT / "examples" / "plugin", tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    sweep = read_sweep("mine/sweep.yaml")
    with sweep.plugins.in_use():
        runs = {(planned.run.backbone, planned.levels["model.token_mixer"]): planned for planned in make_plan(sweep).runs}
        assert "timm_vit" in names()
    timm_run = runs["timm_vit", "attention"]
    assert timm_run.cost.params == 26_274 and [plugin.name for plugin in timm_run.run.plugins] == ["my_models.py"]
    assert timm_run.run.data.num_classes == 2 and timm_run.run.data.name == "stripes"
    assert "timm_vit" not in names()


@pytest.mark.slow
def test_the_example_is_trained_and_reported_without_its_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers train from the copy; the report needs neither the sweep nor the file."""
    shutil.copytree(ROOT / "examples" / "plugin", tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    table = Sweep.from_file("mine/sweep.yaml", "seeds=1").launch(cluster="local", workers=1)
    assert set(table["status"]) == {"done"}
    shutil.rmtree(tmp_path / "mine")
    text = Path("runs/plugin_example")
    from study.report import main as report

    assert report([str(text)]) == 0 and len(load_table(text)) == len(table)
    assert re.search(r"plug-ins: my\\?_models.py [0-9a-f]{16}", (text / "report" / "report.md").read_text())

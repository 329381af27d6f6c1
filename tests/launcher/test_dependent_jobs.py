"""The command of a job that launches what follows a stage."""

from __future__ import annotations

from pathlib import Path

from study.config.sweep_file import read_sweep
from study.launcher.slurm.dependent_jobs import make_next_stage_job
from study.launcher.slurm.profile import Profile
from study.records.code_snapshot import take_snapshot
from study.records.ledger import Launch
from study.records.sweep_folder import SweepFolder

PLUGIN = """from study.backbones.closed_form import PartCost
from study.backbones.token_mixers import TOKEN_MIXERS, TokenMixer
from torch import nn

TOKEN_MIXERS.register("mine", TokenMixer(lambda spec: nn.Identity(), lambda spec: PartCost()))
"""


def test_it_plans_with_the_plugins_of_the_launch(tmp_path: Path) -> None:
    """Wherever the sweep names them, and whatever has become of the files since."""
    original = tmp_path / "parts" / "mine.py"
    for folder in (original.parent, tmp_path / "sweeps"):
        folder.mkdir()
    original.write_text(PLUGIN)
    path = tmp_path / "sweeps" / "own.yaml"
    path.write_text("question: which?\nplugins: [../parts/mine.py]\nbackbone: vit\ndata: {name: digits}\nseeds: 1\n")
    sweep, folder = read_sweep(path), SweepFolder(tmp_path / "runs" / "own")
    code = take_snapshot(folder.code, plugins=sweep.plugins.paths)
    launch = Launch("a", "slurm", "p", code, 1, 1, device="cpu", provenance={}, plugins=("mine.py",))
    (folder.launches / "a" / "jobs").mkdir(parents=True)
    job = make_next_stage_job(folder, launch, sweep, Profile(), workers=1, report=False)
    original.write_text("raise RuntimeError")
    copy, *words = job.words[2:]
    again = read_sweep(copy, [word for word in words if word.startswith("plugins=")])
    assert again.plugins.paths == ((folder.code / code / "plugins" / "mine.py").resolve(),)
    assert list(again.plugins.parts.parts) == [("token mixer", "mine")]

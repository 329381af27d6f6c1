"""A sweep in Python is the sweep of the same file: same runs, same identities, same mistakes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study import Sweep
from study.config.sweep_file import read_sweep
from study.errors import UserError
from study.planning.sweep_plan import make_plan

QUICKSTART = Path(__file__).parents[1] / "sweeps" / "quickstart.yaml"
DOCUMENT: dict[str, Any] = {
    "name": "quickstart",
    "question": "Which affects the accuracy on 8x8 digits more, the patch size or the backbone?",
    "effect_of_interest": {"error_ratio": 1.5},
    "data": {"name": "digits"},
    "model": {"depth": 2, "position_embedding": "learned"},
    "backbones": {"convmixer": {"model": {"kernel_size": 3}}},
    "train": {"epochs": 40, "batch_size": 64, "lr": 1e-2, "warmup_epochs": 1, "weight_decay": 0.3, "label_smoothing": 0.1},
    "augment": {"mixup": 0.3},
    "match": {"by": "params", "target": "30k", "head_dim": 8},
    "axes": {"backbone": ("convmixer", "vit", "mlp_mixer"), "model.patch_size": (1, 2, 4)},
    "seeds": 5,
}


def test_a_dictionary_is_the_sweep_of_the_file(tmp_path: Path) -> None:
    """The quickstart as a dictionary plans the runs of the quickstart's file; its text is a file that reads the same."""
    sweep = Sweep.from_dict(DOCUMENT, runs=tmp_path)
    planned = sweep.plan()
    expected = make_plan(read_sweep(QUICKSTART))
    assert list(planned.runs["run_id"]) == [each.run_id for each in expected.runs]
    assert list(planned.runs["macs"]) == [each.cost.macs for each in expected.runs]
    assert planned.contrasts["primary"].sum() == 6
    assert not any(tmp_path.iterdir()), "nothing is written before the launch"
    path = tmp_path / "again.yaml"
    path.write_text(sweep.definition.text, encoding="utf-8")
    assert [each.run_id for each in make_plan(read_sweep(path)).runs] == list(planned.runs["run_id"])
    from_file = Sweep.from_file(QUICKSTART, "seeds=2", runs=tmp_path)
    assert len(from_file.plan().runs) == 18 and from_file.folder == tmp_path / "quickstart"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": None}, "needs a name"),
        ({"name": "../x"}, "name"),
        ({"sedes": 3}, "did you mean 'seeds'"),
        ({"device": "gpu"}, r"sweep.yaml:\d+: device: .*'gpu'"),
        ({"train": {"lr": np.float32(0.1)}}, "float32"),
    ],
)
def test_mistakes_are_those_of_a_file(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Each is a UserError that names the key; nothing is written."""
    with pytest.raises(UserError) as raised:
        Sweep.from_dict({**DOCUMENT, **change}, runs=tmp_path)
    assert re.search(said, str(raised.value))
    assert not any(tmp_path.iterdir())

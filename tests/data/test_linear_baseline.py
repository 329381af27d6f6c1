"""The linear baseline is scikit-learn's, fitted on training images alone, and recorded once per data set."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from study.config.sweep_file import read_sweep
from study.data import describe_dataset
from study.data.linear_baseline import fit_linear_baseline
from study.data.splits import load_splits
from study.errors import UserError
from study.planning.resolver import collect_data_options
from study.planning.sweep_plan import make_plan
from study.records.baseline_accuracy import baseline_name, read_baselines, write_baseline

SWEEP = """\
question: which?
data: {name: digits}
model: {depth: 1, patch_size: 4}
train: {epochs: 1}
match: {by: params, target: 20k, head_dim: 8}
backbone: vit
seeds: [0]
"""


def write_sweep(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return read_sweep(tmp_path / "sweep.yaml")


def test_it_is_a_fair_linear_model(tmp_path):
    """Its accuracy equals that of a plain logistic regression on scaled pixels, within the error of 599 test images."""
    sweep = write_sweep(tmp_path)
    (options,) = (each.model_copy(update={"split": "fixed"}) for each in collect_data_options(sweep))
    splits = load_splits(options, describe_dataset(options))
    train, test = (part.images.numpy().reshape(len(part), -1) / 255.0 for part in (splits.train, splits.test))
    plain = LogisticRegression(max_iter=1000).fit(train, splits.train.labels.numpy())
    expected = float(np.mean(plain.predict(test) == splits.test.labels.numpy()))
    found = fit_linear_baseline(make_plan(sweep).runs[0].run.data)
    assert abs(found - expected) < 0.02


def test_it_is_recorded_once_per_data_set(tmp_path):
    """A second call fits nothing; the name is the one that the table reads."""
    data = make_plan(write_sweep(tmp_path)).runs[0].run.data
    folder, name = tmp_path / "baselines", baseline_name(data)
    write_baseline(folder, data, fit=lambda: fit_linear_baseline(data))
    assert read_baselines(folder) == {name: fit_linear_baseline(data)}
    write_baseline(folder, data, fit=lambda: pytest.fail("fitted twice"))


DAMAGED = ("", "null", "[]", "{", '{"baseline_accuracy": null}', '{"baseline_accuracy": 5}', "[" * 100_000)


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_baseline_is_named_and_fitted_again(tmp_path, content, capsys):
    """A report names the file; the next launch replaces it, and says so."""
    data = make_plan(write_sweep(tmp_path)).runs[0].run.data
    folder = tmp_path / "baselines"
    write_baseline(folder, data, fit=lambda: 0.5)
    (path,) = folder.iterdir()
    path.write_text(content)
    with pytest.raises(UserError, match=path.name):
        read_baselines(folder)
    write_baseline(folder, data, fit=lambda: 0.5)
    assert read_baselines(folder) == {path.name: 0.5} and path.name in capsys.readouterr().err

"""Whole sweeps as their run tables, curves and facts, for tests of figures, report and page: plausible, not measured.

Built on the simulated studies, with the columns that `load_table` adds around the accuracies.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from simulated_study import Truth, run_table

from study.analysis.report_files import write_tables
from study.analysis.report_tables import StudyTables
from study.records import StudyFacts
from study.rng import stream

BUDGET = 50_000
SHARES = {"convmixer": (0.02, 0.08, 0.88), "vit": (0.02, 0.36, 0.60), "mlp_mixer": (0.02, 0.55, 0.41)}
"""Of the MACs: stem, token mixing, channel mixing; the rest is the head."""


@dataclass(frozen=True)
class Example:
    """A sweep with all its tables."""

    table: pd.DataFrame
    curves: pd.DataFrame
    facts: StudyFacts
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def tables(self) -> StudyTables:
        """The sweep as the input of a report."""
        return StudyTables(self.table, self.curves, self.facts, self.trials)


def patch_size(*, seeds: int = 5, epochs: int = 12) -> Example:
    """Three backbones at four patch sizes and one parameter budget."""
    means = np.array([[0.952, 0.921, 0.913], [0.961, 0.933, 0.928], [0.942, 0.925, 0.905], [0.882, 0.871, 0.842]])
    axes = {"patch_size": [1, 2, 4, 8], "backbone": ["convmixer", "vit", "mlp_mixer"]}
    table = completed(run_table(Truth(axes, means), seeds=seeds), factors=["model.patch_size", "backbone"])
    return example(table, axes={"model.patch_size": [1, 2, 4, 8], "backbone": axes["backbone"]}, epochs=epochs)


def token_mixer(*, seeds: int = 4, epochs: int = 6) -> Example:
    """Token mixers of one body by patch sizes and kernel sizes: more than two factors."""
    mixers = ["attention", "depthwise_conv", "identity", "pooling"]
    axes = {"patch_size": [1, 2, 4], "token_mixer": mixers, "kernel_size": [3, 7]}
    rng = stream(0, "example", "token mixer")
    means = 0.9 + rng.normal(0, 0.02, (3, 4, 2)) - np.array([0.0, 0.01, 0.05])[:, None, None]
    table = completed(run_table(Truth(axes, means), seeds=seeds), factors=list(axes))
    return example(table, axes={f"model.{name}": levels for name, levels in axes.items()}, epochs=epochs)


def one_factor(*, seeds: int = 3, epochs: int = 4) -> Example:
    """Learning rates of one backbone at one patch size."""
    axes = {"lr": [0.0003, 0.001, 0.003, 0.01]}
    table = run_table(Truth(axes, np.array([0.81, 0.88, 0.91, 0.74])), seeds=seeds, backbone="vit").assign(patch_size=4)
    return example(completed(table, factors=["lr"]), axes={"train.lr": axes["lr"]}, epochs=epochs)


def ablation(*, patch_sizes: tuple[int, ...] = (2,), seeds: int = 5) -> Example:
    """A baseline and five changes: one that destroys, one that helps, three that matter little."""
    changes = ["baseline", "no residual", "LayerNorm", "ReLU", "with mixup", "no flip"]
    effects = np.array([0.0, -0.12, -0.012, -0.0004, 0.011, 0.003])
    means = 0.93 + effects - 0.01 * np.arange(len(patch_sizes))[:, None]
    table = run_table(Truth({"patch_size": list(patch_sizes), "change": changes}, means), seeds=seeds, backbone="convmixer")
    axes = {"model.patch_size": list(patch_sizes)} if len(patch_sizes) > 1 else {}
    found = example(completed(table, factors=["change"]), axes={**axes, "change": changes}, epochs=6)
    return replace(found, facts=replace(found.facts, effect_of_interest=0.75))


def data_sets(count: int) -> Example:
    """Two backbones at two patch sizes on several data sets of very different accuracy and unequal baselines."""
    levels = {"patch_size": [2, 4], "backbone": ["convmixer", "vit"]}
    tables = []
    for n in range(count):
        means = np.array([[0.9, 0.88 + 0.01 * n], [0.87, 0.84]]) - 0.1 * n
        table = run_table(Truth(levels, means), seeds=4, key=f"set {n}").assign(data_name="folder", data_set=f"set{n}")
        own = completed(table, factors=[f"set{n}"]).assign(baseline_accuracy=0.5 - 0.1 * n)
        tables.append(own.assign(run_id=f"set{n}-" + own["run_id"].astype(str)))
    axes = {"data.root": [f"set{n}" for n in range(count)], "model.patch_size": [2, 4], "backbone": levels["backbone"]}
    return example(pd.concat(tables, ignore_index=True), axes=axes, epochs=4)


def tuned(*, rates: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01), decays: tuple[float, ...] = (0.02,)) -> Example:
    """Two backbones at two patch sizes, each cell with its own learning rate, finally trained on validation images as well."""
    axes = {"patch_size": [2, 4], "backbone": ["convmixer", "vit"]}
    table = completed(run_table(Truth(axes, np.array([[0.95, 0.93], [0.94, 0.90]])), seeds=3), factors=list(axes))
    sweep = example(table, axes={"model.patch_size": [2, 4], "backbone": axes["backbone"]}, epochs=4)
    peaks = {"convmixer": 0.003, "vit": 0.0003}
    rng = stream(0, "example", "trials")
    rows = []
    for start in table.drop_duplicates(["patch_size", "backbone"]).to_dict("records"):
        cell = f"{start['backbone']}-p{start['patch_size']}"
        for lr, decay, seed in itertools.product(rates, decays, (100, 101)):
            off = abs(np.log(lr / peaks[start["backbone"]])) * 0.01 + abs(decay - 0.02)
            rows.append(
                {
                    **start,
                    "run_id": f"{cell}-{lr}-{decay}-s{seed}",
                    "cell": cell,
                    "seed": seed,
                    "lr": lr,
                    "weight_decay": decay,
                    "stage": "trial",
                    "test_accuracy": None,
                    "test_loss": None,
                    "val_accuracy": 0.93 - off + rng.normal(0, 0.001),
                }
            )
    trials = pd.DataFrame(rows)
    means = trials.groupby(["cell", "lr", "weight_decay"])["val_accuracy"].transform("mean")
    trials["selected"] = means == means.groupby(trials["cell"]).transform("max")
    best = trials[trials["selected"]].drop_duplicates("cell").set_index(["backbone", "patch_size"])["lr"].to_dict()
    own = [best[key] for key in zip(table["backbone"], table["patch_size"], strict=True)]
    levels = {"lr": list(rates), **({"weight_decay": list(decays)} if len(decays) > 1 else {})}
    per_cell = 2 * len(rates) * len(decays)
    facts = replace(sweep.facts, tuned=levels, trials_per_cell=per_cell)
    table = table.assign(lr=own, fit_on="train+val", val_accuracy=np.nan, trials=per_cell)
    curves = sweep.curves.assign(val_accuracy=np.nan, val_loss=np.nan)
    return Example(table, curves, facts, trials.assign(fit_on="train", trials=per_cell))


def completed(table: pd.DataFrame, *, factors: list[str]) -> pd.DataFrame:
    """The table with the remaining columns of a run table, computed from those it has."""
    rng = stream(0, "example", "columns", *factors)
    patch = table["patch_size"].to_numpy(dtype=float)
    tokens = (32 / patch) ** 2
    mixing = np.array([SHARES.get(name, SHARES["convmixer"]) for name in table["backbone"]])
    macs = np.rint(BUDGET * tokens * (1 + mixing[:, 1]))
    added = {
        "status": "done",
        "params": np.rint(BUDGET * (1 + rng.uniform(-0.015, 0.015, len(table)))).astype(int),
        "tokens": tokens.astype(int),
        "macs": macs.astype(int),
        "macs_stem": (macs * mixing[:, 0]).astype(int),
        "macs_token_mixing": (macs * mixing[:, 1]).astype(int),
        "macs_channel_mixing": (macs * mixing[:, 2]).astype(int),
        "macs_head": (macs * (1 - mixing.sum(axis=1))).astype(int),
        "epochs": 12,
        "batch_size": 64,
        "dim": 64,
        "depth": 4,
        "lr": table.get("lr", 0.001),
        "train_images": 1257,
        "val_images": 180,
        "images_per_second": np.rint(2e9 / macs),
        "train_seconds": np.rint(macs / 2e5),
        "torch_version": "2.13.0",
        "python_version": "3.11.7",
        "commit": "4f2a9c1e" * 5,
    }
    table = table.assign(**added)
    return table.assign(match_residual=table["params"] / BUDGET - 1, test_loss=1 - table["test_accuracy"])


def example(table: pd.DataFrame, *, axes: dict[str, list[object]], epochs: int) -> Example:
    """The sweep of the table, with learning curves that rise to each run's accuracy."""
    facts = StudyFacts(
        name="example",
        question="Is it the patch or the attention?",
        expected="No expectation.",
        factors=axes,
        seeds=tuple(sorted({int(seed) for seed in table["seed"]})),
        match={"by": "params", "target": BUDGET, "tolerance": 0.02},
        planned_runs=len(table),
        sweep_yaml="question: Is it the patch or the attention?\n",
        overrides=(),
    )
    return Example(table, curves_of(table, epochs=epochs), facts)


def curves_of(table: pd.DataFrame, *, epochs: int) -> pd.DataFrame:
    """One row per run and epoch."""
    rng = stream(0, "example", "curves")
    epoch = np.arange(1, epochs + 1)
    rise = 1 - np.exp(-3 * epoch / epochs)
    frames = []
    for run_id, final in zip(table["run_id"], table["val_accuracy"], strict=True):
        noise = rng.normal(0, 0.004, epochs)
        accuracy = 0.1 + (final - 0.1) * rise / rise[-1] + noise
        loss = 2.3 * (1 - rise) + 0.2
        lr = 0.001 * (1 - epoch / epochs)
        columns = {"epoch": epoch, "train_loss": loss, "val_accuracy": accuracy, "val_loss": loss + 0.1, "lr": lr}
        frames.append(pd.DataFrame({"run_id": run_id, **columns}))
    return pd.concat(frames, ignore_index=True)


def unfinished(example: Example, *, missing: int) -> Example:
    """The sweep with its last runs not yet trained: planned columns stay, measurements are missing."""
    measured = [
        "val_accuracy",
        "test_accuracy",
        "test_loss",
        "train_seconds",
        "images_per_second",
        "device",
        "device_name",
        "commit",
        "dirty",
        "torch_version",
        "python_version",
    ]
    table = example.table.convert_dtypes()
    rows = table.index[len(table) - missing :]
    table.loc[rows, measured] = pd.NA
    table.loc[rows, "status"] = "missing"
    gone = set(table.loc[rows, "run_id"])
    return Example(table, example.curves[~example.curves["run_id"].isin(gone)], example.facts)


def diverged(example: Example, *, runs: list[int]) -> Example:
    """The sweep with the named rows diverged."""
    table = example.table.convert_dtypes()
    rows = table.index[runs]
    table.loc[rows, ["val_accuracy", "test_accuracy", "test_loss"]] = pd.NA
    table.loc[rows, "status"] = "diverged"
    table.loc[rows, "reason"] = "the loss is not finite at step 40"
    return Example(table, example.curves, example.facts)


def as_folder(example: Example, folder: Path) -> Path:
    """The sweep as the committed folder of tables that a report is redrawn from."""
    write_tables(example.tables, folder)
    return folder

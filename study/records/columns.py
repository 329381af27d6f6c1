"""The columns of the run table that are known before a run is trained. Workers use them too, so pandas isn't imported."""

import json
from itertools import groupby
from typing import Any

from study.config.sweep import CHANGE
from study.records.plan_file import PlannedEntry

COLUMN_NAMES = {
    "name": "data_name",
    "root": "data_set",
    "digest": "data_digest",
    **{name: f"match_{name}" for name in ("by", "target", "head_dim", "tolerance")},
}
"""Columns of options whose bare name says too little."""

OMITTED = {
    "data": {"label", "root", "cache", "also_test", "test_folder", "correctness", "predictions"},
    "model": {"image_size", "in_channels", "num_classes"},
    "augment": set(),
    "train": {"keep", "distributed", "read_test", "start", "start_sha256"},
}


_PLAIN = (str, int, float, bool)


def name_column(key: str) -> str:
    """The column of an option: "model.patch_size" or "patch_size" -> "patch_size", "match.by" or "by" -> "match_by"."""
    name = key.rpartition(".")[2]
    return COLUMN_NAMES.get(name, name)


def name_start(start: str | None) -> str:
    """The level of `train.start` in tables: the file without its folder, which may have another elsewhere, or `scratch`."""
    return "scratch" if start is None else start.rpartition("/")[2]


def planned_columns(planned: PlannedEntry) -> dict[str, Any]:
    """Identity, resolved options, cost and match of a planned run, by column name."""
    row: dict[str, Any] = {
        "run_id": planned.run_id,
        "backbone": planned.run["backbone"],
        "seed": planned.run["seed"],
        "stage": planned.stage,
        "trials": planned.trials,
    }
    for section, omitted in OMITTED.items():
        for name, value in planned.run[section].items():
            if name not in omitted:
                plain = value is None or type(value) in _PLAIN  # nearly all are: half the time
                row[COLUMN_NAMES.get(name, name)] = value if plain else spell_level(value)
    row["start"] = name_start(planned.run["train"].get("start"))
    row["split"] = planned.run["data"].get("split", "fixed")  # older plans lack it
    if planned.run["train"].get("fit_on") == "train+val":
        row |= {"train_images": row["train_images"] + row["val_images"], "val_images": 0}
    if planned.stage == "trial":
        row["test_images"] = 0
    row |= {CHANGE: planned.change} if planned.change else {}
    if plugins := planned.run.get("plugins"):
        row["plugins"] = ", ".join(f"{name} {digest}" for name, digest in plugins.items())
    row |= {"data_set": planned.data_set} if planned.data_set else {}
    row |= planned.cost
    return row | {f"match_{name}": value for name, value in planned.match.items()}


def spell_factor_level(key: str, level: Any) -> Any:
    """A level of a factor as the run table has it: files and folders by their names."""
    if name_column(key) == "start" and (level is None or isinstance(level, str)):
        return name_start(level)
    return level.rpartition("/")[2] if key == "data.root" and isinstance(level, str) else level


def spell_level(value: Any) -> Any:
    """A value as an entry of a table: words by depth as "depthwise_conv x4, attention x2", other lists as JSON."""
    if isinstance(value, dict) and value and all(type(count) is int for count in value.values()):
        counts = list(value.items())
    elif isinstance(value, list | tuple) and value and all(isinstance(word, str) for word in value):
        counts = [(word, len(list(run))) for word, run in groupby(value)]
    else:
        return json.dumps(value) if isinstance(value, list | tuple | dict) else value
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{word} x{count}" for word, count in counts)

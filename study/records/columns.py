"""What is known of a run before it is trained, by column name. Nothing here imports pandas: workers use it too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

PATHS = ("root", "cache")
SECTION_COLUMNS = {"data": {"name": "data_name", "digest": "data_digest"}, "model": {}, "augment": {}, "train": {}}
"""Options whose bare name would say too little as a column."""

NOT_COLUMNS = {
    "data": {*PATHS, "val_fraction", "predictions"},
    "model": {"image_size", "in_channels", "num_classes"},
    "augment": set(),
    "train": {"keep", "distributed", "read_test"},
}


def planned_columns(planned: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a run before it is trained: identity, resolved options, cost and match, by column name."""
    row: dict[str, Any] = {
        "run_id": planned["run_id"],
        "backbone": planned["run"]["backbone"],
        "seed": planned["run"]["seed"],
        "stage": planned["stage"],
        "trials": planned["trials"],
    }
    for section, renamed in SECTION_COLUMNS.items():
        for name, value in planned["run"][section].items():
            if name not in NOT_COLUMNS[section]:
                row[renamed.get(name, name)] = json.dumps(value) if isinstance(value, (list, dict)) else value
    if planned["run"]["train"]["fit_on"] == "train+val":
        row |= {"train_images": row["train_images"] + row["val_images"], "val_images": 0}
    if planned["stage"] == "trial":
        row["test_images"] = 0
    row |= planned["cost"]
    return row | {f"match_{name}": value for name, value in planned["match"].items()}

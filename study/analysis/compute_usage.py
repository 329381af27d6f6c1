"""The compute that a study used, by backbone and device, from what its runs recorded."""

import pandas as pd

from study.analysis.cell_grid import read_numbers, to_level
from study.analysis.protocol_check import format_entry


def summarize_compute(table: pd.DataFrame, trials: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row per `backbone` and `device`, with numbers of runs and device-hours of training.

    Runs that are missing count with the hours that they have lost so far, on a device that is not recorded.

    Reads from both run tables: `backbone`, `status`, and where present `device_name`, `train_seconds`, `lost_seconds`,
    `attempts`. Population: none; sums over the runs of these tables.

    - `runs`, `trials`: numbers of each, without missing ones.
    - `done_hours`, `diverged_hours`: of final runs; `trial_hours`; `lost_hours`: in failed attempts and restarts. Runs without
      a recorded time are not counted; a sum over runs of which none has a time is NaN, over no runs 0.
    - `further_attempts`: attempts after each run's first; `untimed`: runs and trials without a recorded time.
    """
    stages = [_read_stage(table, "final"), *([_read_stage(trials, "trial")] if trials is not None and len(trials) else [])]
    rows = pd.concat(stages, ignore_index=True)
    used = [
        {"backbone": backbone, "device": device, **_sum_usage(own)}
        for (backbone, device), own in rows[(rows["status"] != "missing") | (rows["lost"] > 0)].groupby(["backbone", "device"])
    ]
    return pd.DataFrame(used, columns=["backbone", "device", *_sum_usage(rows.iloc[:0])])


def _read_stage(table: pd.DataFrame, stage: str) -> pd.DataFrame:
    devices = table["device_name"] if "device_name" in table else [None] * len(table)
    return pd.DataFrame(
        {
            "stage": stage,
            "backbone": table["backbone"].astype(str).to_list(),
            "device": ["not recorded" if pd.isna(name) else format_entry(to_level(name)) for name in devices],
            "status": table["status"].astype(str).to_list(),
            "seconds": read_numbers(table, "train_seconds"),
            "lost": read_numbers(table, "lost_seconds"),
            "attempts": read_numbers(table, "attempts"),
        }
    )


def _sum_usage(own: pd.DataFrame) -> dict[str, float | int]:
    lost, own = own["lost"], own[own["status"] != "missing"]
    trial = own["stage"] == "trial"
    final = own[~trial]
    return {
        "runs": len(final),
        **{f"{status}_hours": _sum_hours(final["seconds"][final["status"] == status]) for status in ("done", "diverged")},
        "trials": int(trial.sum()),
        "trial_hours": _sum_hours(own["seconds"][trial]),
        "lost_hours": _sum_hours(lost),
        "further_attempts": int((own["attempts"] - 1).clip(lower=0).sum()),
        "untimed": int((own["seconds"].isna() & (own["status"] != "failed")).sum()),
    }


def _sum_hours(seconds: "pd.Series[float]") -> float:
    return float(seconds.sum(min_count=min(len(seconds), 1))) / 3600

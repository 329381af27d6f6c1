"""The tuned options selected for every cell, from the recorded trials: the candidates, and how clear the choice was.

A candidate is one combination of tuned levels; its accuracy is the mean over the trials' seeds on the validation split. The
best of several is biased upward, so these accuracies rank candidates and are no estimates.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from study.analysis.cell_grid import BoolArray, CellLevels, read_cells, read_numbers, sort_key, to_level
from study.analysis.choice_variance import CandidateTrials, estimate_choice_variances, resample_choices
from study.analysis.labels import format_cell, format_level, format_option, join_words
from study.records.correctness import unpack_correctness
from study.records.selection import is_at_boundary

VALIDATION_ACCURACY = "val_accuracy"


def summarize_candidates(trials: pd.DataFrame, tuned: Sequence[str]) -> pd.DataFrame:
    """One row per cell and combination of the tuned options.

    Reads from the table of trials: `cell`, the tuned options, `val_accuracy`, `status`, `selected`. `accuracy`: mean
    validation accuracy over seeds (fraction), NaN where no trial has one; `tried`, `diverged`: numbers of trials; `seeds`:
    those with an accuracy; `chosen`. The other columns are those of the candidate's first trial.
    """
    keys = read_cells(trials, ("cell", *tuned))
    rows: list[dict[Hashable, Any]] = []
    for key in dict.fromkeys(keys):
        own = trials[[found == key for found in keys]]
        accuracy = pd.Series(read_numbers(own, VALIDATION_ACCURACY)).dropna()
        candidate: dict[Hashable, Any] = {
            "accuracy": float(accuracy.mean()),
            "tried": len(own),
            "seeds": len(accuracy),
            "diverged": int((own["status"] == "diverged").sum()),
            "chosen": bool(own["selected"].fillna(False).astype(bool).any()),
        }
        rows.append({**own.iloc[0].to_dict(), **candidate})
    return pd.DataFrame(rows)


def summarize_choices(
    trials: pd.DataFrame, tuned: Sequence[str], factors: Sequence[str], *, correctness: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row per cell whose options have been selected.

    Population of `another` and `choice_variance`: new trials of the same candidates; the other columns describe these trials.
    `correctness`: per validation image, as from `load_correctness`; without it, images are resampled as binomial.

    - the cell's levels of the `factors`, and the selected levels of the `tuned` options; where each seed tunes for itself, the
      levels with the number of seeds that selected them, and means over seeds in `accuracy`, `gap` and `another`.
    - `accuracy`: of the selected candidate; `gap`: its accuracy minus that of the second-best candidate (fraction; NaN where
      that has none, negative where the other candidate had more diverged trials).
    - `another`: how often resampled trials choose another candidate (fraction); `choice_variance`: what the choice adds to the
      variance of the cell's mean (fraction squared); NaN where each seed tunes for itself, since the seeds' spread has it.
    - `tied`: number of other candidates of the same accuracy; `edge`: the tuned options of which the selected level is the
      lowest or highest tried; `candidates`; `tried`, `diverged`: numbers of trials of all candidates.
    """
    found, correct = summarize_candidates(trials, tuned), _unpack_correctness(correctness)
    rows: list[dict[Hashable, Any]] = []
    resampled: list[CandidateTrials | None] = []
    for name, own in found.groupby("cell", sort=False):
        for best in own[own["chosen"]].to_dict("records")[:1]:
            rows.append(best | _compare_choice(best, own[~own["chosen"]], tuned=tuned))
            others = sorted(read_cells(own[~own["chosen"]], tuned), key=lambda levels: tuple(map(sort_key, levels)))
            candidates = [*read_cells(own[own["chosen"]], tuned), *others]
            resampled.append(_read_trials(trials, str(name), tuned=tuned, candidates=candidates, correct=correct))
    measured = ("accuracy", "gap", "another", "choice_variance", "edge", "tied", "candidates", "diverged", "tried")
    columns = [*factors, *tuned, *measured]
    known = [cell for cell in resampled if cell is not None]
    variances = iter(estimate_choice_variances(known))
    for row, cell in zip(rows, resampled, strict=True):
        row["another"] = float("nan") if cell is None else float((resample_choices(cell) > 0).mean())
        row["choice_variance"] = float("nan") if cell is None else float(next(variances))
    choices = pd.DataFrame(rows, columns=[*columns, "for_seed"])
    return choices[columns] if choices["for_seed"].isna().all() else _merge_seeds(choices[columns], tuned, factors)


def read_choice_variances(choices: pd.DataFrame, factors: Sequence[str]) -> dict[CellLevels, float]:
    """By cell, what the choice adds to the variance of its mean; cells where that is unknown are left out."""
    pairs = zip(read_cells(choices, factors), choices["choice_variance"], strict=True)
    return {cell: float(variance) for cell, variance in pairs if pd.notna(variance)}


def has_own_choices(trials: pd.DataFrame) -> bool:
    """Whether each final seed tuned for itself."""
    return "for_seed" in trials and bool(trials["for_seed"].notna().any())


def _merge_seeds(choices: pd.DataFrame, tuned: Sequence[str], factors: Sequence[str]) -> pd.DataFrame:
    """One row per cell in place of one per cell and seed."""
    rows: list[dict[Hashable, Any]] = []
    for key in dict.fromkeys(keys := read_cells(choices, factors)):
        own = choices[[found == key for found in keys]]
        row: dict[Hashable, Any] = own.iloc[0].to_dict()
        for name in tuned:
            counts = Counter(map(to_level, own[name]))
            row[name] = ", ".join(f"{format_level(level)} ({counts[level]})" for level in sorted(counts, key=sort_key))
        row |= {name: own[name].mean() for name in ("accuracy", "gap", "another")}
        row |= {name: own[name].sum() for name in ("tied", "diverged", "tried")}
        row["edge"] = tuple(name for name in tuned if any(name in edges for edges in own["edge"]))
        rows.append(row | {"choice_variance": np.nan})
    return pd.DataFrame(rows, columns=choices.columns)


def _unpack_correctness(correctness: pd.DataFrame | None) -> dict[str, BoolArray]:
    """By run id, which validation images a trial classified correctly."""
    if correctness is None or not len(correctness):
        return {}
    own = correctness[correctness["split"] == "val"]
    packed = zip(own["run_id"], own["correct"], own["images"], strict=True)
    return {run_id: unpack_correctness(correct, int(images)) for run_id, correct, images in packed}


def _read_trials(
    trials: pd.DataFrame, name: str, *, tuned: Sequence[str], candidates: Sequence[CellLevels], correct: Mapping[str, BoolArray]
) -> CandidateTrials | None:
    """The trials of these candidates; None where some are missing, or where each seed has another number of images."""
    own = trials[(trials["cell"] == name).to_numpy(dtype=bool)]
    levels, seeds = read_cells(own, tuned), [int(seed) for seed in own["seed"]]
    places = {key: place for place, key in enumerate(zip(levels, seeds, strict=True))}
    tried = sorted(set(seeds))
    wanted = [(candidate, seed) for candidate in candidates for seed in tried]
    images = set(read_numbers(own, "val_images"))
    if not places.keys() >= set(wanted) or len(images) != 1 or not min(images) > 1:
        return None
    order, shape = [places[key] for key in wanted], (len(candidates), len(tried))
    accuracy = read_numbers(own, VALIDATION_ACCURACY)[order]
    run_ids = [str(own["run_id"].iloc[place]) for place in order]
    # Before there was `data.split`, all seeds had the same validation images.
    shared = "split" not in own or bool((own["split"].fillna("fixed") == "fixed").all())
    kept = None
    if all(run_id in correct or np.isnan(value) for run_id, value in zip(run_ids, accuracy, strict=True)):
        none = np.zeros(int(min(images)), dtype=bool)
        kept = np.stack([correct.get(run_id, none) for run_id in run_ids]).reshape(*shape, -1)
    return CandidateTrials(name, accuracy.reshape(shape), int(min(images)), kept, shared)


def _compare_choice(best: Mapping[Hashable, Any], others: pd.DataFrame, *, tuned: Sequence[str]) -> dict[Hashable, Any]:
    ranked = others.sort_values(["diverged", "accuracy"], ascending=[True, False], kind="stable", na_position="last")
    second = float(ranked["accuracy"].iloc[0]) if len(ranked) else float("nan")
    tied = (others["accuracy"] == best["accuracy"]) & (others["diverged"] == best["diverged"])
    edge = [
        name for name in tuned if is_at_boundary(to_level(best[name]), [to_level(best[name]), *map(to_level, others[name])])
    ]
    return {
        "accuracy": best["accuracy"],
        "gap": best["accuracy"] - second,
        "edge": tuple(edge),
        "tied": int(tied.sum()),
        "candidates": 1 + len(others),
        "diverged": best["diverged"] + int(others["diverged"].sum()),
        "tried": best["tried"] + int(others["tried"].sum()),
    }


def select_best_candidates(trials: pd.DataFrame, tuned: Sequence[str], *, over: str) -> pd.DataFrame:
    """The trials of the best candidate at each level of the tuned option `over`, in each cell.

    Best: the fewest diverged trials, then the highest accuracy; all trials of that candidate are kept. A curve over one
    option thus shows every level at its best values of the other options instead of an average over them.
    """
    if set(tuned) == {over}:
        return trials
    found = summarize_candidates(trials, tuned).sort_values(["diverged", "accuracy"], ascending=[True, False], kind="stable")
    best: dict[CellLevels, CellLevels] = {}
    for level, candidate in zip(read_cells(found, ("cell", over)), read_cells(found, tuned), strict=True):
        best.setdefault(level, candidate)
    pairs = zip(read_cells(trials, ("cell", over)), read_cells(trials, tuned), strict=True)
    return trials[[best[level] == candidate for level, candidate in pairs]]


def describe_choices(choices: pd.DataFrame | None, factors: Sequence[str]) -> Iterator[str]:
    """The tuned cells whose best candidate is the lowest or highest tried, and those that new trials might choose anew."""
    if choices is None:
        return
    at_edge = choices[choices["edge"].str.len() > 0]
    if len(at_edge):
        options = join_words(dict.fromkeys(format_option(name) for edge in at_edge["edge"] for name in edge))
        yield (
            f"In {_count_cells(at_edge, factors, total=len(choices))} the best {options} is the lowest or highest tried, so "
            "that they may do better than shown."
        )
    uncertain = choices[choices["another"] > 0.5]
    if len(uncertain):
        counted = bool(uncertain["choice_variance"].notna().any())  # where each seed tunes for itself, the spread has it
        yield (
            f"In {_count_cells(uncertain, factors, total=len(choices))} resampled trials choose another candidate more often "
            f"than the same; {'the standard errors' if counted else 'the spread over seeds'} count{'' if counted else 's'} "
            "what this choice adds."
        )


def _count_cells(rows: pd.DataFrame, factors: Sequence[str], *, total: int) -> str:
    """How many of the tuned cells, named where they are few."""
    names = [format_cell(factors, cell) for cell in read_cells(rows, factors)]
    return f"{len(rows)} of {total} tuned cells" + (f" ({'; '.join(names)})" if len(names) <= 3 else "")

"""Measures of layers (`study.probe`) by cell: means over seeds, and how the fields of two mixers compare.

Population of every interval: new training seeds, on these test images.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from study.analysis.cell_grid import read_grid, read_numbers
from study.analysis.contrast_results import build_weights
from study.analysis.crossed import estimate_weighted_means
from study.analysis.error_consistency import COMPARED
from study.analysis.planned_contrasts import Contrast
from study.analysis.simultaneous import simultaneous_intervals
from study.analysis.study_results import StudyResults


def select_measure(probes: pd.DataFrame, measure: str, *, at: float | None = None) -> pd.DataFrame:
    """One row per run and layer with the mean `value` of a measure over heads; at one place, where that is given."""
    own = probes[(probes["measure"] == measure) & probes["other"].isna()]
    own = own if at is None else own[own["at"] == at]
    return own.groupby(["run_id", "layer"])["value"].mean().reset_index()


def list_shown_layers(layers: Sequence[int]) -> list[int]:
    """The first, the middle and the last block of these layers."""
    found = sorted({int(layer) for layer in layers if layer > 0})
    return sorted({found[0], found[len(found) // 2], found[-1]}) if found else []


def find_compared_factor(study: StudyResults) -> str | None:
    """The factor whose levels are compared: the token mixer, or else the backbone, if it varies."""
    return next((name for name in COMPARED if name in study.varied), None)


def list_level_contrasts(study: StudyResults) -> list[Contrast]:
    """The contrasts of the compared factor's levels with all else fixed, as far as they are planned, without controls."""
    factor = find_compared_factor(study)
    own = [one for one in study.planned if one.subject == factor and not one.control]
    fixed = [one for one in own if not one.primary]
    return fixed or own


def compare_fields(study: StudyResults, probes: pd.DataFrame, *, layer: int, share: float) -> pd.DataFrame:
    """Ratios of the radii of receptive fields in a layer: one row per contrast of the compared factor's levels.

    `upper`, `lower`, `where`, `ratio`, `low`, `high` (simultaneous over all of them; NaN where radii have no spread), `n`.
    Formed within seeds on the log scale; contrasts with a radius of 0 (nothing but a pixel is seen) are left out.
    """
    plan = list_level_contrasts(study)
    radii = select_measure(probes, "field_radius", at=share)
    radii = radii[(radii["layer"] == layer) & (radii["value"] > 0)]
    known = {str(run_id): float(np.log(value)) for run_id, value in zip(radii["run_id"], radii["value"], strict=True)}
    table = study.table.assign(log_radius=[known.get(run_id, np.nan) for run_id in study.table["run_id"]])
    if not plan or table["log_radius"].isna().all():
        return pd.DataFrame()
    grid = read_grid(table, list(study.levels), measure="log_radius")
    found = estimate_weighted_means(grid, build_weights(grid, plan))
    together = simultaneous_intervals(found, draws=study.draws)
    frame = pd.DataFrame({name: [getattr(one, name) for one in plan] for name in ("upper", "lower", "where")})
    ratios = {"ratio": np.exp(found.mean), "low": np.exp(together.low), "high": np.exp(together.high)}
    return frame.assign(**ratios, n=found.n.astype(int)).dropna(subset=["ratio"])


def compare_similarities(study: StudyResults, probes: pd.DataFrame) -> pd.DataFrame:
    """CKA of runs with different seeds: one row per pair of levels of the compared factor and layer.

    `upper`, `lower`, `layer`, `between` (a run of each), `within_upper`, `within_lower` (two runs of one cell), averaged over
    what else varies, all else being equal. A description of these runs, without intervals.
    """
    factor = find_compared_factor(study)
    pairs = probes[(probes["measure"] == "cka") & probes["other"].notna()]
    if factor is None or pairs.empty:
        return pd.DataFrame()
    levels = study.table[["run_id", *study.levels]]
    joined = pairs.merge(levels, on="run_id").merge(levels, left_on="other", right_on="run_id", suffixes=("", "_other"))
    rest = [name for name in study.levels if name != factor]
    alike = np.ones(len(joined), dtype=bool)
    for name in rest:
        alike &= (joined[name].astype(object).fillna("") == joined[f"{name}_other"].astype(object).fillna("")).to_numpy()
    joined = joined[alike].assign(value=read_numbers(joined[alike], "value"))
    found: dict[tuple[str, str, int], list[float]] = {}
    for one, other, layer, value in joined[[factor, f"{factor}_other", "layer", "value"]].itertuples(index=False, name=None):
        lower, upper = sorted((str(one), str(other)))
        found.setdefault((lower, upper, int(layer)), []).append(float(value))
    means = {key: float(np.mean(values)) for key, values in sorted(found.items())}
    rows = [
        (upper, lower, layer, value, means.get((upper, upper, layer), np.nan), means.get((lower, lower, layer), np.nan))
        for (lower, upper, layer), value in means.items()
        if lower != upper
    ]
    return pd.DataFrame(rows, columns=["upper", "lower", "layer", "between", "within_upper", "within_lower"])

"""Contrasts over several data sets as a random-effects meta-analysis: a mean effect, and how much data sets differ in it.

Nothing is averaged over raw accuracies: each data set has its own difference with its own standard error, and the data sets
are a sample of others. With fewer than five the variance between them is hardly known, so nothing is summarized.
"""

from collections.abc import Iterator

import pandas as pd
from statsmodels.stats.meta_analysis import combine_effects

from study.analysis.labels import format_interval, format_points

FEWEST_SETS = 5


def combine_data_sets(joined: pd.DataFrame) -> pd.DataFrame:
    """One row per primary contrast of `join_contrasts` that five data sets or more have measured; empty if none is.

    - `sets`: their number; `difference` (fraction), `low`, `high`: the mean over data sets like these with its 95 % interval by
      itself (Hartung and Knapp's, with Student's t; not adjusted over contrasts).
    - `between_sd`: the standard deviation of the true differences over data sets (Paule and Mandel's estimate); `i2`: the share
      of the observed variance that it is.

    Population: new data sets of the kind of these, new seeds and, where correctness was kept, new images. IntHout, Ioannidis,
    Borm, "The Hartung-Knapp-Sidik-Jonkman method for random effects meta-analysis", 2014.
    """
    rows = []
    for name, own in joined[joined["primary"]].groupby("contrast", sort=False):
        known = own[(own["se"] > 0).to_numpy(dtype=bool)]
        if len(known) < FEWEST_SETS:
            continue
        found = combine_effects(known["difference"].to_numpy(), known["se"].to_numpy() ** 2, method_re="pm", use_t=True)
        low, high = found.conf_int(use_t=True)[3]  # of the random effects, weighted
        row = {"contrast": name, "sets": len(known), "difference": found.mean_effect_re, "low": low, "high": high}
        rows.append({**row, "between_sd": found.tau2**0.5, "i2": max(found.i2, 0.0)})
    return pd.DataFrame(rows, columns=["contrast", "sets", "difference", "low", "high", "between_sd", "i2"])


def describe_data_sets(found: pd.DataFrame) -> Iterator[str]:
    """Each mean over data sets with its interval, and how much data sets differ."""
    for row in found.to_dict("records"):
        limits = format_interval(row["low"], row["high"], digits=2, signed=True)
        yield (
            f"Over data sets like these {row['sets']}, {row['contrast']} is {format_points(row['difference'], signed=True)} on "
            f"average ({limits}, by itself), with a standard deviation of {format_points(row['between_sd'])} between data sets."
        )

# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # A study in Python
#
# Define a sweep, look at its plan, train it, and read its report, without a file or a command line. This is a notebook in
# jupytext's percent format: open it with Jupyter, or run it. It takes about a minute on two CPU cores, writes to the folder
# example-study, and needs no network: the images are scikit-learn's 8x8 digits.
#
#     python examples/run_study.py

# %%
from __future__ import annotations

from study import Sweep

# %% [markdown]
# A sweep is one question. `axes` lists what varies, `match` what is held equal: here every network gets the width at which it
# has 5,000 parameters, within 5 %. Two backbones x two patch sizes x two seeds are eight runs. The keys are those of a
# sweep's YAML file.

# %%
sweep = Sweep.from_dict(
    {
        "name": "example",
        "question": "Does the patch size matter more to a ViT than to a ConvMixer?",
        "data": {"name": "digits", "train_images": 400},
        "model": {"depth": 1},
        "backbones": {"convmixer": {"model": {"kernel_size": 3}}},
        "train": {"epochs": 3, "batch_size": 50, "lr": 5e-3},
        "match": {"by": "params", "target": "5k", "tolerance": "5%", "head_dim": 8},
        "axes": {"backbone": ["convmixer", "vit"], "model.patch_size": [2, 4]},
        "seeds": 2,
    },
    runs="example-study/runs",
)

# %% [markdown]
# The plan has every run with its cost, and the contrasts that the report will make: they stand before the data.

# %%
plan = sweep.plan()
print(plan.runs[["backbone", "model.patch_size", "seed", "dim", "params", "macs"]].to_string(index=False))
print(plan.contrasts.query("primary")["contrast"].to_string(index=False))

# %% [markdown]
# Train. Recorded runs are not trained again, so this can be interrupted and repeated at any time. The table has one row per
# planned run; `status` is done, failed, diverged or missing, and accuracies are fractions.

# %%
table = sweep.launch(cluster="local")
print(table[["backbone", "patch_size", "seed", "status", "params", "macs", "test_accuracy"]].to_string(index=False))

# %% [markdown]
# The report's results are DataFrames, and its answer is an object. After three epochs no network exceeds a linear model on
# pixels, and the answer says so: train longer, with five seeds or more, before you believe a difference.

# %%
report = sweep.report(formats=["svg"])
print(report.answer.summary())
print(report.cells[["backbone", "patch_size", "mean", "n"]].to_string(index=False))

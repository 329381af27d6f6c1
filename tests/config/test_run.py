"""A run's identity is its whole resolved configuration and nothing else."""

from __future__ import annotations

import json

import pytest
from pydantic import Field

from study.backbones import get_spec_class
from study.config.options import OUTSIDE_IDENTITY, AugmentOptions, Options, ResolvedData, TrainOptions, neutral
from study.config.run import Run, hashed


def a_run(**changes) -> Run:
    model = get_spec_class("vit").model_validate(
        {"image_size": 8, "in_channels": 1, "num_classes": 10, "patch_size": 2, "dim": 32, "depth": 2, "heads": 2}
    )
    data = ResolvedData(
        name="digits", digest="d", image_size=8, train_images=100, val_images=10, test_images=10, num_classes=10, channels=1
    )
    parts = {"model": model, "data": data, "augment": AugmentOptions(), "train": TrainOptions(epochs=3), "seed": 0}
    return Run(backbone="vit", **{**parts, **changes})


def test_equal_configurations_have_one_identity():
    """Asking twice is asking once, also after a way through JSON."""
    assert a_run().run_id == a_run().run_id
    assert Run.from_json(json.loads(json.dumps(a_run().to_json()))) == a_run()
    assert Run.from_json(json.loads(json.dumps(a_run().to_json()))).run_id == a_run().run_id


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"train": TrainOptions(epochs=4)},
        {"train": TrainOptions(epochs=3, precision="bf16")},
        {"augment": AugmentOptions(flip=True)},
        {"data": a_run().data.model_copy(update={"digest": "e"})},
        {"data": a_run().data.model_copy(update={"train_images": 99})},
        {"data": a_run().data.model_copy(update={"split": "by_seed"})},
        {"model": a_run().model.with_options({"dim": 64})},
    ],
)
def test_every_resolved_option_is_part_of_it(changes):
    """Whatever may change a weight changes the identity."""
    assert a_run(**changes).run_id != a_run().run_id


@pytest.mark.parametrize(
    "changes",
    [
        {"train": TrainOptions(epochs=3, keep="last")},
        {"data": a_run().data.model_copy(update={"root": "/elsewhere"})},
        {"data": a_run().data.model_copy(update={"cache": "/elsewhere"})},
    ],
)
def test_where_and_how_is_not_part_of_it(changes):
    """Paths and whether weights are kept don't change what a run computes."""
    assert a_run(**changes).run_id == a_run().run_id


def test_an_option_added_later_leaves_old_identities_alone():
    """At its neutral value a new option is not hashed; at another value it is; a changed default is hashed as itself."""

    class Before(Options):
        lr: float = 0.1

    class After(Before):
        rotation: float = Field(0.0, json_schema_extra=neutral(0.0))
        path: str = Field("here", json_schema_extra=OUTSIDE_IDENTITY)

    assert hashed(After()) == hashed(Before())
    assert hashed(After(rotation=0.5)) == {"lr": 0.1, "rotation": 0.5}


def test_the_label_is_readable_and_safe():
    """It begins with backbone, patch size, width and seed, and is safe as a file name."""
    assert a_run().run_id.startswith("vit-p2-d32-s0-")
    assert a_run().run_id.replace("-", "").isalnum()


def test_an_identity_never_drifts():
    """The hash of a fixed configuration is a constant: a change here orphans every recorded run, so it must be meant."""
    document = json.dumps(a_run().identity(), sort_keys=True)
    assert json.loads(document)["version"] == 1
    assert "cache" not in document
    assert "root" not in document
    assert "split" not in document  # fixed, as in version 0.1

"""A valid run as files hold it, for tests that need one but don't train it."""

from __future__ import annotations

from pydantic import JsonValue

RUN: dict[str, JsonValue] = {
    "backbone": "vit",
    "seed": 0,
    "model": {"patch_size": 4, "image_size": 8, "in_channels": 1, "num_classes": 10, "dim": 8, "depth": 1, "heads": 1},
    "data": {
        "name": "digits",
        "digest": "0b7e9c3202d7bcd2",
        "image_size": 8,
        "train_images": 1018,
        "val_images": 180,
        "test_images": 3,
        "num_classes": 10,
        "channels": 1,
    },
    "augment": {"crop": 0},
    "train": {"epochs": 1, "batch_size": 64, "lr": 1e-3, "betas": [0.9, 0.999]},
}

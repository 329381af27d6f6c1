"""A run is one fully resolved training configuration with one seed; its identity is the hash of all of it.

`run_id` is a readable label and a hash of the resolved configuration: solved widths, recipe, precision, data digest and
number of images, seed, and the version of the training semantics, but not where and how it is executed. So the same
configuration is trained once, and a changed default makes another run.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ValidationError

from study.backbones import get_spec_class
from study.backbones.specification import BackboneSpec
from study.config.formats import identity_spelling
from study.config.options import AugmentOptions, ResolvedData, TrainOptions
from study.config.yaml_source import OptionsT, list_problems
from study.errors import UserError
from study.registries import Plugin

TRAINING_VERSION = 1
"""Incremented when the same configuration would train to other weights than before at equal execution fingerprint."""

OPTION_GROUPS = ("model", "data", "augment", "train")


@dataclass(frozen=True)
class Run:
    """One training: `model` has the solved width, `data` the digest of the images."""

    backbone: str
    model: BackboneSpec
    data: ResolvedData
    augment: AugmentOptions
    train: TrainOptions
    seed: int
    plugins: tuple[Plugin, ...] = ()  # whose code it uses

    @cached_property
    def run_id(self) -> str:
        """For example `vit-p4-d96-s0-1a2b3c4d5e`; safe as a file name."""
        return f"{self.backbone}-p{self.model.patch_size}-d{self.model.dim}-s{self.seed}-{self.digest()}"

    def digest(self, *, without: Iterable[str] = ()) -> str:
        """10 hex digits of the identity; `without` some of its entries, "seed" or "train.lr", it names a group of runs."""
        identity = self.identity()
        for key in without:
            section, _, name = key.partition(".")
            if name:
                identity[section].pop(name, None)
            else:
                del identity[section]
        spelled = {key: identity_spelling(part) if isinstance(part, dict) else part for key, part in identity.items()}
        return hashlib.sha256(json.dumps(spelled, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def fitted_images(self) -> int:
        """The images of one epoch: the training images, and with `fit_on: train+val` the validation images too."""
        return self.data.train_images + (self.data.val_images if self.train.fit_on == "train+val" else 0)

    def identity(self) -> dict[str, Any]:
        """What is hashed: every resolved option except those outside identity and those at their neutral value."""
        sections = {name: hashed(getattr(self, name)) for name in OPTION_GROUPS}
        return {"version": TRAINING_VERSION, "backbone": self.backbone, **sections, "seed": self.seed, **self._plugin_digests()}

    def to_json(self) -> dict[str, Any]:
        """The whole run as plain JSON values; `from_json` gives it back."""
        sections = {name: getattr(self, name).model_dump(mode="json") for name in OPTION_GROUPS}
        return {"backbone": self.backbone, **sections, "seed": self.seed, **self._plugin_digests()}

    def _plugin_digests(self) -> dict[str, dict[str, str]]:
        """Nothing where there are none, so that other runs keep their identity."""
        return {"plugins": {plugin.name: plugin.digest for plugin in self.plugins}} if self.plugins else {}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "Run":
        """From JSON values; UserError with the options that are not valid."""

        def read(section: str, kind: type[OptionsT]) -> OptionsT:
            try:
                return kind.model_validate_json(json.dumps(document[section]))
            except ValidationError as error:
                raise UserError(*list_problems(error, kind, places={}, file="", prefix=f"{section}.")) from None

        return Run(
            backbone=document["backbone"],
            model=read("model", get_spec_class(document["backbone"])),
            data=read("data", ResolvedData),
            augment=read("augment", AugmentOptions),
            train=read("train", TrainOptions),
            seed=document["seed"],
            plugins=tuple(Plugin(name, digest) for name, digest in document.get("plugins", {}).items()),
        )


def hashed(options: BaseModel) -> dict[str, Any]:
    """The options that are part of a run's identity, as JSON values."""
    dumped = options.model_dump(mode="json")
    kept = {}
    for name, field in type(options).model_fields.items():
        marks = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        if not (marks.get("outside_identity") or ("neutral" in marks and marks["neutral"] == dumped[name])):
            kept[name] = dumped[name]
    return kept

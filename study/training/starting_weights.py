"""Weights that a run starts from (`train.start`), compared with the run's model and fitted to it.

The plan and the worker read the file here. Its SHA-256 is part of the run's identity, so that a file that has changed since
the plan is another run's, and an error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from study.backbones import specify
from study.backbones.base import Backbone
from study.backbones.specification import BackboneSpec
from study.backbones.weight_files import CLASSIFIER, LoadedWeights, WeightsFile, load_weights, read_weights_file
from study.config.options import split_start
from study.config.run import Run
from study.data import describe_dataset
from study.errors import Problem, UserError
from study.training.saved_weights import SavedWeights, read_saved_weights

_FREE = {"image_size", "patch_size", "num_classes", "initialization", "kernel_pixels"}
"""Options in which a run may differ from the model that its weights were trained in; of layer_scale, the first factor."""


@dataclass(frozen=True)
class StartingWeights:
    """A file's weights and the model that they are of, where the file (`saved`) or the sweep (`variant`) tells it."""

    file: WeightsFile
    saved: SavedWeights | None
    variant: BackboneSpec | None

    @staticmethod
    def read(start: str) -> "StartingWeights":
        """Of `FILE` or `variant@FILE`. UserError where there is no such file or variant, or it holds no weights."""
        variant, path = split_start(start)
        source = specify(variant, {}) if variant else None
        return StartingWeights(read_weights_file(Path(path)), read_saved_weights(Path(path)), source)

    def fit(self, spec: BackboneSpec, *, class_names: tuple[str, ...] | None = None) -> LoadedWeights:
        """The weights for a specification's model, resampled to its grid and patch size.

        There is no classifier where the file's is of another number of classes, or of others than `class_names`. Raises
        UserError with all that differs from the model.
        """
        differences = list(self._compare_options(spec))
        try:
            loaded = load_weights(self.file, spec, resample=True, classifier=False)
        except UserError as error:
            raise UserError(*error.problems, *differences) from None
        if differences:
            raise UserError(*differences)
        if self.saved is not None and class_names not in (None, self.saved.class_names):
            for name in CLASSIFIER:
                loaded.state.pop(name, None)
        return loaded

    def _compare_options(self, spec: BackboneSpec) -> Iterator[Problem]:
        """Options in which the source's model differs, many of which no tensor's shape tells: heads, the activation."""
        place = str(self.file.path)
        for source in (self.variant, self.saved.run.model if self.saved else None):
            if source is not None and source.backbone != spec.backbone:
                yield Problem(f"weights of {source.backbone}, not of {spec.backbone}", place)
            elif source is not None:
                theirs, ours = source.model_dump(), spec.model_dump()
                if None not in (theirs["layer_scale"], ours["layer_scale"]):
                    del theirs["layer_scale"]
                for name in sorted(theirs.keys() - _FREE):
                    if theirs[name] != ours[name]:
                        yield Problem(f"weights of a model with {theirs[name]}, not {ours[name]}", place, f"model.{name}")


def describe_fit(loaded: LoadedWeights, spec: BackboneSpec) -> str:
    """What was done to the weights to fit them to the model, in words; empty where nothing was."""
    kept = loaded.state.keys() >= set(CLASSIFIER)
    new = [] if kept else [f"a new classifier of {spec.num_classes} classes"]
    return ", ".join([*loaded.describe_resampling(spec), *new])


def load_start(model: Backbone, run: Run) -> None:
    """Overwrite a new model's weights by those that its run starts from. UserError where the file isn't the plan's."""
    if run.train.start is None:
        return
    source = StartingWeights.read(run.train.start)
    if source.file.sha256 != run.train.start_sha256:
        rule = f"this file has changed since it was planned (SHA-256 {run.train.start_sha256}): restore it, or launch again"
        raise UserError(Problem(rule, str(source.file.path), "train.start", source.file.sha256))
    class_names = describe_dataset(run.data).class_names if source.saved else None
    loaded = source.fit(run.model, class_names=class_names)
    model.load_state_dict({**model.state_dict(), **loaded.state})

"""Every option of a run except those of its backbone: default, range, and whether it is part of a run's identity.

A run's identity is the hash of its resolved options (`study.config.run`). Two markers decide what is hashed:

- `OUTSIDE_IDENTITY`: where or how a run is executed (a path, whether weights are saved). Never hashed.
- `neutral(value)`: an option added after version 1 of the training semantics. At its neutral value it is left out of the
  hash, so that runs recorded before it existed keep their identity.
"""

import os
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, PlainSerializer, model_validator

MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}


class Options(BaseModel):
    """A frozen group of options: no silent conversion of types, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


OUTSIDE_IDENTITY: dict[str, JsonValue] = {"outside_identity": True}


def neutral(value: JsonValue) -> dict[str, JsonValue]:
    """Marks an option added after version 1: hashed only if it differs from this value, its default."""
    return {"neutral": value}


def _parse_count(value: object) -> object:
    """`600k` -> 600,000 and `1.5M` -> 1,500,000; other values pass through to the field's own check."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)", value.strip(), re.IGNORECASE)):
        return round(float(match[1]) * MULTIPLES[match[2].lower()])
    return value


def _parse_fraction(value: object) -> object:
    """`2%` -> 0.02; other values pass through to the field's own check."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip())):
        return float(match[1]) / 100
    return value


def _drop_zero_fraction(value: float) -> float:
    """40.0 as 40, which is how identities and tables spell it."""
    return int(value) if value == int(value) else value


def expand_path(value: object) -> object:
    """`~/images` and `$SCRATCH/images` as the shell would write them, which expands neither in `data.root=~/images`."""
    if not isinstance(value, str):
        return value
    expanded = os.path.expanduser(os.path.expandvars(value))
    if expanded.startswith("~") or "$" in expanded:
        raise ValueError("this path names a home directory or a variable that isn't known here")
    return expanded


def split_start(start: str) -> tuple[str, str]:
    """The published variant of `variant@FILE`, empty where there is none, and the file."""
    variant, at, path = start.partition("@")
    return (variant, path) if at and re.fullmatch(r"\w+", variant) else ("", start)


def _expand_start(value: object) -> object:
    if not isinstance(value, str):
        return value
    variant, path = split_start(value)
    return f"{variant}@{expand_path(path)}" if variant else expand_path(path)


FilePath = Annotated[str, BeforeValidator(expand_path)]
StartFile = Annotated[str, BeforeValidator(_expand_start)]
FurtherTest = Annotated[str, Field(pattern=r"^[A-Za-z]\w{0,39}$")]
Count = Annotated[int, BeforeValidator(_parse_count)]
Fraction = Annotated[float, BeforeValidator(_parse_fraction)]
Epochs = Annotated[
    float, Field(gt=0, le=1_000_000), AfterValidator(_drop_zero_fraction), PlainSerializer(_drop_zero_fraction, return_type=Any)
]


class DataOptions(Options):
    """The images of a run. Their content's digest is part of its identity, paths are not."""

    name: str = Field(pattern=r"^\w[\w-]*$", max_length=100)  # a name in `study.data.datasets.DATASETS`; part of file names
    label: str | None = Field(None, pattern=r"^\S(.{0,38}\S)?$", json_schema_extra=OUTSIDE_IDENTITY)  # what reports call it
    root: FilePath = Field("data", json_schema_extra=OUTSIDE_IDENTITY)  # the source files; downloads are written here
    cache: FilePath = Field("data/cache", json_schema_extra=OUTSIDE_IDENTITY)  # the decoded uint8 arrays
    also_test: dict[FurtherTest, FilePath] = Field({}, json_schema_extra=OUTSIDE_IDENTITY)  # folders `study.probe` evaluates on
    test_folder: str | None = Field(None, pattern=r"^[^/]+$", json_schema_extra=OUTSIDE_IDENTITY)  # below root; None: test, val
    image_size: int | None = Field(None, ge=4, le=1024)  # pixels; None: the data set's own
    train_images: Count | None = Field(None, ge=1)  # stratified subset of the training split; None: all
    test_images: Count | None = Field(None, ge=1)
    val_fraction: Fraction = Field(0.1, gt=0, lt=0.5)  # cut from the images that are not test images, stratified
    split: Literal["by_seed", "fixed"] = Field("fixed", json_schema_extra=neutral("fixed"))  # how these are divided
    permute_pixels: bool = Field(False, json_schema_extra=neutral(False))  # controls: one permutation for all images,
    permute_patches: bool = Field(False, json_schema_extra=neutral(False))  # after augmentation
    correctness: bool = Field(True, json_schema_extra=OUTSIDE_IDENTITY)  # record which images were correct, a bit each
    predictions: bool = Field(False, json_schema_extra=OUTSIDE_IDENTITY)  # save the predicted label of each test image

    @model_validator(mode="after")
    def _check_permutations(self) -> Self:
        if self.permute_pixels and self.permute_patches:
            raise ValueError("permuted pixels leave no patches to permute: permute_pixels or permute_patches, not both")
        return self


class ResolvedData(DataOptions):
    """A run's data options, fully resolved: sizes in images, content by its digest."""

    digest: str
    image_size: int
    train_images: int
    val_images: int
    test_images: int
    num_classes: int
    channels: int


class AugmentOptions(Options):
    """Augmentation on batched tensors with per-image parameters keyed by (seed, epoch, image). All off by default."""

    flip: bool = False  # horizontal, with probability 1/2
    crop: int = Field(0, ge=0, le=64)  # pixels of zero padding on each side, then a random crop of the original size
    resized_crop: float = Field(1.0, gt=0, le=1, json_schema_extra=neutral(1.0))  # least area of an enlarged crop; 1: off
    color_jitter: float = Field(0.0, ge=0, le=1)  # brightness, contrast, saturation within 1 +- this; no hue
    randaugment_n: int = Field(0, ge=0, le=8)  # operations per image
    randaugment_m: int = Field(9, ge=0, le=30)  # magnitude
    auto_augment: str = Field("none", json_schema_extra=neutral("none"))  # another policy in RandAugment's place
    erasing: float = Field(0.0, ge=0, le=1)  # probability of a random rectangle set to the mean
    erasing_mode: Literal["const", "pixel"] = Field("const", json_schema_extra=neutral("const"))  # pixel: set to normal noise
    mixup: float = Field(0.0, ge=0, le=10)  # alpha of the Beta distribution; 0: off
    cutmix: float = Field(0.0, ge=0, le=10)  # alpha; with mixup also on, each image draws one of the two
    mixup_prob: float = Field(1.0, gt=0, le=1, json_schema_extra=neutral(1.0))  # probability to be mixed at all
    mixup_off_epoch: int = Field(0, ge=0, json_schema_extra=neutral(0))  # epochs with mixing; 0: all
    repeats: int = Field(1, ge=1, le=16, json_schema_extra=neutral(1))  # augmentations of one image, in one batch

    @model_validator(mode="after")
    def _check_policy(self) -> Self:
        if self.randaugment_n and self.auto_augment != "none":
            raise ValueError("randaugment_n and auto_augment are two policies in one place: one of them")
        if self.repeats > 1 and self.model_copy(update={"repeats": 1}) == AugmentOptions():
            raise ValueError("without a random augmentation, an image's repeats are the same")
        return self


class TrainOptions(Options):
    """The recipe: an optimizer, a learning-rate schedule per step, and what is evaluated at the end."""

    epochs: Epochs  # 12.5: the last one ends in its middle, at the nearest whole step
    batch_size: int = Field(128, ge=1)  # images per optimizer step
    lr: float = Field(1e-3, gt=0)  # peak of the schedule
    optimizer: str = Field("adamw", json_schema_extra=neutral("adamw"))  # a name in `study.training.optimizer.OPTIMIZERS`
    betas: tuple[float, float] = (0.9, 0.999)  # of AdamW, with muon on what is no matrix
    eps: float = Field(1e-8, gt=0)  # the same
    momentum: float = Field(0.9, gt=0, lt=1, json_schema_extra=neutral(0.9))  # of sgd and muon, Nesterov's
    weight_decay: float = Field(0.05, ge=0)  # decoupled, times the learning rate; with sgd part of the gradient
    decay: Literal["all", "matrices"] = "matrices"  # matrices: not on norms, biases, position embeddings, class tokens
    schedule: Literal["cosine", "linear", "one_cycle", "constant"] = "cosine"
    warmup_epochs: float = Field(0.0, ge=0)  # linear from 0; one_cycle has its own rise
    min_lr: float = Field(0.0, ge=0, json_schema_extra=neutral(0.0))  # where cosine and linear end, if that is below lr
    cooldown_epochs: int = Field(0, ge=0, json_schema_extra=neutral(0))  # of all epochs, the last ones at min_lr
    layer_decay: float = Field(1.0, gt=0, le=1, json_schema_extra=neutral(1.0))  # of the rate, from layer to layer downwards
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    loss: Literal["cross_entropy", "bce"] = Field("cross_entropy", json_schema_extra=neutral("cross_entropy"))
    bce_threshold: float | None = Field(None, ge=0, lt=1, json_schema_extra=neutral(None))  # soft targets above are 1, others 0
    attention_dropout: float = Field(0.0, ge=0, lt=1, json_schema_extra=neutral(0.0))  # of weights after their softmax
    mlp_dropout: float = Field(0.0, ge=0, lt=1, json_schema_extra=neutral(0.0))  # before and after an MLP's last linear layer
    head_dropout: float = Field(0.0, ge=0, lt=1, json_schema_extra=neutral(0.0))  # of the features that are classified
    stochastic_depth: float = Field(0.0, ge=0, lt=1, json_schema_extra=neutral(0.0))  # chance to drop the last block's branches
    grad_clip: float | None = Field(None, gt=0)  # global norm
    accumulate: int = Field(1, ge=1)  # micro-batches per optimizer step; refused with BatchNorm
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    fit_on: Literal["train", "train+val"] = Field("train", json_schema_extra=neutral("train"))  # train+val: no val_accuracy
    read_test: bool = Field(True, json_schema_extra=neutral(True))  # false, as in trials: the test set is never read
    evaluate: Literal["last", "ema"] = "last"  # which weights are evaluated
    ema_decay: float = Field(0.999, gt=0, lt=1)
    start: StartFile | None = Field(None, json_schema_extra=OUTSIDE_IDENTITY)  # weights to start from: FILE, or variant@FILE
    start_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", json_schema_extra=neutral(None))  # the plan fills it in
    freeze: Literal["none", "body"] = Field("none", json_schema_extra=neutral("none"))  # body: only the classifier is trained
    keep: Literal["none", "last"] = Field("none", json_schema_extra=OUTSIDE_IDENTITY)  # final weights, as safetensors
    distributed: Literal["none", "ddp"] = Field("none", json_schema_extra=OUTSIDE_IDENTITY)  # ddp: one run on several GPUs

    def count_steps(self, epoch_steps: int) -> int:
        """Optimizer steps of the whole training, where an epoch has `epoch_steps`."""
        return max(1, round(self.epochs * epoch_steps))

    @model_validator(mode="after")
    def _check_accumulation_and_warmup(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate must divide batch_size ({self.batch_size})")
        if self.warmup_epochs + self.cooldown_epochs >= self.epochs:
            added = ", with cooldown_epochs," if self.cooldown_epochs else ""
            raise ValueError(f"warmup_epochs{added} must be smaller than epochs ({self.epochs:g})")
        if (self.min_lr or self.cooldown_epochs) and self.schedule not in ("cosine", "linear"):
            raise ValueError(f"min_lr and cooldown_epochs end cosine and linear schedules: {self.schedule} ends otherwise")
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> Self:
        if self.bce_threshold is not None and self.loss != "bce":
            raise ValueError("bce_threshold is of the targets of loss: bce")
        return self

    @model_validator(mode="after")
    def _check_optimizer(self) -> Self:
        if self.optimizer == "muon" and self.precision == "fp16":
            raise ValueError("muon doesn't scale gradients, which fp16 needs: precision fp32 or bf16")
        return self

    @model_validator(mode="after")
    def _check_freeze(self) -> Self:
        regularizers = {"stochastic_depth": 0.0, "attention_dropout": 0.0, "mlp_dropout": 0.0, "layer_decay": 1.0}
        idle = [name for name, neutral in regularizers.items() if getattr(self, name) != neutral]
        idle += ["optimizer muon"] if self.optimizer == "muon" else []
        if self.freeze == "body" and idle:
            raise ValueError(f"freeze: body keeps blocks as they are, on which alone this acts: {', '.join(idle)}")
        return self

    @model_validator(mode="after")
    def _check_evaluation(self) -> Self:
        if self.fit_on == "train+val" and not self.read_test:
            raise ValueError("fitted on train+val, a run has no other images than the test set to be evaluated on")
        return self


MAX_TARGETS = {
    "params": 10**10,
    "macs": 10**14,
    "seconds": 10**6,
    "training_macs": 10**24,
    "training_seconds": 10**9,
    "none": 0,
}
"""A network above these is a typing error: it would fill the memory when it is built to be counted."""


class MatchOptions(Options):
    """The budget that backbones are matched on.

    `params`, `macs` and `seconds` are of a network and solve its width; `training_macs` and `training_seconds` are of a whole
    training and solve its epochs. With `none` networks keep what the sweep gives them.
    """

    by: Literal["params", "macs", "seconds", "training_macs", "training_seconds", "none"] = "none"
    target: Count | float | str | None = None  # 600k; a published variant, "convmixer_256_8 k5 p2"; seconds per 1,000 images
    tolerance: Fraction = Field(0.02, gt=0, le=0.5)
    head_dim: int = Field(32, ge=1)  # width of one attention head; widths move in steps of it
    benchmark: FilePath | None = Field(None, json_schema_extra=OUTSIDE_IDENTITY)  # the file with the measured seconds

    @property
    def solves_epochs(self) -> bool:
        return self.by in ("training_macs", "training_seconds")

    @property
    def solves_widths(self) -> bool:
        return self.by in ("params", "macs", "seconds")

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if (self.by == "none") != (self.target is None):
            raise ValueError("a budget needs a target, none has none (target: null)")
        if (self.by in ("seconds", "training_seconds")) != (self.benchmark is not None):
            raise ValueError("benchmark names the file of measurements: required by budgets in seconds, not allowed otherwise")
        if self.by == "seconds" and isinstance(self.target, str):
            raise ValueError("a target in seconds is a number: training seconds per 1,000 images")
        if self.solves_epochs and isinstance(self.target, str):
            raise ValueError(f"a target in {self.by} is a number: that of a whole training, such as 20T MACs or 600 seconds")
        if self.by in ("params", "macs") and isinstance(self.target, float):
            raise ValueError(f"a target in {self.by} is an integer or a published variant")
        if isinstance(self.target, int | float) and not 0 < self.target <= MAX_TARGETS[self.by]:
            raise ValueError(f"a target in {self.by} is above 0 and at most {MAX_TARGETS[self.by]:,}")
        return self


Layout = Literal["contiguous", "channels_last"]
Compiled = Literal["default", "reduce-overhead"]
"""torch.compile's mode; the latter uses CUDA graphs."""


class Variant(Options):
    """How training is executed, outside a run's identity: a memory layout, compiled or eager.

    Results are the same within rounding, speeds are not. The fastest variant depends on the device and the kernel size (on
    some GPUs channels_last and compiled is two to three times as fast for kernels up to 7, and slower for 9), so it is
    measured, never assumed.
    """

    memory_layout: Layout
    compiled: Compiled | None = None

    @property
    def label(self) -> str:
        suffixes = {None: "", "default": ", compiled", "reduce-overhead": ", compiled, CUDA graphs"}
        return self.memory_layout + suffixes[self.compiled]

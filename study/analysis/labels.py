"""How options, levels and amounts are written for readers: the one place where fractions become percentages.

Names inside the package are columns of the run table (`patch_size`, `mlp_mixer`); figures, tables and reports write them as
a paper would. Unknown names are written with spaces for underscores.
"""

import math
from collections.abc import Iterable, Sequence

from study.analysis.cell_grid import CellLevels, Level
from study.config.sweep import CHANGE

OPTION_NAMES = {
    "kernel_pixels": "kernel size",
    "dim": "width",
    "mlp_dim": "MLP width",
    "match_by": "matched on",
    "lr": "learning rate",
    "data_name": "data set",
    "data_set": "data set",
    "train_images": "training images",
    "val_images": "validation images",
    "val_fraction": "validation fraction",
    "match_head_dim": "head width",
    "match_tolerance": "tolerance",
    "num_classes": "classes",
    "trials": "trials per cell",
    "fit_on": "fitted on",
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "train_accuracy": "training accuracy",
    "match_target": "budget",
    "benchmark_train_images_per_second": "training throughput",
    "inference_images_per_second": "inference throughput",
    "params": "parameters",
    "macs": "MACs per image",
    "tokens": "tokens per image",
    "train_seconds": "training time",
    "images_per_second": "training throughput",
    "val_accuracy": "validation accuracy",
    "split": "validation split",
    "exact": "resumption",
    "dirty": "working tree",
}

UNITS = {
    "patch_size": "pixels",
    "kernel_size": "tokens",
    "kernel_pixels": "pixels",
    "dim": "features",
    "mlp_dim": "features",
    "image_size": "pixels",
    "train_seconds": "s",
    "images_per_second": "images/s",
    "benchmark_train_images_per_second": "images/s",
    "inference_images_per_second": "images/s",
    "test_accuracy": "%",
    "val_accuracy": "%",
}

LEVEL_NAMES = {
    "convmixer": "ConvMixer",
    "vit": "ViT",
    "mlp_mixer": "MLP-Mixer",
    "convnext": "ConvNeXt",
    "metaformer": "MetaFormer",
    "macs": "MACs",
    "params": "parameters",
    "mlp": "MLP",
}

_MATCHING = {
    "params": "at equal parameters",
    "macs": "at equal MACs",
    "seconds": "at equal training time per image",
    "training_macs": "at equal training MACs",
    "training_seconds": "at equal training time",
}
_SI_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def format_option(name: str) -> str:
    """The name of an option (a column of the run table) in words: "patch size"."""
    return OPTION_NAMES.get(name, name.replace("_", " "))


def format_axis_label(name: str) -> str:
    """An option's name with its unit, for an axis: "patch size (pixels)"."""
    return f"{format_option(name)} ({UNITS[name]})" if name in UNITS else format_option(name)


def format_level(value: Level) -> str:
    """A level in words: "ViT", "4", "0.001", "1,018", "on"; "none" where the backbone has no such option."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return LEVEL_NAMES.get(value, value.replace("_", " "))
    is_round_count = isinstance(value, int) and value >= 10_000 and value % 1000 == 0
    if is_round_count or abs(value) >= 1e6:
        return format_amount(value, digits=6)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def drop_option(text: str, name: str) -> str:
    """A setting without the option's name: "patch size 4" -> "4"."""
    return text.removeprefix(f"{format_option(name)} ")


def format_matching(by: Level) -> str:
    """What a way of matching holds equal: "at equal parameters"."""
    return _MATCHING.get(str(by), "at given width and depth")


def format_setting(name: str, value: Level) -> str:
    """An option with its level, "kernel size 5"; backbones, token mixers and changes by their level alone, "ViT"."""
    if name == "match_by":
        return format_matching(value)
    if name == "study":
        return str(value)
    if name == "data_set":
        return f"on {value}"
    if name == CHANGE:
        return str(value)  # the sweep's own words
    return format_level(value) if name in ("backbone", "token_mixer") else f"{format_option(name)} {format_level(value)}"


def format_cell(factors: Sequence[str], levels: CellLevels) -> str:
    """A cell in words, such as "patch size 2, attention"; options that the cell lacks are omitted."""
    return ", ".join(format_setting(name, level) for name, level in zip(factors, levels, strict=True) if level is not None)


def format_sides(upper: str, lower: str) -> str:
    """A contrast by its sides, or by its own name, which has no lower side."""
    return f"{upper} − {lower}" if lower else upper


def format_percent(fraction: float | None, *, digits: int = 1, signed: bool = False) -> str:
    """A fraction in percent, without the percent sign: 0.9731 -> "97.3"; "–" where it is missing."""
    if fraction is None or not math.isfinite(fraction):
        return "–"
    value = round(100 * fraction, digits) + 0.0  # no negative zero
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def format_small_percent(fraction: float) -> str:
    """A fraction far below 1 in percent, with two digits: "0.034 %"."""
    return f"{100 * fraction:.2g} %" if fraction >= 1e-5 else "below 0.001 %"


def format_points(difference: float, *, signed: bool = False) -> str:
    """A difference of accuracies (fraction) in percentage points."""
    return f"{format_percent(difference if signed else abs(difference), digits=2, signed=signed)} points"


def format_interval(low: float, high: float, *, digits: int = 1, signed: bool = False) -> str:
    """An interval of fractions in percent: "96.1 to 97.0"; "–" where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "–"
    low_digits, high_digits = ((_count_digits(bound, digits) if signed else digits) for bound in (low, high))
    return (
        f"{format_percent(low, digits=low_digits, signed=signed)} to {format_percent(high, digits=high_digits, signed=signed)}"
    )


def _count_digits(bound: float, digits: int) -> int:
    """As many digits, at most three more, as show on which side of zero a bound is: a verdict may depend on it."""
    return next((more for more in range(digits, digits + 3) if round(100 * bound, more)), digits + 3 if bound else digits)


def format_amount(value: float | None, *, digits: int = 3) -> str:
    """A count with an SI prefix: 594186 -> "594 k"; "–" where it is missing."""
    if value is None or not math.isfinite(value):
        return "–"
    for size, letter in _SI_PREFIXES:
        if abs(value) >= size * 0.9995:
            return f"{value / size:.{digits}g} {letter}" if abs(value) < 999.5 * size else f"{value / size:.0f} {letter}"
    return f"{value:.{digits}g}"


def format_duration(seconds: float | None) -> str:
    """A time in the unit that fits: "42 s", "3.5 min", "2.1 h"; "–" where it is missing."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def join_words(words: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def format_term(name: str) -> str:
    """A term of a decomposition in words: "patch_size x backbone" -> "patch size × backbone"."""
    return " × ".join(format_option(part) for part in name.split(" x "))


def shorten_label(text: str, *, letters: int = 30) -> str:
    """A text cut in the middle to so many letters, with dollar signs escaped for matplotlib."""
    kept = text if len(text) <= letters else f"{text[: letters // 2 - 1]}…{text[-(letters // 2) :]}"
    return kept.replace("$", r"\$")

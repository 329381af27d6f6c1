"""What a budget leaves unequal: the cost that it doesn't hold, and how far a kernel reaches, over the patch sizes.

Every token passes through all parameters of its blocks, so at equal parameters smaller patches take more MACs, and at equal
MACs larger patches get wider models. At equal training compute the cheaper model sees more images. A kernel of as many tokens
covers more pixels where patches are larger.
"""

from collections.abc import Iterator, Sequence

import pandas as pd

from study.analysis.cell_grid import FloatArray, read_cells, read_numbers, to_level
from study.analysis.factor_layout import group_rows
from study.analysis.labels import format_cell, format_matching, format_option, join_words
from study.config.sweep import CHANGE

_SIZES = ("params", "macs")
_LEFT_UNEQUAL = {
    "params": ("macs",),
    "macs": ("params",),
    **dict.fromkeys(("seconds", "none"), _SIZES),
    **dict.fromkeys(("training_macs", "training_seconds"), ("images_seen", *_SIZES)),
}
_COSTS = {"params": "Parameters", "macs": "MACs", "images_seen": "Images seen in training"}
_ARCHITECTURES = ("backbone", "token_mixer", CHANGE)
_EQUAL = 1.1  # a ratio below it is within the tolerances, or not worth a sentence


def describe_balance(table: pd.DataFrame, factors: Sequence[str]) -> list[str]:
    """Sentences on what the study's budget leaves unequal; none where the table lacks budget, costs or patch sizes.

    MACs at equal parameters, parameters at equal MACs, both at equal seconds and where nothing is matched, and the images
    seen too where whole trainings cost the same: the largest over the smallest of all patch sizes for each backbone or token
    mixer, and of all of these at one patch size; averaged over the other factors. Then what a kernel covers. Population: none;
    a description of the planned runs.
    """
    if not {"match_by", "patch_size", *_SIZES} <= {*table.columns}:
        return []
    table = table.assign(images_seen=count_images_seen(table))
    planned = table[table["match_by"].notna().to_numpy(dtype=bool)]
    kinds = [name for name in _ARCHITECTURES if name in factors]
    sentences = []
    for group in group_rows(planned, ["match_by"]):
        way = str(group.levels[0])
        for cost in _LEFT_UNEQUAL[way]:
            if found := "; ".join(_compare_cost(planned[group.rows], kinds, cost)):
                name = "MACs per image" if cost == "macs" and "images_seen" in _LEFT_UNEQUAL[way] else _COSTS[cost]
                sentences.append(f"{name} differ {format_matching(way)}: {found}.")
    return [*sentences, *_describe_kernels(planned)]


def count_images_seen(table: pd.DataFrame) -> FloatArray:
    """The images that every run sees in training, each as often as it does (`rows`); NaN where the table doesn't say."""
    return read_numbers(table, "epochs") * read_numbers(table, "train_images")


def is_training_matched(table: pd.DataFrame) -> bool:
    """Whether whole trainings were matched, so that runs see different numbers of images."""
    return "match_by" in table and bool(table["match_by"].isin(["training_macs", "training_seconds"]).any())


def _compare_cost(planned: pd.DataFrame, kinds: Sequence[str], cost: str) -> Iterator[str]:
    rows = {
        "kind": [format_cell(kinds, levels) for levels in read_cells(planned, kinds)],
        "patch_size": planned["patch_size"].to_list(),
        "cost": read_numbers(planned, cost),
    }
    means = pd.DataFrame(rows).pivot_table(index="kind", columns="patch_size", values="cost")
    found: dict[tuple[object, object], list[str]] = {}
    for kind, own in means.iterrows():
        if own.max() / own.min() > _EQUAL:
            ratio = _format_ratio(own.max() / own.min())
            found.setdefault((own.idxmax(), own.idxmin()), []).append(f"{ratio} ({kind})" if kinds else ratio)
    for (most, least), ratios in found.items():
        yield f"at patch size {most} they are {join_words(ratios)} times those at patch size {least}"
    largest = (means.max() / means.min()).max()
    if largest > _EQUAL:
        names = join_words(f"{format_option(kind)}s" for kind in kinds)
        yield f"between {names} at one patch size up to {_format_ratio(largest)} times"
    costs = pd.Series(read_numbers(planned, cost))
    overall = float(costs.max() / costs.min())
    if not found and largest <= _EQUAL < overall:
        yield f"between cells up to {_format_ratio(overall)} times"


def _describe_kernels(planned: pd.DataFrame) -> Iterator[str]:
    """The pixels and tokens that kernels cover, and where every token reaches every other, as with attention."""
    if not {"kernel_size", "image_size"} <= {*planned.columns}:
        return
    own = planned[planned["kernel_size"].notna().to_numpy(dtype=bool)]
    columns = ([int(str(to_level(entry))) for entry in own[name]] for name in ("patch_size", "kernel_size", "image_size"))
    kernels = sorted(set(zip(*columns, strict=True)))
    patches = sorted({patch for patch, _, _ in kernels})
    if len(patches) < 2:
        return
    where = f"patch size {join_words(map(str, patches))}"
    pixels, tokens = [p * k for p, k, _ in kernels], [k for _, k, _ in kernels]
    if len(kernels) == len(patches):
        sentence = f"The kernel covers {join_words(map(str, pixels))} pixels ({join_words(map(str, tokens))} tokens) at {where}"
    else:
        sentence = f"Kernels of {min(tokens)} to {max(tokens)} tokens cover {min(pixels)} to {max(pixels)} pixels"
    full = [patch for patch in patches if all(k >= 2 * (size // p) - 1 for p, k, size in kernels if p == patch)]
    reach = f"; at patch size {join_words(map(str, full))} every token reaches every other, as with attention" if full else ""
    yield f"{sentence}{reach}."


def _format_ratio(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"

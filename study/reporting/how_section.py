"""The section "How" of a report: what `study.probe` measured of the trained networks, in sentences, figures and tables.

A sentence is said only where a simultaneous interval carries it. Studies that were not probed have no such section.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd

from study.analysis import labels
from study.analysis.cell_grid import read_numbers
from study.analysis.findings import Findings, StudyPart
from study.analysis.further_tests import PREFIX, compare_losses, list_tests, split_name
from study.analysis.layer_measures import (
    compare_fields,
    compare_similarities,
    list_level_contrasts,
    list_shown_layers,
    select_measure,
)
from study.reporting.figures.figure_spec import FigureSpec
from study.reporting.figures.probe_catalog import FIELD_SHARE, list_probe_figures
from study.reporting.text_tables import (
    Column,
    ReportSection,
    TableRow,
    build_table,
    factor_columns,
    format_estimate,
    list_reasons,
    text_column,
)

FIRST_FIGURES = 3
"""So many are on the section's first level."""


@dataclass(frozen=True)
class HowSection:
    """Sentences, figures (the first ones on the first level) and tables; all empty where nothing was probed."""

    sentences: tuple[str, ...] = ()
    figures: tuple[FigureSpec, ...] = ()
    sections: tuple[ReportSection, ...] = ()


def build_how_section(findings: Findings) -> HowSection:
    """What was measured of every part of the study; names of figures and tables end with the part's."""
    sentences, figures, sections = list[str](), list[FigureSpec](), list[ReportSection]()
    for part in findings.parts:
        probes = findings.study.probes
        own = probes[probes["run_id"].isin(part.table["run_id"])] if len(probes) else probes
        if len(own) == 0:
            continue
        title = f", {part.title}" if part.title else ""
        sentences += [f"{part.heading}: {text}" if title else text for text in _list_sentences(part, own)]
        figures += [
            replace(spec, name=f"{spec.name}{part.ending}", title=f"{spec.title}{title}")
            for spec in list_probe_figures(part, own)
        ]
        sections += [
            replace(section, name=f"{section.name}{part.ending}", title=f"{section.title}{title}")
            for section in _list_tables(part, own)
        ]
    return HowSection(tuple(sentences), tuple(figures), tuple(sections))


def _list_sentences(part: StudyPart, probes: pd.DataFrame) -> Iterator[str]:
    for row in compare_fields(part, probes, layer=1, share=FIELD_SHARE).to_dict("records"):
        if row["low"] > 1 or row["high"] < 1:
            where = f"{row['where'][:1].upper()}{row['where'][1:]}, the" if row["where"] else "The"
            yield (
                f"{where} receptive field of {row['upper']} in layer 1 is {row['ratio']:.2f} times that of {row['lower']} "
                f"({row['low']:.2f} to {row['high']:.2f}; n = {row['n']} seeds, on these test images)."
            )
    shuffled = [name for name in list_tests(part.table) if split_name(name)[0] == "patch_shuffle"]
    for name in shuffled[:1]:
        side = f"{split_name(name)[1]:g}"
        for row in compare_losses(part, name, list_level_contrasts(part)).to_dict("records"):
            if row["low"] > 0 or row["high"] < 0:
                more = "less" if row["difference"] > 0 else "more"
                low, high = sorted((abs(row["low"]), abs(row["high"])))
                where = f", {row['where']}" if row["where"] else ""
                points = f"{labels.format_points(row['difference'])} {more} than {row['lower']}{where}"
                yield (
                    f"With {side} x {side} blocks shuffled, {row['upper']} loses {points} ("
                    f"{labels.format_interval(low, high, digits=2)}; {part.population})."
                )


def _list_tables(part: StudyPart, probes: pd.DataFrame) -> Iterator[ReportSection]:
    yield _build_layers(part, probes)
    similarities = compare_similarities(part, probes)
    if len(similarities):
        yield _build_similarities(similarities)
    if tests := list_tests(part.table):
        yield _build_tests(part, tests)
    if isinstance(part.on_further_tests, pd.DataFrame):
        yield _build_test_contrasts(part.on_further_tests)


_LAYER_MEASURES = (
    ("half of the field (px)", "field_radius", 0.5),
    ("95 % of the field (px)", "field_radius", 0.95),
    ("attention distance (px)", "attention_distance", None),
    ("attention entropy (nats)", "attention_entropy", None),
    ("kernel distance (px)", "kernel_distance", None),
    ("kernel energy within 1 token (%)", "kernel_energy", 1.0),
)


def _build_layers(part: StudyPart, probes: pd.DataFrame) -> ReportSection:
    """Cells by the first, the middle and the last block of each: means over seeds, with the standard deviation."""
    factors = list(part.levels)
    levels = part.table[["run_id", *factors]]
    frames = []
    for heading, measure, at in _LAYER_MEASURES:
        own = select_measure(probes, measure, at=at).merge(levels, on="run_id")
        own["value"] *= 100 if "%)" in heading else 1
        groups = own.astype({"value": float}).groupby([*factors, "layer"], dropna=False)["value"]
        frames.append(groups.agg(lambda values: _format_spread(values)).rename(heading) if len(own) else None)
    known = [frame for frame in frames if frame is not None]
    table = pd.concat(known, axis=1).reset_index() if known else pd.DataFrame(columns=[*factors, "layer"])
    kept = table.groupby(factors, dropna=False)["layer"].transform(lambda own: own.isin(list_shown_layers(list(own))))
    table = table[kept.astype(bool)].fillna({str(frame.name): "–" for frame in known})
    columns = [*factor_columns(factors), text_column("layer", "layer", numeric=True)]
    columns += [text_column(str(frame.name), str(frame.name), numeric=True) for frame in known]
    reading = (
        "Means over seeds ± their standard deviation, in the first, the middle and the last block. Field: radius around "
        "the central token that holds this share of its effective receptive field. Distances: of tokens attended to, and of "
        "a depthwise kernel's weights from its center. probes.parquet has all layers and heads; docs/probing.md says how "
        "each is measured."
    )
    return ReportSection("how-layers", "Layers", build_table(table, columns), reading)


def _format_spread(values: pd.Series) -> str:
    return f"{values.mean():.3g}" + (f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else "")


def _build_similarities(found: pd.DataFrame) -> ReportSection:
    shown = found[found.groupby(["upper", "lower"])["layer"].transform(lambda own: own.isin(list_shown_layers(list(own))))]

    def column(heading: str, name: str) -> Column:
        return Column(heading, lambda row: "–" if pd.isna(row[name]) else f"{row[name]:.2f}")

    columns = [
        Column("first", lambda row: labels.format_level(row["upper"]), numeric=False),
        Column("second", lambda row: labels.format_level(row["lower"]), numeric=False),
        text_column("layer", "layer", numeric=True),
        *(column(*pair) for pair in (("between", "between"), ("within the first", "within_upper"))),
        column("within the second", "within_lower"),
    ]
    reading = (
        "CKA of the outputs of layers at the same fraction of the depth, of runs with different seeds; 1: equal up to "
        "a rotation. Between: a run of each; within: two seeds of the same cell, the reference for “similar”. A description of "
        "these runs."
    )
    return ReportSection("how-similarity", "Similarity of layers", build_table(shown, columns), reading)


def _build_tests(part: StudyPart, tests: list[str]) -> ReportSection:
    """Accuracy of every cell by kind of test, averaged over its strengths."""
    kinds = dict.fromkeys(split_name(name)[0] for name in tests)
    factors = list(part.levels)
    means = part.table[[*factors]].copy()
    for kind in kinds:
        own = [read_numbers(part.table, PREFIX + name) for name in tests if split_name(name)[0] == kind]
        means[f"mean_{kind}"] = sum(own) / len(own)
    table = means.groupby(factors, dropna=False).mean().reset_index()

    def column(kind: str) -> Column:
        return Column(kind.replace("_", " "), lambda row: labels.format_percent(row[f"mean_{kind}"]))

    reading = (
        "Test accuracy in percent on changed test images and further folders, a mean over seeds and over the strengths of each "
        "change. runs.csv has a column for each strength, and correctness.parquet every image."
    )
    content = build_table(table, [*factor_columns(factors), *map(column, kinds)])
    return ReportSection("how-tests", "Other test images", content, reading)


def _build_test_contrasts(found: pd.DataFrame) -> ReportSection:
    """The contrasts on the strongest form of each test."""
    strongest = {split_name(name)[0]: name for name in found["test"]}
    shown = found[found["test"].isin(strongest.values())]

    def format_difference(row: TableRow) -> str:
        return format_estimate(row["difference"], row["low"], row["high"], digits=2, signed=True)

    columns = [
        Column("test", lambda row: str(row["test"]).replace("_", " "), numeric=False),
        text_column("contrast", "contrast"),
        Column("difference (95 % interval)", format_difference),
        text_column("verdict", "verdict"),
        text_column("n", "n", numeric=True),
    ]
    reading = (
        "The primary contrasts on the strongest form of each test, in percentage points; a test's intervals hold at once, and "
        "each test is a family of its own. Population as for the test set. tests.csv has all strengths."
    )
    return ReportSection(
        "how-contrasts", "Contrasts on other test images", build_table(shown, columns), reading, list_reasons(shown)
    )

"""Figures agree with the statistics, use one style throughout, and are the same bytes each time."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import example_sweeps
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from scipy import stats
from simulated_study import Truth, run_table

from study.analysis.cell_grid import read_grid
from study.analysis.cell_means import summarize_cells
from study.analysis.contrast_results import estimate_contrasts
from study.analysis.cost_columns import add_cost
from study.analysis.factor_layout import arrange_factors
from study.analysis.pareto_front import compute_cell_costs, find_pareto_front
from study.analysis.planned_contrasts import plan_contrasts
from study.reporting.figures.accuracy_plots import plot_accuracy_by_level, plot_heat_map
from study.reporting.figures.budget_plots import plot_budget_error, plot_macs_by_component
from study.reporting.figures.contrast_plots import plot_contrasts
from study.reporting.figures.cost_plots import choose_log_ticks, plot_accuracy_by_cost
from study.reporting.figures.excerpts import MAX_PANELS, MAX_POINTS, MAX_SERIES, excerpt_study, thin_runs
from study.reporting.figures.figure_files import save_figure
from study.reporting.figures.panels import count_columns
from study.reporting.figures.style import BACKBONE_MARKS, INK, MARKS, PAPER, STYLES, SURFACE, TALK, Style, assign_marks
from study.reporting.figures.training_plots import plot_learning_curves, plot_sensitivity

FACTORS = ["patch_size", "backbone"]
MIXERS = ["patch_size", "token_mixer", "kernel_size"]

DEUTERANOPIA = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]])
PROTANOPIA = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])
"""Machado, Oliveira, Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009, severity 1."""


def cells_of(table: pd.DataFrame, factors: Sequence[str] = FACTORS) -> pd.DataFrame:
    """The table of cells that a figure draws."""
    return summarize_cells(read_grid(table, arrange_factors(table, factors).factors))


def front_of(table: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The table of cells and costs that a figure draws."""
    grid = read_grid(table, FACTORS)
    return find_pareto_front(grid, compute_cell_costs(add_cost(table, cost), grid, cost="cost"))


def linear(color: str) -> np.ndarray:
    """Linear light of an sRGB color (IEC 61966-2-1)."""
    values = np.array(to_rgb(color))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear light."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(matrix @ np.clip(light, 0, 1) / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def lines_of(ax: Axes, color: str) -> list[np.ndarray]:
    """Points of every connected line of a color."""
    return [line.get_xydata() for line in ax.lines if to_hex(line.get_color()) == color and line.get_linestyle() != "None"]


def test_colors_of_the_main_backbones_are_distinct_for_color_blind_readers() -> None:
    """The three main colors differ clearly in normal, red-blind and green-blind sight, and in lightness alone."""
    main = [MARKS[place].color for place in sorted(BACKBONE_MARKS.values())[:3]]
    for one, other in itertools.combinations(main, 2):
        for sight in (np.eye(3), DEUTERANOPIA, PROTANOPIA):
            assert np.linalg.norm(lab(sight @ linear(one)) - lab(sight @ linear(other))) > 20
        assert abs(lab(linear(one))[0] - lab(linear(other))[0]) > 10


def test_colors_have_enough_contrast_on_their_page() -> None:
    """Marks have a contrast of at least 3 : 1 on white, and their dark variants on a dark page (WCAG 2, 1.4.11)."""
    for mark, page in itertools.product(MARKS, ("#ffffff", "#14171c")):
        color = mark.color if page == "#ffffff" else mark.dark
        light = [float(np.array([0.2126, 0.7152, 0.0722]) @ linear(name)) for name in (color, page)]
        assert (max(light) + 0.05) / (min(light) + 0.05) >= 3


def test_backbone_keeps_its_mark_whatever_the_other_series() -> None:
    """A known name's mark doesn't depend on the other series; no two series of a figure share one."""
    alone = assign_marks([("vit",)])[("vit",)]
    together = assign_marks([("a_new_one",), ("convmixer",), ("vit",), ("another",)])
    assert together[("vit",)] == alone == MARKS[BACKBONE_MARKS["vit"]]
    assert len(set(together.values())) == 4
    assert assign_marks([("another",), ("a_new_one",), ("vit",)])[("vit",)] == alone


def test_means_and_intervals_drawn_are_those_of_scipy() -> None:
    """The line of ViT runs through its means and its bars span scipy's t interval, in percent."""
    table = example_sweeps.patch_size().table
    figure = plot_accuracy_by_level(table, cells_of(table), layout=arrange_factors(table, FACTORS))
    own = table[table["backbone"] == "vit"].groupby("patch_size")["test_accuracy"]
    (drawn,) = [line for line in lines_of(figure.axes[0], MARKS[BACKBONE_MARKS["vit"]].color) if len(line) == 4]
    np.testing.assert_allclose(drawn[:, 1], 100 * own.mean())
    half = 100 * own.sem() * stats.t.ppf(0.975, 4)
    spans = [c.get_segments() for c in figure.axes[0].collections if hasattr(c, "get_segments") and len(c.get_segments()) == 4]
    heights = np.array([[segment[1, 1] - segment[0, 1] for segment in bars] for bars in spans])
    assert np.isclose(heights, 2 * half.to_numpy()).all(axis=1).any()


def test_no_interval_is_drawn_for_two_seeds() -> None:
    """With two seeds there are means and runs but no bar."""
    table = example_sweeps.patch_size(seeds=2).table
    figure = plot_accuracy_by_level(table, cells_of(table), layout=arrange_factors(table, FACTORS))
    assert not figure.axes[0].containers


def test_every_run_is_a_point_and_a_diverged_one_a_cross() -> None:
    """60 runs of which two diverged: 58 points and two crosses."""
    table = example_sweeps.diverged(example_sweeps.patch_size(), runs=[3, 17]).table
    ax = plot_accuracy_by_level(table, cells_of(table), layout=arrange_factors(table, FACTORS)).axes[0]
    points = sum(len(c.get_offsets()) for c in ax.collections if not hasattr(c, "get_segments"))
    crosses = sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == "x")
    assert (points, crosses) == (58, 2)


def test_patch_sizes_are_evenly_spaced_categories() -> None:
    """Patch sizes 1, 2, 4, 8 are at equal distances and are the only ticks."""
    table = example_sweeps.patch_size().table
    ax = plot_accuracy_by_level(table, cells_of(table), layout=arrange_factors(table, FACTORS)).axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "4", "8"]
    assert set(np.diff(ax.get_xticks())) == {1}
    assert ax.get_ylabel().endswith("(%)")
    assert ax.get_xlabel() == "patch size (pixels)"


def test_remaining_factors_make_panels() -> None:
    """Two kernel sizes in addition to patch size and mixer give two panels; no factor is averaged over silently."""
    table = example_sweeps.token_mixer().table
    places = arrange_factors(table, ["patch_size", "token_mixer", "kernel_size"])
    figure = plot_accuracy_by_level(table, cells_of(table, places.factors), layout=places)
    assert [ax.get_title() for ax in figure.axes] == ["kernel size 3", "kernel size 7"]


def test_option_that_only_some_series_have_splits_those_series() -> None:
    """Attention has no kernel: it is one series, depthwise convolution one for each kernel, in one panel."""
    table = example_sweeps.token_mixer().table
    keep = (table["token_mixer"] == "depthwise_conv") | ((table["token_mixer"] == "attention") & (table["kernel_size"] == 3))
    table = table[keep].convert_dtypes().reset_index(drop=True)
    table.loc[table["token_mixer"] == "attention", "kernel_size"] = pd.NA
    figure = plot_accuracy_by_level(table, cells_of(table, MIXERS), layout=arrange_factors(table, MIXERS))
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["depthwise conv, kernel size 3", "attention", "depthwise conv, kernel size 7"]
    assert len(figure.axes) == 1


def test_factor_that_others_determine_makes_no_panels() -> None:
    """A learning rate zipped to the backbone makes no panels."""
    table = example_sweeps.patch_size().table
    table["lr"] = table["backbone"].map({"convmixer": 0.01, "vit": 0.001, "mlp_mixer": 0.002})
    assert arrange_factors(table, ["lr", "patch_size", "backbone"]).factors == ("patch_size", "backbone")


def test_cells_are_at_their_cost() -> None:
    """Against MACs, each mark is at the cell's cost and mean accuracy."""
    table = example_sweeps.patch_size().table
    ax = plot_accuracy_by_cost(table, front_of(table, "macs"), "macs", layout=arrange_factors(table, FACTORS)).axes[0]
    assert ax.get_xscale() == "log"
    own = table.groupby(FACTORS)[["macs", "test_accuracy"]].mean()
    drawn = {tuple(np.round(line.get_xydata()[0], 6)) for line in ax.lines if len(line.get_xdata()) == 1}
    assert drawn >= {(round(row.macs, 6), round(100 * row.test_accuracy, 6)) for row in own.itertuples()}


@pytest.mark.parametrize(("low", "high"), [(4e4, 6e4), (1e6, 8e7), (3, 5e9), (9.7e5, 1.02e6)])
def test_log_axes_have_round_ticks(low: float, high: float) -> None:
    """At most six ticks, all inside the axis; at least three where the axis spans a factor of 1.5."""
    ticks = choose_log_ticks(low, high)
    assert all(low <= tick <= high for tick in ticks)
    assert (3 if high > 1.5 * low else 0) <= len(ticks) <= 6


def test_heat_map_prints_means_and_dashes() -> None:
    """Each cell shows its mean in percent to one digit; cells without a run show a dash."""
    table = example_sweeps.unfinished(example_sweeps.patch_size(), missing=10).table
    texts = [
        text.get_text() for text in plot_heat_map(table, cells_of(table), layout=arrange_factors(table, FACTORS)).axes[0].texts
    ]
    means = table.dropna(subset="test_accuracy").groupby(FACTORS)["test_accuracy"].mean()
    assert sorted(texts) == sorted([*(f"{100 * mean:.1f}" for mean in means), "–", "–"])


def test_learning_curves_are_means_over_seeds() -> None:
    """The line of a series is pandas' mean over seeds, epoch by epoch."""
    sweep = example_sweeps.patch_size()
    figure = plot_learning_curves(
        sweep.table, sweep.curves, layout=arrange_factors(sweep.table, FACTORS), measure="val_accuracy"
    )
    joined = sweep.curves.merge(sweep.table[["run_id", *FACTORS]], on="run_id")
    own = joined[(joined["patch_size"] == 1) & (joined["backbone"] == "vit")]
    (drawn,) = lines_of(figure.axes[0], MARKS[BACKBONE_MARKS["vit"]].color)
    np.testing.assert_allclose(drawn[:, 1], 100 * own.groupby("epoch")["val_accuracy"].mean())


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_files_are_byte_reproducible(style: Style, tmp_path: Path) -> None:
    """Drawn twice, rows in another order: SVG, PNG and PDF are equal; the SVG holds no text that needs a font."""
    table = example_sweeps.patch_size().table
    for folder, rows in (("a", table), ("b", table.iloc[::-1])):
        figure = plot_accuracy_by_level(rows, cells_of(rows), layout=arrange_factors(rows, FACTORS), style=style)
        paths = save_figure(figure, tmp_path / folder / "figure", style=style)
    for path in paths:
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()
    tree = ElementTree.parse(tmp_path / "a" / "figure.svg")
    assert not list(tree.iter("{http://www.w3.org/2000/svg}text"))
    assert tree.getroot().get("width") == f"{72 * style.width:g}pt"
    assert b"/Type3" not in (tmp_path / "a" / "figure.pdf").read_bytes()


def test_drawing_keeps_matplotlibs_settings() -> None:
    """A figure's style doesn't leak into a user's own figures."""
    before = dict(mpl.rcParams)
    table = example_sweeps.one_factor().table
    plot_accuracy_by_level(table, cells_of(table, ["lr"]), layout=arrange_factors(table, ["lr"]), style=TALK)
    assert dict(mpl.rcParams) == before


def test_step_line_is_the_pareto_front() -> None:
    """Its steps are exactly the cells that no cheaper cell dominates, by brute force over all pairs; costs within 2 % count
    as equal."""
    table = example_sweeps.patch_size().table
    ax = plot_accuracy_by_cost(table, front_of(table, "macs"), "macs", layout=arrange_factors(table, FACTORS)).axes[0]
    own = table.groupby(FACTORS)[["macs", "test_accuracy"]].agg({"macs": "median", "test_accuracy": "mean"})
    best = sorted(
        (row.macs, 100 * row.test_accuracy)
        for row in own.itertuples()
        if not ((own["macs"] <= 1.02 * row.macs) & (own["test_accuracy"] > row.test_accuracy)).any()
    )
    (line,) = [line.get_xydata() for line in ax.lines if line.get_drawstyle() == "steps-post"]
    steps = line[np.append(True, np.diff(line[:, 1]) > 0)]
    assert (np.diff(line[:, 1]) >= 0).all()
    np.testing.assert_allclose(steps, best, rtol=0.02)
    np.testing.assert_allclose(steps[:, 1], [accuracy for _, accuracy in best])


def test_equal_budgets_show_no_front_and_no_trend() -> None:
    """Where all parameters are equal within 10 %, no step line and no connecting line suggest that they differ."""
    table = example_sweeps.patch_size().table
    ax = plot_accuracy_by_cost(table, front_of(table, "params"), "params", layout=arrange_factors(table, FACTORS)).axes[0]
    assert not [line for line in ax.lines if len(line.get_xdata()) > 1]


def test_only_significant_differences_are_filled() -> None:
    """A forest plot's filled marks are the significant contrasts, each at its difference in points; primary ones are black."""
    table = example_sweeps.patch_size(seeds=3).table
    axes = {name: sorted(table[name].unique()) for name in FACTORS}
    found = estimate_contrasts(read_grid(table, list(axes)), plan_contrasts(axes))
    ax = plot_contrasts(found).axes[0]
    marks_drawn = [line for line in ax.lines if line.get_marker() == "o"]
    filled = {round(float(line.get_xdata()[0]), 6) for line in marks_drawn if line.get_markerfacecolor() != SURFACE}
    claimed = found[found["verdict"].isin(["higher", "lower"])]
    assert len(marks_drawn) == len(found)
    assert [line.get_markeredgecolor() == INK for line in marks_drawn] == sorted(found["primary"], reverse=True)
    assert filled == {round(100 * difference, 6) for difference in claimed["difference"]}
    assert 0 < len(filled) < len(found)


def test_budget_error_figure_shows_each_cell_at_its_residual() -> None:
    """Marks are at the residual in percent, the band spans the tolerance."""
    table = example_sweeps.patch_size().table
    ax = plot_budget_error(table, layout=arrange_factors(table, FACTORS), tolerance=0.02).axes[0]
    drawn = sorted(float(y) for line in ax.lines if line.get_marker() not in ("None", None) for y in line.get_ydata())
    first = table.groupby(FACTORS)["match_residual"].first()
    np.testing.assert_allclose(drawn, sorted(100 * first))
    assert ax.patches[0].get_height() == pytest.approx(4)


def test_components_of_the_macs_fill_their_bars() -> None:
    """Each network's components sum to 100 percent, in the order stem, token mixing, channel mixing, head."""
    table = example_sweeps.patch_size().table
    ax = plot_macs_by_component(table, layout=arrange_factors(table, FACTORS)).axes[0]
    bars = np.array([patch.get_width() for patch in ax.patches if patch.get_y() > -1]).reshape(-1, 4)
    assert len(bars) == 12
    np.testing.assert_allclose(bars.sum(axis=1), 100)
    convmixer = table[table["backbone"] == "convmixer"].iloc[0]
    assert bars[0, 1] == pytest.approx(100 * convmixer["macs_token_mixing"] / convmixer["macs"], abs=0.01)


def test_sensitivity_curves_are_means_over_seeds() -> None:
    """Validation accuracy over learning rates: one point for each rate, at pandas' mean over seeds."""
    sweep = example_sweeps.one_factor()
    figure = plot_sensitivity(sweep.table, "lr", layout=arrange_factors(sweep.table, []))
    (drawn,) = lines_of(figure.axes[0], MARKS[BACKBONE_MARKS["vit"]].color)
    own = 100 * sweep.table.groupby("lr")["val_accuracy"].mean()
    np.testing.assert_allclose(drawn, np.column_stack([own.index, own]))
    assert figure.axes[0].get_xscale() == "log"


def test_learning_curves_are_on_the_log_scale_of_the_error() -> None:
    """Every tenfold of the error takes the same height, the axis ends at half an image's error, its ticks are inside."""
    sweep = example_sweeps.patch_size()
    curves = sweep.curves.assign(val_accuracy=1 - 0.5 * np.exp(-0.6 * sweep.curves["epoch"].to_numpy()))
    figure = plot_learning_curves(sweep.table, curves, layout=arrange_factors(sweep.table, FACTORS), measure="val_accuracy")
    ax = figure.axes[0]
    height = ax.get_yaxis().get_transform().transform
    places = height(np.array([50.0, 90.0, 95.0, 99.0, 99.5]))
    assert places[3] - places[1] == pytest.approx(places[4] - places[2])
    low, high = ax.get_ylim()
    assert all(low <= tick <= high for tick in ax.get_yticks())
    assert len(ax.get_yticks()) >= 4
    assert high < 100


@pytest.mark.parametrize(("titles", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (6, 3), (7, 2), (8, 2), (9, 3)])
def test_panels_leave_few_cells_empty(titles: int, columns: int) -> None:
    """Two or three in a row, whichever leaves fewer empty cells; long titles get two in a row."""
    assert count_columns(["patch size 4"] * titles, style=PAPER) == columns
    assert count_columns(["kernel size 3, width 64, depth 12, width 9"] * titles, style=PAPER) == min(titles, 2)


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_legend_in_an_empty_cell_covers_no_panel(style: Style) -> None:
    """With five panels the legend is where the sixth would be and overlaps none."""
    table = pd.concat([example_sweeps.patch_size(seeds=3).table.assign(depth=depth) for depth in (1, 2, 3, 4, 5)])
    figure = plot_accuracy_by_level(
        table, cells_of(table, [*FACTORS, "depth"]), layout=arrange_factors(table, [*FACTORS, "depth"]), style=style
    )
    assert len(figure.axes) == 5
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert not any(box.overlaps(ax.get_window_extent()) for ax in figure.axes)


def test_curves_of_all_panels_are_inside_their_limits() -> None:
    """Panels share their limits, so these contain the curves of all panels, not of the first alone."""
    sweep = example_sweeps.patch_size(seeds=3)
    worse = {2: 1.0, 4: 0.6}
    best = sweep.table.set_index("run_id")["patch_size"].map(worse).fillna(0.3).astype(float)
    curves = sweep.curves.assign(val_accuracy=best[sweep.curves["run_id"]].to_numpy() * sweep.curves["epoch"].to_numpy() / 100)
    layout = arrange_factors(sweep.table, FACTORS)
    figure = plot_learning_curves(sweep.table, curves, layout=layout, measure="val_accuracy")
    low, high = figure.axes[0].get_ylim()
    drawn = np.concatenate([line.get_ydata() for ax in figure.axes for line in ax.lines])
    assert low < drawn.min() < 10 < drawn.max() < high


def test_a_factor_with_more_levels_than_marks_is_along_the_axis() -> None:
    """32 levels by 4: four series, whose legend, labels and numbers cover nothing."""
    truth = Truth({"patch_size": [1, 2, 4, 8], "lr": [round(1e-5 * 1.4**n, 8) for n in range(32)]}, np.full((4, 32), 0.8))
    table = run_table(truth, seeds=3)
    layout = arrange_factors(table, list(truth.axes))
    assert (layout.along, layout.series) == ("lr", ("patch_size",))
    cells = cells_of(table, list(truth.axes))
    figure = plot_accuracy_by_level(table, cells, layout=layout)
    figure.draw_without_rendering()
    assert not figure.legends[0].get_window_extent().overlaps(figure.axes[0].get_window_extent())
    heat_map = plot_heat_map(table, cells, layout=layout)
    heat_map.draw_without_rendering()
    boxes = [text.get_window_extent() for text in heat_map.axes[0].texts]
    assert len(boxes) == 128
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))


def test_an_excerpt_is_even_and_says_what_it_leaves_out() -> None:
    """Of 40 panels and 16 series as many are shown as there is room for, the first and the last of each among them."""
    axes = {"depth": list(range(40)), "lr": [n / 1000 for n in range(1, 17)]}
    table = run_table(Truth(axes, np.full((40, 16), 0.8)), seeds=2)
    shown = excerpt_study(table, ["depth"], ["lr"])
    depths, rates = (sorted(set(shown.table[name])) for name in axes)
    assert (len(depths), len(rates), depths[0], depths[-1], rates[-1]) == (MAX_PANELS, MAX_SERIES, 0, 39, 0.016)
    assert set(np.diff(depths)) <= {3, 4}
    assert f"{MAX_PANELS} of 40 panels and {MAX_SERIES} of 16 series" in shown.note
    assert excerpt_study(table[table["depth"] < 3], ["depth"], []).note == ""


def test_points_of_a_large_study_are_thinned_from_the_lowest_to_the_highest() -> None:
    """Of each cell as many runs, evenly spaced by rank; a small study shows every run."""
    table = run_table(Truth({"depth": [1, 2]}, np.array([0.7, 0.8])), seeds=3 * MAX_POINTS // 2)
    drawn = table[thin_runs(table, ["depth"])].groupby("depth")["test_accuracy"]
    own = table.groupby("depth")["test_accuracy"]
    assert drawn.size().tolist() == [MAX_POINTS // 2] * 2
    for statistic in ("min", "max"):
        assert drawn.agg(statistic).equals(own.agg(statistic))
    assert drawn.median().to_numpy() == pytest.approx(own.median().to_numpy(), abs=1e-4)
    assert thin_runs(table.head(MAX_POINTS), ["depth"]).all()

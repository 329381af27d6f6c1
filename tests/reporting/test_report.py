"""The report gives the answer first, lists what is missing, and is redrawn from its folder byte for byte."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import example_sweeps
import pandas as pd
import pytest
from example_sweeps import Example
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from study.analysis.findings import Findings
from study.analysis.report_files import read_report_folder, write_tables
from study.analysis.report_tables import StudyTables, combine_studies, remove_data_folders
from study.report import main
from study.reporting.figures.catalog import list_figures
from study.reporting.figures.figure_spec import FigureSpec
from study.reporting.figures.style import PAPER
from study.reporting.html_explorer import build_explorer
from study.reporting.html_page import render_page
from study.reporting.markdown import write_markdown
from study.reporting.report_folder import _name_files
from study.reporting.sections import list_sections
from study.reporting.text_tables import TextTable

WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Refuse())
from study.report import main
sys.exit(main(sys.argv[1:]))
"""


def draw(example: Example, folder: Path, *options: str, formats: str = "svg") -> str:
    """The report of an example, drawn by the command; returns report.md."""
    example_sweeps.as_folder(example, folder)
    assert main([str(folder), "--formats", formats, *options]) == 0
    return (folder / "report.md").read_text(encoding="utf-8")


def digests(folder: Path) -> dict[str, str]:
    """A hash of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on learning rates, drawn once for the tests that only read."""
    folder = tmp_path_factory.mktemp("report") / "a"
    draw(example_sweeps.one_factor(), folder, formats="svg,png,pdf")
    return folder


def test_tables_survive_writing_and_reading(tmp_path: Path) -> None:
    """Types, missing entries, hashes that look like numbers and every bit of every float survive the folder."""
    sweep = example_sweeps.unfinished(example_sweeps.patch_size(), missing=7)
    table = sweep.table.assign(data_digest="123e45678", commit="0" * 40, grad_clip=pd.NA)
    write_tables(StudyTables(table, sweep.curves, sweep.facts), tmp_path)
    back = read_report_folder(tmp_path)
    pd.testing.assert_frame_equal(back.table, table.convert_dtypes(), check_dtype=False, check_exact=True)
    assert back.table["data_digest"].iloc[0] == "123e45678"
    assert back.facts == sweep.facts
    assert (tmp_path / "sweep.yaml").read_text(encoding="utf-8") == sweep.facts.sweep_yaml


def test_report_is_redrawn_byte_for_byte_without_torch(report: Path, tmp_path: Path) -> None:
    """From the tables alone, in a process that can't import torch, every file comes out the same."""
    example_sweeps.as_folder(example_sweeps.one_factor(), tmp_path / "b")
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "b")], check=True, capture_output=True)
    first = digests(report)
    assert first == digests(tmp_path / "b")
    made = {"report.md", "index.html", "tables/cells.tex", "figures/learning-curves.svg"}
    assert {*made, "runs.csv", "curves.parquet", "sweep.yaml", "study.json"} <= set(first)


def test_answer_comes_before_everything_else(report: Path) -> None:
    """Title, question, then the answer; figures and tables follow; provenance ends it."""
    text = (report / "report.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert (headings[:4], headings[-1]) == (["Answer", "Figures", "Cells", "Planned contrasts"], "Provenance")
    assert text.startswith("# example")
    assert "n = 3 seeds" in text
    assert "commit: 4f2a9c1e4f2a" in text
    assert "torch 2.13.0" in text


def test_unfinished_study_is_marked_in_the_first_line(tmp_path: Path) -> None:
    """How many of how many runs, and which are missing, by name."""
    sweep = example_sweeps.unfinished(example_sweeps.one_factor(), missing=2)
    first = draw(sweep, tmp_path / "r").splitlines()[0]
    assert "10 of 12 runs" in first
    for run in sweep.table["run_id"].iloc[-2:]:
        assert run in first


def test_linked_figures_are_the_files_of_the_folder(report: Path) -> None:
    """Every figure is linked as SVG, PNG and PDF; no link is dead and no file is unlinked."""
    text = (report / "report.md").read_text(encoding="utf-8")
    files = {f"figures/{path.name}" for path in (report / "figures").iterdir()}
    assert files == set(re.findall(r"\]\((figures/[^)]+)\)", text))
    assert {Path(name).suffix for name in files} == {".svg", ".png", ".pdf"}


def test_formats_limit_what_is_drawn_and_linked(tmp_path: Path) -> None:
    """With two formats, files of the third are removed and it is linked nowhere; SVG is always there, for the page."""
    draw(one_cell(example_sweeps.one_factor()), tmp_path, formats="svg,png,pdf")
    text = draw(one_cell(example_sweeps.one_factor()), tmp_path, formats="png")
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".svg", ".png"}
    assert {Path(name).suffix for name in re.findall(r"\]\((figures/[^)]+)\)", text)} == {".svg", ".png"}


def test_unknown_format_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--formats", "svg,gif"])
    assert "'gif' is not one of svg, png, pdf" in capsys.readouterr().err


def test_report_of_runs_is_written_next_to_them_unless_out_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the report is in the (ignored) folder of the runs; --out names another one, such as reports/<sweep>."""
    runs = tmp_path / "runs/example"
    (runs / "records").mkdir(parents=True)
    tables = one_cell(example_sweeps.one_factor()).tables
    monkeypatch.setattr("study.report.read_run_folder", lambda folder: tables)
    monkeypatch.chdir(tmp_path)
    assert main(["runs/example", "--formats", "svg"]) == 0
    assert (runs / "report/report.md").is_file()
    assert not Path("reports").exists()
    assert main(["runs/example", "--formats", "svg", "--out", "reports/example"]) == 0
    assert digests(Path("reports/example")) == digests(runs / "report")


@pytest.mark.parametrize(
    "sweep",
    [
        pytest.param(lambda: example_sweeps.one_factor(seeds=1), id="one seed"),
        pytest.param(lambda: example_sweeps.unfinished(example_sweeps.one_factor(), missing=12), id="nothing yet"),
        pytest.param(lambda: example_sweeps.diverged(example_sweeps.one_factor(), runs=list(range(12))), id="all diverged"),
        pytest.param(lambda: example_sweeps.unfinished(example_sweeps.patch_size(seeds=3), missing=20), id="few cells"),
        pytest.param(lambda: without_curves(example_sweeps.one_factor()), id="no curves"),
        pytest.param(lambda: one_cell(example_sweeps.one_factor()), id="one cell"),
        pytest.param(example_sweeps.tuned, id="tuned"),
        pytest.param(lambda: undecided(example_sweeps.tuned()), id="trials under way"),
        pytest.param(lambda: empty(example_sweeps.one_factor()), id="empty table"),
        pytest.param(lambda: long_names(example_sweeps.patch_size(seeds=2, epochs=2)), id="long names"),
    ],
)
def test_poor_and_odd_studies_have_a_report(sweep: Callable[[], Example], tmp_path: Path) -> None:
    """The report says what is missing; none ends in a traceback or a warning."""
    findings = Findings(read_report_folder(example_sweeps.as_folder(sweep(), tmp_path)))
    drawn = list_figures(findings)
    for spec in drawn:
        spec.plot(style=PAPER).draw_without_rendering()
    text = write_markdown(findings, drawn, list_sections(findings), formats=["svg"])
    assert not re.search(r"\bnan\b|<NA>|NotImplemented", text, re.IGNORECASE)
    assert "# example" in text


def without_curves(sweep: Example) -> Example:
    return replace(sweep, curves=pd.DataFrame({name: [] for name in ("run_id", "epoch", "train_loss", "val_accuracy")}))


def one_cell(sweep: Example) -> Example:
    table = sweep.table[sweep.table["lr"] == 0.001].reset_index(drop=True)
    return replace(sweep, table=table, facts=replace(sweep.facts, factors={}))


def empty(sweep: Example) -> Example:
    return Example(sweep.table.iloc[:0], without_curves(sweep).curves, sweep.facts)


def undecided(sweep: Example) -> Example:
    pending = example_sweeps.unfinished(sweep, missing=len(sweep.table))
    trials = sweep.trials.convert_dtypes()
    trials.loc[trials.index[5:], ["val_accuracy", "train_seconds"]] = pd.NA
    trials.loc[trials.index[5:], "status"] = "missing"
    trials["selected"] = pd.array([pd.NA] * len(trials), dtype="boolean")
    return replace(pending, table=pending.table.assign(lr=pd.NA), facts=sweep.facts, trials=trials)


def long_names(sweep: Example) -> Example:
    names = {"vit": "a_vision_transformer_with_an_uncommonly_long_name", "convmixer": "another_that_nobody_could_shorten"}
    return replace(sweep, table=sweep.table.replace({"backbone": names}))


def test_texts_of_users_are_escaped(tmp_path: Path) -> None:
    """Markup in a question, a name or a reason is shown as it was typed and never becomes markup."""
    sweep = example_sweeps.diverged(example_sweeps.one_factor(), runs=[0])
    table = sweep.table.assign(device_name="<img src=x onerror=alert(1)>|*gpu*")
    table.loc[0, "reason"] = "a | pipe, <b>bold</b> and [link](javascript:x)"
    facts = replace(sweep.facts, question="Is 1 < 2? <script>alert(1)</script> | `code`")
    text = draw(Example(table, sweep.curves, facts), tmp_path / "r")
    assert "<script" not in text
    assert "<img" not in text
    assert "<b>" not in text
    assert "[link](" not in text.replace("\\[link\\](", "")
    assert r"\| \`code\`" in text


def test_folders_of_users_are_omitted(tmp_path: Path) -> None:
    """Neither data roots nor absolute paths in reasons reach the committed tables."""
    sweep = example_sweeps.diverged(example_sweeps.one_factor(), runs=[0])
    sweep.table.loc[0, "reason"] = "FileNotFoundError: [Errno 2] /home/lovelace/images/train/7.png is gone"
    yaml = "data:\n  root: /scratch/lovelace/x  # big disk\n  cache: ../lovelace/cache\nmore: {root: /home/lovelace, name: x}\n"
    facts = replace(sweep.facts, sweep_yaml=yaml, overrides=("data.root=/home/lovelace/x", "train.epochs=2"))
    write_tables(StudyTables(sweep.table, sweep.curves, facts), tmp_path)
    for path in tmp_path.iterdir():
        assert b"lovelace" not in path.read_bytes(), path.name
    assert "7.png is gone" in (tmp_path / "runs.csv").read_text(encoding="utf-8")
    assert remove_data_folders(facts).overrides == ("train.epochs=2",)
    assert "root: data  # big disk" in (tmp_path / "sweep.yaml").read_text(encoding="utf-8")


def test_unknown_sweep_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, and the three things that SWEEP can be."""
    assert main([str(tmp_path / "nothing")]) == 2
    assert "neither a sweep's YAML file, nor a folder of runs or of a report" in capsys.readouterr().err


def test_latex_tables_are_escaped_and_ruled() -> None:
    """Special letters are printed literally; the rules of booktabs frame the table; headings may repeat."""
    frame = pd.DataFrame([["x & y", "−1.5", "\\~^"]], columns=["a_b", "50 %", "a_b"])
    text = TextTable(frame, (False, True, True)).to_latex(caption="100 % & more", label="tab:x")
    assert r"a\_b & 50 \% & a\_b \\" in text
    assert r"x \& y & $-$1.5 & \textbackslash{}\textasciitilde{}\textasciicircum{} \\" in text
    assert r"\begin{tabular}{lrr}" in text
    assert r"\caption{100 \% \& more}" in text
    assert re.findall(r"\\\w+rule", text) == [r"\toprule", r"\midrule", r"\bottomrule"]


def test_talk_style_adds_figures_for_slides(tmp_path: Path) -> None:
    """`--style talk` adds a folder of figures; report and page are the same bytes as without."""
    draw(one_cell(example_sweeps.one_factor()), tmp_path)
    before = digests(tmp_path)
    draw(one_cell(example_sweeps.one_factor()), tmp_path, "--style", "talk")
    after = digests(tmp_path)
    assert before.pop("files.txt") != after.pop("files.txt")
    assert before.items() <= after.items()
    assert {Path(name).parent.name for name in after.keys() - before.keys()} == {"figures-talk"}


def test_two_sweeps_are_compared(tmp_path: Path) -> None:
    """A comparison keeps both sweeps' runs, answers each, says where a sign differs, and can be redrawn."""
    one = example_sweeps.patch_size(seeds=3, epochs=2)
    table = one.table.assign(test_accuracy=1.8 - one.table["test_accuracy"], match_by="macs")
    other = replace(one, table=table, facts=replace(one.facts, name="other"))
    folders = [example_sweeps.as_folder(sweep, tmp_path / sweep.facts.name) for sweep in (one, other)]
    assert main([str(folders[0]), "--compare", str(folders[1]), "--formats", "svg"]) == 0
    compared = tmp_path / "example-vs-other"
    text = (compared / "report.md").read_text(encoding="utf-8")
    assert ": the sign changes with what is held equal." in text
    assert (
        text.index("## Contrasts side by side")
        < text.index("## Cells, at equal parameters")
        < text.index("## Cells, at equal MACs")
    )
    assert re.search(r"\| +at equal parameters +\| +at equal MACs +\| sign +\|", text)
    assert (compared / "figures" / "side-by-side.svg").is_file()
    assert (compared / "tables" / "side-by-side.tex").is_file()
    assert len(read_report_folder(compared).table) == 72


def test_three_sweeps_are_compared_in_the_order_of_what_is_held_equal(tmp_path: Path) -> None:
    """Equal parameters, equal MACs and neither come in this order, whatever the order of the command line."""
    one = example_sweeps.patch_size(seeds=3, epochs=2)
    folders = [
        example_sweeps.as_folder(
            replace(one, table=one.table.assign(match_by=way), facts=replace(one.facts, name=way)), tmp_path / way
        )
        for way in ("none", "macs", "params")
    ]
    others = [word for folder in folders[1:] for word in ("--compare", str(folder))]
    assert main([str(folders[0]), *others, "--formats", "svg", "--out", str(tmp_path / "all")]) == 0
    text = (tmp_path / "all" / "report.md").read_text(encoding="utf-8")
    assert re.search(r"\| +at equal parameters +\| +at equal MACs +\| +at given width and depth +\| sign +\|", text)
    assert "**No contrast changes sign with what is held equal: of 7 primary contrasts, " in text
    assert "; n = 3 seeds in each.**" in text
    for factor in ("patch size", "backbone"):
        assert re.search(
            rf"^- The range of the {factor} is .* at equal MACs and .* at given width and depth\.$", text, re.MULTILINE
        )


def test_sweeps_with_different_factors_can_be_compared(tmp_path: Path) -> None:
    """Backbones and token mixers: no common figure, but both answers and tables, and one explorer."""
    other = example_sweeps.token_mixer(seeds=2, epochs=2)
    sides = [example_sweeps.patch_size(seeds=2, epochs=2), replace(other, facts=replace(other.facts, name="mixers"))]
    findings = Findings(combine_studies([side.tables for side in sides]))
    assert [part.title for part in findings.parts] == ["in example", "in mixers"]
    assert "side-by-side" not in [spec.name for spec in list_figures(findings)]
    points = build_explorer(findings)["runs"]
    assert len(points) == 24 + 48
    assert {"ConvMixer", "MetaFormer, attention"} <= {point["series"] for point in points}


def test_a_study_matched_in_several_ways_is_answered_for_each() -> None:
    """Equal parameters, equal MACs and neither are three answers, each over its own runs."""
    sweep = example_sweeps.patch_size(seeds=3, epochs=2)
    ways = ["macs", "none", "params"]
    table = pd.concat([sweep.table.assign(match_by=way, run_id=sweep.table["run_id"] + way) for way in ways], ignore_index=True)
    factors = {**sweep.facts.factors, "match.by": ways}
    findings = Findings(StudyTables(table, sweep.curves, replace(sweep.facts, factors=factors)))
    titles = [part.title for part in findings.parts]
    assert titles == ["at equal parameters", "at equal MACs", "at given width and depth"]
    assert [len(part.table) for part in findings.parts] == [36, 36, 36]
    assert all(part.sentences[0].startswith(f"On digits {part.title}, ") for part in findings.parts)
    assert len({spec.name for spec in list_figures(findings)}) == len(list_figures(findings))


def test_budgets_of_one_kind_are_levels_of_a_factor() -> None:
    """An axis of targets under one way of matching is compared like any other axis."""
    sweep = example_sweeps.patch_size(seeds=3, epochs=2)
    sizes = [30_000, 120_000]
    tables = [sweep.table.assign(match_target=size, run_id=sweep.table["run_id"] + str(size)) for size in sizes]
    factors = {**sweep.facts.factors, "match.target": sizes}
    findings = Findings(StudyTables(pd.concat(tables, ignore_index=True), sweep.curves, replace(sweep.facts, factors=factors)))
    (part,) = findings.parts
    assert part.levels["match_target"] == sizes
    assert len(part.cells) == 24
    assert isinstance(part.contrasts, pd.DataFrame)
    assert "budget 120 k − budget 30 k, averaged over" in "; ".join(part.contrasts["contrast"])
    assert "accuracy-by-patch-size" in [spec.name for spec in list_figures(findings)]


def test_published_results_are_separate_and_name_their_source() -> None:
    """On CIFAR-10 there is a figure with hollow marks and sources; elsewhere there is none, and never in another figure."""
    sweep = example_sweeps.patch_size(seeds=2, epochs=2)
    cifar = replace(sweep, table=sweep.table.assign(data_name="cifar10", image_size=32))
    for example, there in ((sweep, False), (cifar, True)):
        drawn = list_figures(Findings(example.tables))
        names = [spec.name for spec in drawn]
        assert ("published" in names) == there
        citing = [spec.name for spec in drawn if "locuslab" in spec.caption]
        assert citing == (["published"] if there else [])


def test_budget_figure_shows_the_tolerance() -> None:
    """The plan's tolerance is the band, and the caption says so."""
    sweep = example_sweeps.patch_size(seeds=2, epochs=2)
    drawn = {spec.name: spec for spec in list_figures(Findings(sweep.tables))}
    assert "Band: tolerance of 2.0 %." in drawn["budget-match-error"].caption
    (band,) = drawn["budget-match-error"].plot(style=PAPER).axes[0].patches
    assert band.get_extents().height > 0


def test_tuned_sweep_reports_the_choices_and_the_sensitivity(tmp_path: Path) -> None:
    """Trials survive the folder; the report has their table, their figure, their hours and their number per cell."""
    sweep = example_sweeps.tuned()
    text = draw(sweep, tmp_path)
    back = read_report_folder(tmp_path)
    columns = ["run_id", "cell", "seed", "lr", "val_accuracy", "selected"]
    pd.testing.assert_frame_equal(back.trials[columns], sweep.trials[columns], check_dtype=False, check_exact=True)
    assert "## Hyperparameter tuning" in text
    assert "Sensitivity to learning rate" in text
    assert "trials per cell 8" in text
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "computed from `runs.csv`, `trials.csv`, `curves.parquet` and `study.json`" in text
    assert "<code>runs.csv</code>, <code>trials.csv</code>, " in page
    assert re.search(r"In \d of 4 tuned cells \(.*\) the best learning rate is the lowest or highest tried", text)
    spent = Findings(back).spent
    assert spent["trials"].sum() == 32
    assert spent["trial_hours"].sum() == pytest.approx(sweep.trials["train_seconds"].sum() / 3600)
    ours = digests(tmp_path)
    assert main([str(tmp_path), "--formats", "svg"]) == 0
    assert digests(tmp_path) == ours


def test_without_validation_images_learning_curves_show_the_loss() -> None:
    """Runs trained on training and validation images have no validation curve; the figure says so and isn't empty."""
    drawn = {spec.name: spec for spec in list_figures(Findings(example_sweeps.tuned().tables))}
    spec = drawn["learning-curves"]
    assert "There are no validation curves: these runs were trained on the validation images as well." in spec.caption
    ax = spec.plot(style=PAPER).axes[0]
    assert ax.get_ylabel() == "training loss"
    assert all(len(line.get_xdata()) == 4 for line in ax.lines)


def test_trials_of_two_sweeps_are_kept_apart(tmp_path: Path) -> None:
    """In a comparison, each study's choices come from its own trials; an untuned study has none."""
    one, other = example_sweeps.tuned(), example_sweeps.patch_size(seeds=3, epochs=2)
    untuned = replace(other, facts=replace(other.facts, name="untuned"))
    findings = Findings(combine_studies([one.tables, untuned.tables]))
    assert [len(part.trials) for part in findings.parts] == [32, 0]
    assert [part.tuned for part in findings.parts] == [["lr"], []]


def test_intervals_are_clipped_at_100_percent(tmp_path: Path) -> None:
    """A cell near 100 % is printed and drawn up to 100 % and the report says so; the statistic keeps its t interval."""
    sweep = example_sweeps.one_factor()
    near = sweep.table["test_accuracy"].where(sweep.table["lr"] != 0.003, 0.997 + 0.001 * (sweep.table["seed"] - 1))
    findings = Findings(replace(sweep, table=sweep.table.assign(test_accuracy=near + (near > 0.99) * 0.0015)).tables)
    (part,) = findings.parts
    assert part.cells["high"].max() > 1
    (spec, *_), text = list_figures(findings), write_markdown(findings, [], list_sections(findings), formats=["svg"])
    assert "clipped at 100 %" in spec.caption
    assert re.search(r"to 100.0 +\|", text)
    assert "Intervals are clipped at 100 %" in text
    bars = [line for line in spec.plot(style=PAPER).axes[0].collections if hasattr(line, "get_segments")]
    assert max(end[1] for bar in bars for segment in bar.get_segments() for end in segment) == 100
    assert max(cell["high"] for cell in build_explorer(findings)["cells"]) == 100
    assert "clipped at" not in list_figures(Findings(sweep.tables))[0].caption


def hostile(folder: Path, name: str) -> Path:
    """A report's folder whose study has this name."""
    example_sweeps.as_folder(example_sweeps.one_factor(), folder)
    document = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    (folder / "study.json").write_text(json.dumps({**document, "name": name}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["/etc/evil", "..", "../../evil", "a/b", "a-vs-../b", ".hidden", "a\nb", "", "x\0y"])
def test_a_studys_name_leads_to_no_other_folder(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever wrote the tables: such a name is refused with its file, and nothing is written anywhere."""
    folder = hostile(tmp_path / "report", name)
    before = digests(tmp_path)
    assert main([str(folder), "--compare", str(folder)]) == 2
    assert "study.json" in capsys.readouterr().err
    assert digests(tmp_path) == before


def test_only_what_a_report_wrote_is_deleted(tmp_path: Path) -> None:
    """Files of a user beside figures and tables stay; what the list names outside the report stays; the report's own go."""
    folder = tmp_path / "report"
    draw(one_cell(example_sweeps.one_factor()), folder, formats="svg,png")
    mine = [folder / "figures/mine.svg", folder / "tables/mine.tex", tmp_path / "other.svg"]
    for path in mine:
        path.write_text("mine")
    stale = folder / "figures/drawn-before.svg"
    stale.touch()
    with (folder / "files.txt").open("a") as listed:
        listed.write("figures/drawn-before.svg\n../other.svg\n/etc/passwd.svg\nruns.csv\n")
    draw(one_cell(example_sweeps.one_factor()), folder, formats="svg")
    assert all(path.read_text() == "mine" for path in mine) and (folder / "runs.csv").exists()
    assert not stale.exists() and not list((folder / "figures").glob("*.png"))


@given(st.lists(st.text()))
def test_levels_make_no_paths(names: list[str]) -> None:
    """Whatever a level is called, a figure's file is in the report's folder, and each figure has its own."""
    made = [spec.name for spec in _name_files(FigureSpec(name, "", "", "", plot=Figure) for name in names)]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{0,110}", name) for name in made)
    assert len({name.lower() for name in made}) == len(names)


def test_links_lead_nowhere(tmp_path: Path) -> None:
    """A foreign folder's links to folders are refused, those to files are replaced; nothing is written through them."""
    folder, outside, file = tmp_path / "report", tmp_path / "outside", tmp_path / "file"
    example_sweeps.as_folder(one_cell(example_sweeps.one_factor()), folder)
    outside.mkdir()
    file.write_text("mine")
    for name in ("figures", "tables"):
        (folder / name).symlink_to(outside)
        assert main([str(folder), "--formats", "svg"]) == 2
        (folder / name).unlink(missing_ok=True)
    (folder / "figures").mkdir(exist_ok=True)
    for name in ("report.md", "files.txt", "figures/heat-map.svg"):
        (folder / name).symlink_to(file)
    assert main([str(folder), "--formats", "svg"]) == 0
    assert file.read_text() == "mine" and not list(outside.iterdir())
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_filters_of_the_page_sort_levels_by_size(tmp_path: Path) -> None:
    """Patch size 16 comes after 4, although its text sorts before."""
    sweep = example_sweeps.patch_size(seeds=2, epochs=2)
    table = sweep.table.assign(patch_size=sweep.table["patch_size"].replace(8, 16))
    page = render_page(Findings(replace(sweep, table=table).tables), [], [], folder=tmp_path, formats=[])
    assert re.findall(r"<option>(\d+)</option>", page) == ["1", "2", "4", "16"]


def test_page_without_costs_has_no_empty_menu(tmp_path: Path) -> None:
    """Where no cost is known there is nothing to put accuracy against; learning curves are still there."""
    sweep = example_sweeps.patch_size(seeds=2, epochs=2)
    for columns, there in (([], True), (["params", "macs", "images_per_second"], False)):
        bare = replace(sweep, table=sweep.table.drop(columns=columns))
        page = render_page(Findings(bare.tables), [], [], folder=tmp_path, formats=[])
        assert ('<select id="scatter-choice">' in page) == there
        assert '<select id="curves-choice">' in page


def test_an_ablation_has_one_table_and_one_figure_of_its_changes() -> None:
    """The forest is sorted by effect, with a line per change; no figure or table of it says the same in another way."""
    findings = Findings(example_sweeps.ablation().tables)
    names = [figure.name for figure in list_figures(findings)]
    assert names[0] == "ablation" and not {"contrasts", "heat-map", "accuracy-by-change"} & set(names)
    ax = list_figures(findings)[0].plot(style=PAPER).axes[0]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["no residual", "LayerNorm", "ReLU", "no flip", "with mixup"]
    section = list_sections(findings)[0]
    assert section.name == "ablation" and isinstance(section.content, TextTable)
    assert list(section.content.frame["change"])[:2] == ["baseline", "no residual"]
    assert list(section.content.frame["verdict"])[:2] == ["–", "lower"]
    crossed = [figure.name for figure in list_figures(Findings(example_sweeps.ablation(patch_sizes=(2, 4)).tables))]
    assert crossed[0] == "ablation" and {"contrasts", "accuracy-by-patch-size"} <= set(crossed)

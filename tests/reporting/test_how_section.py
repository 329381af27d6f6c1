"""The section "How": sentences only with intervals that carry them, three figures first, nothing where nothing was probed."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest
from probed_example import probed

from study import load_report
from study.analysis.findings import Findings
from study.analysis.report_files import read_report_folder, write_tables
from study.reporting.how_section import FIRST_FIGURES, build_how_section
from study.reporting.report_folder import draw_report


def test_sentences_need_their_intervals():
    """Clear differences are said, with their intervals; of equal fields and equal losses nothing is."""
    tables = probed()
    sentences = build_how_section(Findings(tables)).sentences
    assert len(sentences) == 4
    assert re.match(
        r"At patch size 2, the receptive field of ViT in layer 1 is [12]\.\d\d times that of ConvMixer \(1\.\d", sentences[0]
    )
    assert "ViT loses" in sentences[2] and "points less than ConvMixer, at patch size 2" in sentences[2]
    one = tables.table.set_index("run_id")["patch_size"]
    equal = tables.probes.copy()
    fields = equal["measure"] == "field_radius"
    noise = equal["run_id"].map(lambda run_id: 1 + hash_noise(run_id))
    equal["value"] = equal["value"].mask(fields, equal["run_id"].map(one).astype(float) * noise)
    none = tables.correctness[tables.correctness["split"].isin(["test", "clean"])]
    assert (
        build_how_section(
            Findings(replace(tables, probes=equal, correctness=none, table=without_tests(tables.table)))
        ).sentences
        == ()
    )


def hash_noise(run_id: str) -> float:
    """Some spread without a trend."""
    return (sum(map(ord, run_id)) % 7) / 50


def without_tests(table: pd.DataFrame) -> pd.DataFrame:
    return table[[name for name in table if not str(name).startswith("accuracy_")]]


def test_studies_without_probes_have_no_section():
    tables = probed()
    bare = replace(tables, probes=pd.DataFrame())
    how = build_how_section(Findings(bare))
    assert not how.sentences and not how.figures and not how.sections


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("how") / "report"
    write_tables(probed(), folder)
    draw_report(folder, formats=("svg",))
    return folder


def test_report_and_page_show_the_section(drawn):
    """Figures and tables are linked from both, at most three figures before the page's heading for more."""
    text, page = (drawn / "report.md").read_text(), (drawn / "index.html").read_text()
    assert text.index("## Figures") < text.index("## How") < text.index("## Cells")
    how = build_how_section(Findings(read_report_folder(drawn)))
    assert [spec.name for spec in how.figures] == ["receptive-field", "attention-distance", "patch-shuffle"]
    assert len(how.figures) <= FIRST_FIGURES
    for spec in how.figures:
        assert (drawn / f"figures/{spec.name}.svg").is_file() and f"figures/{spec.name}.svg" in text
        assert f"<h3>{spec.title}</h3>" in page
    first_level = page[page.index('id="how"') : page.index("Layers, similarity and other test images")]
    assert first_level.count("<figure") == 3
    for section in how.sections:
        assert f"### {section.title}" in text and f"<h3>{section.title}</h3>" in page
        assert (drawn / f"tables/{section.name}.tex").is_file()
    assert "### Similarity of layers\n\n| first" in text and "\n\n\n" not in text


def test_results_are_read_back(drawn):
    """probes.parquet and tests.csv as they were written; a column of the runs for each test."""
    report, tables = load_report(drawn), probed()
    pd.testing.assert_frame_equal(report.probes, tables.probes)
    assert set(report.tests["test"]) == {"patch_shuffle_2", "patch_shuffle_4", "sketches"}
    assert "accuracy_patch_shuffle_4" in report.runs

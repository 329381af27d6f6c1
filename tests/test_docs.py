"""The documentation is complete and up to date: every option, folder and page, and nothing that doesn't exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

import study
from study.backbones import get_spec_class, names
from study.config.comparison import ContrastsSection
from study.config.options import AugmentOptions, DataOptions, MatchOptions, TrainOptions
from study.config.sweep import AblateSection, Document, FinalSection, TuneSection
from study.config.sweep_file import read_sweep

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "slurm" / "README.md", ROOT / "benchmarks" / "README.md"])
GUIDE = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
SECTIONS: dict[str, type[BaseModel]] = {
    "Top level": Document,
    "data": DataOptions,
    "train": TrainOptions,
    "augment": AugmentOptions,
    "match": MatchOptions,
}


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def first_cells(section: str) -> str:
    """The first column of a section's tables: what the section documents."""
    body = re.split(r"^## ", GUIDE.split(f"\n## {section}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return "\n".join(line.split("|")[1] for line in body.splitlines() if line.startswith("|"))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_option_of_a_section_is_documented_there(section: str) -> None:
    """The first columns of a section's tables name exactly the options of its model."""
    assert set(re.findall(r"`([\w.]+)`", first_cells(section))) == set(SECTIONS[section].model_fields)


def test_every_model_option_is_documented() -> None:
    """The tables of `model` name exactly the options of all backbones that a sweep may give."""
    given = {name for backbone in names() for name in get_spec_class(backbone).model_fields}
    from_data = {"image_size", "in_channels", "num_classes"}
    assert set(re.findall(r"`([\w.]+)`", first_cells("model"))) == given - from_data


def test_tuning_options_are_documented() -> None:
    """`tune.` and `final.` are named with all of their options."""
    expected = {f"tune.{name}" for name in TuneSection.model_fields} | {f"final.{n}" for n in FinalSection.model_fields}
    assert set(re.findall(r"`([\w.]+)`", first_cells("tune and final"))) == expected


def test_options_of_ablations_are_documented() -> None:
    """`ablate.` is named with all of its options."""
    named = set(re.findall(r"`(ablate\.\w+)`", first_cells("Ablations")))
    assert named == {f"ablate.{name}" for name in AblateSection.model_fields}


def test_options_of_contrasts_are_documented() -> None:
    """`contrasts.` is named with all of its options."""
    named = set(re.findall(r"`(contrasts\.\w+)`", first_cells("Contrasts and expectations")))
    assert named == {f"contrasts.{name}" for name in ContrastsSection.model_fields}


def test_every_backbone_is_named() -> None:
    """The choices of `backbone` in the guide are those of the registry."""
    line = next(line for line in GUIDE.splitlines() if line.startswith("| `backbone` |"))
    assert set(re.findall(r"`(\w+)`", line)) == {"backbone", *names()}


def test_the_example_can_be_read(tmp_path: Path) -> None:
    """The guide's first example is a sweep of two backbones, three patch sizes and three seeds."""
    example = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)[0]
    file = tmp_path / "example.yaml"
    file.write_text(example, encoding="utf-8")
    sweep = read_sweep(file)
    assert len(list(sweep.cells())) * len(sweep.seeds) == 18


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A relative link names a file that exists; `make docs` checks the anchors as well."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing, f"{page.name} links to {missing}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_named_files_exist(page: Path) -> None:
    """A path of the project between backticks exists; the log and the changelog may name what is gone."""
    named = re.findall(r"`((?:study|tests|sweeps|slurm|examples|benchmarks|docs)/[\w./-]*)`", page.read_text(encoding="utf-8"))
    missing = [path for path in named if not (ROOT / path).exists() and path != "slurm/my_cluster.yaml"]
    assert not missing or page.name in ("LOG.md", "CHANGELOG.md"), f"{page.name} names {missing}"


def test_every_folder_is_described() -> None:
    """The tree of the README and the table of the architecture page have a line for each folder of the package."""
    folders = {path.parent.name for path in (ROOT / "study").glob("*/__init__.py")}
    tree = (ROOT / "README.md").read_text(encoding="utf-8")
    assert folders <= set(re.findall(r"^    (\w+)/  ", tree, flags=re.MULTILINE))
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert folders <= set(re.findall(r"^\| `study/(\w+)/` \|", table, flags=re.MULTILINE))


def test_the_site_has_every_page() -> None:
    """The navigation of the documentation site lists each page of docs/ once."""
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_documented_objects_exist() -> None:
    """What the page of the Python interface documents can be imported, and all of the public interface is there."""
    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for path in listed:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path
    assert {f"study.{name}" for name in study.__all__} <= set(listed)


def test_the_version_is_the_same_everywhere() -> None:
    """The package, its citation and the newest entry of the changelog name one version."""
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), flags=re.MULTILINE)
    newest = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert citation is not None and newest is not None
    assert citation[1] == newest[1] == study.__version__

"""The page in a real browser: it requests nothing, and sorting, filtering, hovering and selecting work.

Chromium is Debian's (tests/install_packages.sh chromium), driven by Playwright. Without it these tests are skipped, and
with REQUIRE_ALL=1 they fail.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import example_sweeps
import pytest
from example_sweeps import Example
from playwright.sync_api import Browser, Page, Response, sync_playwright

from study.reporting.report_folder import draw_report

pytestmark = pytest.mark.xdist_group("page")

HACK = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script>'


@dataclass
class Visit:
    """An open page, with its requests and its console messages so far."""

    page: Page
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def shown_runs(self) -> list[str]:
        """The runs in the table, in the order shown."""
        return self.page.locator("#run-table tbody tr[data-run]").evaluate_all("rows => rows.map(row => row.dataset.run)")

    def column(self, title: str) -> list[str]:
        """The entries of a column, in the order shown."""
        headings = self.page.locator("#run-table thead th").all_inner_texts()
        place = next(n for n, text in enumerate(headings) if text.strip().startswith(title))
        return self.page.locator(f"#run-table tbody tr td:nth-child({place + 1})").all_inner_texts()

    def selection(self) -> str:
        """The line of the page that lists the selected runs."""
        return self.page.locator("#selected").inner_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
    if program is None:
        message = "!!!! chromium is missing: the page's tests are SKIPPED (tests/install_packages.sh chromium)"
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def sweep() -> Example:
    """36 runs of which one diverged, with markup in every text that a user writes."""
    example = example_sweeps.diverged(example_sweeps.patch_size(seeds=3, epochs=3), runs=[5])
    example.table["device_name"] = HACK
    example.table.loc[5, "reason"] = HACK
    example.table["backbone"] = example.table["backbone"].replace("mlp_mixer", f"mixer {HACK}")
    return replace(example, facts=replace(example.facts, question=f"Patch? {HACK}", sweep_yaml=f"question: {HACK}\n"))


@pytest.fixture(scope="module")
def address(sweep: Example, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = example_sweeps.as_folder(sweep, tmp_path_factory.mktemp("page") / "report")
    draw_report(folder, formats=("svg",))
    alone = folder.parent / "alone" / "index.html"  # without the other files of its folder
    alone.parent.mkdir()
    shutil.copy(folder / "index.html", alone)
    return alone.as_uri()


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme="light")
    visit = Visit(page)
    page.on("request", lambda request: visit.requests.append(request.url))
    page.on("console", lambda message: visit.messages.append(message.text))
    page.on("pageerror", lambda error: visit.messages.append(str(error)))
    page.goto(address)
    page.wait_for_selector("html[data-ready=yes]", timeout=30_000)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    yield visit
    assert not visit.messages
    page.close()


def test_page_makes_no_request_and_reports_no_error(visit: Visit, address: str) -> None:
    """Opened from a disk, without its folder: it requests itself alone, logs no error or warning, and can't fetch."""
    others = [url for url in visit.requests if url != address and not url.startswith("blob:")]
    assert not others
    outcome = visit.page.evaluate("fetch('https://example.org').then(() => 'allowed', () => 'refused')")
    assert outcome == "refused"
    visit.messages.clear()  # the browser logs the refusal


def test_texts_of_users_are_escaped(visit: Visit, sweep: Example) -> None:
    """Markup in question, backbone, device, reason and sweep is shown as typed and runs nowhere, tooltips included."""
    assert visit.page.locator("h1").inner_text() == sweep.facts.question
    visit.page.locator("#scatter [aria-roledescription=circle]").last.hover(force=True)
    visit.page.wait_for_selector("#vg-tooltip-element.visible")
    assert visit.page.evaluate("window.hacked") is None
    assert visit.page.locator("img").count() == 0


def test_answer_comes_first_and_all_figures_are_shown(visit: Visit) -> None:
    """The first section holds the answer; each figure is a picture with a description and a caption with n."""
    assert visit.page.locator("main > section").first.get_attribute("id") == "answer"
    figures = visit.page.locator("figure")
    assert figures.count() >= 8
    for place in range(figures.count()):
        figure = figures.nth(place)
        assert figure.locator("svg").count() == 1
        assert figure.locator("[role=img]").get_attribute("aria-label")
    assert "n = 2 to 3 seeds per cell" in figures.first.locator("figcaption").inner_text()


def test_ids_are_unique_and_references_resolve(visit: Visit) -> None:
    """No two elements share an id, although each figure is an SVG of its own; every #reference has its element."""
    duplicates = "ids => ids.filter((id, at) => ids.indexOf(id) !== at)"
    ids = visit.page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
    assert visit.page.evaluate(duplicates, ids) == []
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', visit.page.content()))
    assert used <= set(ids)


def test_hovering_shows_the_run(visit: Visit, sweep: Example) -> None:
    """Hovering a small point names its run, its cell, seed, accuracy and cost."""
    first = sweep.table.iloc[0]
    point = visit.page.locator(f"#scatter [aria-roledescription=circle][aria-label*='{first['run_id']}']")
    point.hover(force=True)
    tooltip = visit.page.locator("#vg-tooltip-element.visible").inner_text()
    for word in (first["run_id"], "patch size 1", "ConvMixer", f"{100 * first['test_accuracy']:.2f}"):
        assert word in tooltip


def test_clicking_a_point_selects_its_run_in_chart_table_and_curves(visit: Visit, sweep: Example) -> None:
    """The run is ticked in the table and its curve is drawn; a second click deselects it."""
    run = sweep.table["run_id"].iloc[2]
    point = f"#scatter [aria-roledescription=circle][aria-label*='{run}']"
    before = visit.selection()
    assert run not in before
    visit.page.locator(point).click(force=True)
    visit.page.wait_for_function("run => document.getElementById('selected').textContent.includes(run)", arg=run)
    assert visit.page.locator(f"tr[data-run='{run}'].selected").count() == 1
    assert visit.page.locator(f"#curves [aria-label*='{run}']").count() == 4  # a line and three epochs
    visit.page.locator(point).click(force=True)
    visit.page.wait_for_function("text => document.getElementById('selected').textContent === text", arg=before)
    assert visit.page.locator(f"tr[data-run='{run}'].selected").count() == 0


def test_selecting_in_the_table_draws_the_curve(visit: Visit, sweep: Example) -> None:
    """Selecting works from the table with the keyboard alone."""
    run = sweep.table["run_id"].iloc[1]
    box = visit.page.locator(f"tr[data-run='{run}'] input[type=checkbox]")
    box.focus()
    visit.page.keyboard.press("Space")
    visit.page.wait_for_function("run => document.getElementById('selected').textContent.includes(run)", arg=run)
    assert visit.page.locator(f"#curves [aria-label*='{run}']").count() == 4


def test_headings_sort_by_value(visit: Visit) -> None:
    """Accuracies and MACs sort as numbers, both ways, by pointer and by keyboard; missing ones are at one end."""
    heading = visit.page.locator("#run-table thead th", has_text="test accuracy")
    heading.click()
    visit.page.wait_for_selector("#run-table thead th[aria-sort=ascending]")
    rising = [float(text) for text in visit.column("test accuracy") if text != "–"]
    assert rising == sorted(rising)
    assert visit.column("test accuracy")[0] == "–"
    heading.click()
    visit.page.wait_for_selector("#run-table thead th[aria-sort=descending]")
    falling = [float(text) for text in visit.column("test accuracy") if text != "–"]
    assert falling == sorted(falling, reverse=True)
    macs = visit.page.locator("#run-table thead th", has_text="MACs")
    macs.locator("[role=button]").focus()
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector("#run-table thead th[aria-sort=ascending]:has-text('MACs')")
    units = {"k": 1e3, "M": 1e6, "G": 1e9}
    sizes = [float(text.split()[0]) * units[text.split()[1]] for text in visit.column("MACs")]
    assert sizes == sorted(sizes)


def test_filters_and_search_narrow_the_table(visit: Visit, sweep: Example) -> None:
    """One patch size, then one backbone: exactly pandas' rows; the search field finds the diverged run."""
    visit.page.locator("#filters").get_by_label("patch size (pixels)").select_option("1")
    visit.page.locator("#filters").get_by_label("backbone").select_option("ViT")
    table = sweep.table
    wanted = table[(table["patch_size"] == 1) & (table["backbone"] == "vit")]["run_id"]
    assert sorted(visit.shown_runs()) == sorted(wanted)
    visit.page.locator("#filters").get_by_label("patch size (pixels)").select_option("")
    visit.page.locator("#filters").get_by_label("backbone").select_option("")
    visit.page.get_by_label("Search all columns").fill("diverged")
    assert visit.shown_runs() == [table["run_id"].iloc[5]]


def test_reader_chooses_cost_and_curve(visit: Visit) -> None:
    """Another cost changes the axis; another measure changes what the curves show."""
    visit.page.get_by_label("Accuracy against").select_option(label="parameters")
    visit.page.wait_for_selector("#scatter [aria-label*=\"titled 'parameters'\"]")
    visit.page.get_by_label("Show").last.select_option(label="training loss")
    visit.page.wait_for_selector("#curves [aria-label*=\"titled 'training loss'\"]")


def test_page_follows_and_changes_the_color_scheme(visit: Visit) -> None:
    """The button turns page, figures and plots dark; so does the system's setting."""
    background = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('#figure-0 [style*=\"--ink\"]')).stroke"
    light = visit.page.evaluate(f"[{background}, {ink}]")
    visit.page.get_by_role("button", name="Change to dark colors").click()
    assert all(one != other for one, other in zip(visit.page.evaluate(f"[{background}, {ink}]"), light, strict=True))
    visit.page.get_by_role("button", name="Change to light colors").click()
    assert visit.page.evaluate(f"[{background}, {ink}]") == light
    visit.page.evaluate("document.documentElement.style.colorScheme = ''")
    visit.page.emulate_media(color_scheme="dark")
    assert visit.page.evaluate(background) != light[0]


def test_page_fits_a_phone(visit: Visit) -> None:
    """Answer, three figures and headings; opened at 360 pixels, figures fit, and wide tables scroll in frames of their own."""
    visit.page.set_viewport_size({"width": 360, "height": 740})
    visit.page.reload()
    visit.page.wait_for_selector("html[data-ready=yes]")
    assert visit.page.locator("figure:visible").count() == 3
    visit.page.get_by_role("link", name="Runs").click()
    assert visit.page.locator("#run-table tbody tr:visible").count() == 25  # one page of the table
    visit.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    visit.page.wait_for_function("document.querySelector('#scatter svg').getBoundingClientRect().width > 200")
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 360
    widths = visit.page.locator(".picture svg").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert max(widths) <= 360


def test_everything_but_the_charts_works_without_javascript(browser: Browser, address: str) -> None:
    """Answer, figures and all tables are part of the page and need no script."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    response = page.goto(address)
    assert isinstance(response, Response)
    assert page.locator("#run-table tbody tr").count() == 36
    assert page.locator("#tables table").count() >= 5
    assert page.locator("noscript").count() == 1
    context.close()


def test_page_without_runs_opens(browser: Browser, tmp_path: Path) -> None:
    """A sweep of which nothing is done gives a page that says so, without an error."""
    sweep = example_sweeps.unfinished(example_sweeps.one_factor(), missing=12)
    draw_report(example_sweeps.as_folder(sweep, tmp_path), formats=("svg",))
    page = browser.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto((tmp_path / "index.html").as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    assert "shows 0 of 12 runs" in page.locator(".progress").inner_text()
    assert not messages
    page.close()

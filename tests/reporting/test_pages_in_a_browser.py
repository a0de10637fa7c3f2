"""Report and list of runs in headless Chromium: seen, clicked, by keyboard, on a phone, in the dark, on paper."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.reporting.browser import DESKTOP, LOW_CONTRAST, PHONE, Watched, watched

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
BY_VALUE = ["sample", "c", "a", "b", "x", "y", "failed"]


@pytest.fixture
def page(browser: Browser) -> Iterator[Watched]:
    with watched(browser) as found:
        yield found


@pytest.fixture
def index(page: Watched, index_page: Path) -> Watched:
    page.go(index_page)
    return page


def shown(page: Watched) -> list[str]:
    """The names of the runs that can be seen, from top to bottom."""
    rows = page.run("[...document.querySelectorAll('#runs tbody tr:not([hidden]) th > a')].map(a => a.textContent)")
    return [row.rpartition("_")[2] for row in rows if row != "card"]


# --- both pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["report_page", "index_page"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_quiet_fits_and_can_be_read(
    browser: Browser, request: pytest.FixtureRequest, which: str, size: tuple[int, int], scheme: str
) -> None:
    file = request.getfixturevalue(which)
    with watched(browser, size, color_scheme=scheme) as page:
        page.go(file)
        page.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.run("document.documentElement.scrollWidth") <= size[0]
        assert page.run(LOW_CONTRAST) == []
        dark = page.run("getComputedStyle(document.body).backgroundColor") == "rgb(18, 24, 30)"
        assert dark == (scheme == "dark")
        page.assert_quiet(file)


@pytest.mark.parametrize("which", ["report_page", "index_page"])
def test_a_page_can_be_heard(page: Watched, request: pytest.FixtureRequest, which: str) -> None:
    page.go(request.getfixturevalue(which))
    for role in ("banner", "main", "contentinfo"):
        assert page.page.get_by_role(role).count() == 1, role
    levels = page.run("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.run("[...document.querySelectorAll('table')].filter(t => !t.caption?.textContent.trim()).length") == 0
    assert page.run("[...document.querySelectorAll('th:not([scope])')].length") == 0
    unnamed = "[...document.querySelectorAll('input, select')].filter(i => i.labels.length === 0).length"
    assert page.run(unnamed) == 0
    ids = page.run("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("which", ["report_page", "index_page"])
def test_the_first_tab_leads_past_the_head(page: Watched, request: pytest.FixtureRequest, which: str) -> None:
    page.go(request.getfixturevalue(which))
    page.page.keyboard.press("Tab")
    assert page.run("document.activeElement.className") == "skip"
    assert page.run("document.activeElement.getBoundingClientRect().left") >= 0
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.page.keyboard.press("Enter")
    assert page.run("document.activeElement.id") == "content"


# --- the report -----------------------------------------------------------------------------------------------------


def test_the_report_shows_its_figures_and_says_what_they_are(page: Watched, report_page: Path) -> None:
    page.go(report_page)
    page.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    images = page.page.get_by_role("img")
    assert images.count() == 4
    widths = page.run("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert min(widths) > 300
    assert page.page.get_by_alt_text("The validation loss begins at 0.3297 (step 20)").is_visible()
    assert page.page.get_by_alt_text("Beats persistence at every lead for 20 dBZ").is_visible()


def test_details_open_by_keyboard(page: Watched, report_page: Path) -> None:
    page.go(report_page)
    cell = page.page.get_by_text("probability of detection, hits / (hits + misses)").first
    assert not cell.is_visible()
    page.page.locator("summary", has_text="POD").first.focus()
    page.page.keyboard.press("Enter")
    assert cell.is_visible()


def test_links_in_the_report_lead_to_its_sections(page: Watched, report_page: Path) -> None:
    page.go(report_page)
    for link in page.page.get_by_role("navigation").get_by_role("link").all():
        link.click()
        target = page.run("location.hash")
        assert page.page.locator(target).count() == 1
        assert page.page.locator(target).is_visible()


def test_wide_tables_scroll_in_their_own_box_on_a_phone(browser: Browser, report_page: Path) -> None:
    with watched(browser, PHONE) as page:
        page.go(report_page)
        box = page.page.get_by_role("region", name="CSI, test split")
        assert box.evaluate("box => box.scrollWidth > box.clientWidth")
        box.focus()
        page.page.keyboard.press("End")
        page.page.keyboard.press("ArrowRight")
        page.page.wait_for_function("document.activeElement.scrollLeft > 0")
        head = box.get_by_role("rowheader", name="35", exact=True)
        assert head.evaluate("head => head.getBoundingClientRect().left") >= 0  # it stays in sight


def test_the_report_on_paper_hides_nothing(page: Watched, report_page: Path) -> None:
    page.go(report_page)
    page.page.emulate_media(media="print", color_scheme="dark")
    assert not page.page.get_by_role("navigation").is_visible()
    assert page.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    cell = page.page.get_by_text("probability of detection, hits / (hits + misses)").first
    assert cell.evaluate("cell => cell.getBoundingClientRect().height") > 0
    assert page.run("getComputedStyle(document.querySelector('.drawing img')).filter") == "none"
    assert page.run(LOW_CONTRAST) == []


# --- the list of runs -----------------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_and_the_best_are_marked(index: Watched) -> None:
    assert shown(index) == ["y", "x", "failed", "sample", "c", "b", "a"]
    best = index.page.locator("tr.best")
    assert best.all_inner_texts()[0].startswith("20261107_100000_y")
    assert best.all_inner_texts()[1].startswith("20261103_100000_c")
    assert best.count() == 2
    assert index.page.get_by_text("best of 3 on 2 different datasets").is_visible()


def test_a_click_sorts_and_a_second_one_turns_it_round(index: Watched) -> None:
    button = index.page.get_by_role("button", name="value")
    button.click()
    assert shown(index) == BY_VALUE
    assert index.run("document.querySelector('[aria-sort]').textContent") == "value"
    assert index.run("document.querySelector('[aria-sort]').ariaSort") == "ascending"
    button.click()
    assert shown(index) == [*reversed(BY_VALUE[:-1]), "failed"]  # what is undefined stays last
    assert index.run("document.querySelector('[aria-sort]').ariaSort") == "descending"
    index.page.get_by_role("button", name="run").click()
    assert shown(index) == ["a", "b", "c", "sample", "failed", "x", "y"]
    assert index.run("document.querySelectorAll('[aria-sort]').length") == 1


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_sorts_too(index: Watched, key: str) -> None:
    for _ in range(30):
        index.page.keyboard.press("Tab")
        if index.run("document.activeElement.textContent") == "value":
            break
    assert index.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    index.page.keyboard.press(key)
    assert shown(index) == BY_VALUE


def test_what_was_found_on_the_test_split_sorts_nothing(index: Watched) -> None:
    heads = index.page.get_by_role("columnheader").filter(has=index.page.get_by_role("button"))
    assert heads.all_inner_texts() == ["run", "task", "state", "chosen by", "value", "best", "hours", "data"]


def test_words_filter_and_the_number_is_said(index: Watched) -> None:
    index.page.get_by_label("Find").fill("convlstm LOSS _c")
    assert shown(index) == ["c"]
    assert index.page.get_by_role("status").inner_text() == "1 of 7 runs"
    index.page.get_by_label("Find").fill("nothing like it")
    assert shown(index) == []
    index.page.get_by_role("button", name="Show all").click()
    assert len(shown(index)) == 7
    assert index.run("document.activeElement.id") == "words"


def test_filters_join_and_survive_sorting(index: Watched) -> None:
    index.page.get_by_label("Task").select_option("convlstm")
    index.page.get_by_label("State").select_option("finished")
    index.page.get_by_label("runs on the sample").uncheck()
    assert shown(index) == ["c", "b", "a"]
    index.page.get_by_role("button", name="value").click()
    assert shown(index) == ["c", "a", "b"]
    index.page.get_by_label("State").select_option("all")
    assert shown(index) == ["c", "a", "b", "failed"]


def test_a_run_leads_to_its_report(index: Watched, index_page: Path) -> None:
    index.page.get_by_role("link", name="20261101_100000_a").click()
    assert index.page.get_by_role("heading", level=1).inner_text() == "20261101_100000_a"
    index.assert_quiet(index_page, index_page.parent / "convlstm" / "20261101_100000_a" / "report.html")


def test_without_its_script_the_list_is_a_plain_table(browser: Browser, index_page: Path) -> None:
    with watched(browser, java_script_enabled=False) as page:
        page.go(index_page)
        assert page.page.get_by_role("row").count() == 8
        assert not page.page.get_by_label("Find").is_visible()
        assert page.page.get_by_role("button").count() == 0
        assert page.page.get_by_role("link", name="20261101_100000_a").is_visible()

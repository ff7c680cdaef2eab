"""The page in a real browser: headless Chromium opens it from disk."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dtbench.analysis.page import html
from dtbench.analysis.page.html import Document
from tests.support import page_document

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = os.environ.get("DTBENCH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
WIDTHS = (390, 1024, 1440)
PATIENCE = 120_000  # milliseconds that anything may take on a busy machine
LABEL = "DT asked 1: 2.0, n = 3 seeds"
SCORES = "#suite-toy [data-table=scores]"


@dataclass
class Opened:
    """A page in a tab, with all that it asked for and complained of."""

    page: Any
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def column(self, place: int, table: str = SCORES) -> list[str]:
        """The visible cells of a column, from top to bottom."""
        cells = f"{table} tbody tr:not([hidden]) > :nth-child({place})"
        return [text.strip() for text in self.page.locator(cells).all_inner_texts()]


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages by name: toy, bad (hostile names), answer (an overview), gym (a whole suite), many (10 000 trials)."""
    made = tmp_path_factory.mktemp("pages")
    documents: dict[str, Document] = {
        "toy": page_document.document(),
        "bad": page_document.hostile(),
        "answer": page_document.answered(made / "ledger"),
        "gym": page_document.gym(made / "gym"),
        "many": page_document.document(page_document.suite("toy", count=10_000, steps=20)),
    }
    for name, document in documents.items():
        (made / f"{name}.html").write_text(html.render(document), encoding="utf-8")
    return made


@pytest.fixture
def visit(browser: Any, folder: Path) -> Iterator[Open]:
    """Opens a page from disk in a fresh context."""
    contexts = []

    def opened(name: str = "toy", place: str = "#suite-toy", width: int = 1024, **options: Any) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        seen = Opened(context.new_page())
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("console", lambda line: seen.messages.append(f"{line.type}: {line.text}"))
        seen.page.on("pageerror", lambda error: seen.messages.append(f"error: {error}"))
        seen.page.goto((folder / f"{name}.html").as_uri() + place)
        return seen

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_from_disk_without_a_request_or_a_complaint(visit: Open, width: int) -> None:
    seen = visit(width=width)
    seen.page.wait_for_selector("#suite-toy .trials tbody tr")
    assert len(seen.requests) == 1
    assert seen.requests[0].startswith("file://")
    assert seen.messages == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("place", ["#overview", "#suite-toy"])
def test_nothing_is_wider_than_the_window_and_nothing_overlaps(visit: Open, width: int, place: str) -> None:
    page = visit(place=place, width=width).page
    page.wait_for_timeout(300)
    page.evaluate("scrollTo(0, 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERLAPS) == []


# Pairs of neighbours in the flow of the page that share ground, and boxes that stick out of their section.
OVERLAPS = """() => {
  const shown = (node) => node.getClientRects().length > 0;
  const flows = ["body > *", ".view.shown > *", ".columns > *", ".sections > section", ".sections > section > *",
    ".figures > *", ".tools > *", ".bar > *", ".table > *", "dl.facts > *"];
  const found = [];
  for (const flow of flows) {
    const groups = Map.groupBy([...document.querySelectorAll(flow)].filter((node) => shown(node)
      && getComputedStyle(node).position !== "absolute"), (node) => node.parentElement);
    for (const nodes of groups.values()) nodes.forEach((a, place) => nodes.slice(place + 1).forEach((b) => {
      const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
      const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const down = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (across > 1 && down > 1) found.push([flow, a.className || a.tagName, b.className || b.tagName]);
    }));
  }
  for (const node of document.querySelectorAll("p, h1, h2, h3, dl, .scroll, .plot, .tools, figure")) {
    const outside = node.getBoundingClientRect().right > innerWidth + 1;
    if (shown(node) && !node.matches(".unseen") && outside) found.push(["wide", node.className || node.tagName]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_sentence_chips_and_forest_plot_are_on_the_first_screen(visit: Open, width: int, scheme: str) -> None:
    page = visit("answer", place="", width=width, color_scheme=scheme).page
    height = page.evaluate("innerHeight")
    for part in (".answer", ".caveat", ".chip >> nth=0", "[data-figure=answer-td] svg"):
        box = page.locator(part).bounding_box()
        assert box["y"] >= 0
        assert box["y"] + min(box["height"], 60) <= height, part
        assert box["x"] + box["width"] <= width + 1
    ink = page.locator(".answer").evaluate("node => getComputedStyle(node).color")
    assert ink == ("rgb(27, 31, 36)" if scheme == "light" else "rgb(228, 233, 239)")


@pytest.mark.parametrize("width", [1440, 1920])
@pytest.mark.parametrize("name", ["toy", "answer", "gym"])
def test_no_table_is_wider_than_its_box_on_a_desk(visit: Open, name: str, width: int) -> None:
    page = visit(name, place="", width=width).page
    boxes = []
    for view in page.evaluate("[...document.querySelectorAll('.view')].map((view) => view.id)"):
        page.evaluate("id => { location.hash = id; }", view)
        page.locator(f"#{view}.shown").wait_for()
        page.evaluate("document.querySelectorAll('details:not(.more)').forEach((box) => { box.open = true; })")
        boxes += page.evaluate(WIDTHS_OF_TABLES)
    assert len(boxes) >= 4
    assert [box for box in boxes if box["table"] > box["box"] + 1] == []


WIDTHS_OF_TABLES = """() => [...document.querySelectorAll(".view.shown .scroll")].map((box) => ({
  name: box.querySelector("table").dataset.table, table: box.scrollWidth, box: box.clientWidth}))"""


def test_every_figure_of_a_view_is_drawn_when_it_is_shown(visit: Open) -> None:
    page = visit(place="").page
    page.locator(".bar a", has_text="toy-two").click()
    page.locator(".view.shown .plot svg").first.wait_for()
    assert page.locator(".view.shown .plot:not(:has(svg))").count() == 0
    page.locator(".view.shown summary", has_text="1 more figure").click()
    assert page.locator(".view.shown details .plot svg").first.is_visible()


def test_suites_that_do_not_answer_the_question_are_in_a_menu_by_group(visit: Open) -> None:
    page = visit("answer", place="").page
    link = page.locator(".more a", has_text="checked")
    assert not link.is_visible()
    page.locator(".more summary").focus()
    page.keyboard.press("Enter")
    assert "Checks" in page.locator(".more").inner_text()
    link.click()
    page.locator(".bar a[aria-current]", has_text="checked").wait_for(state="attached")
    assert not link.is_visible()


def test_one_suite_is_shown_at_a_time_and_the_list_of_suites_changes_it(visit: Open) -> None:
    page = visit(place="").page
    assert page.locator(".view:visible").get_attribute("id") == "overview"
    page.locator(".bar a", has_text="toy-two").click()
    # Browsers tell of a new address a moment later.
    page.locator(".bar a[aria-current]", has_text="toy-two").wait_for()
    assert page.locator(".view:visible").get_attribute("id") == "suite-toy-two"


def test_an_address_inside_a_suite_shows_that_suite(visit: Open) -> None:
    page = visit(place="#toy-two--all-trials").page
    assert page.locator(".view:visible").get_attribute("id") == "suite-toy-two"


def test_without_javascript_everything_is_visible(visit: Open) -> None:
    page = visit(place="", java_script_enabled=False).page
    for heading in page.locator("h2, .sections > section > h3").all():
        assert heading.is_visible()
    assert page.locator("noscript").first.is_visible()
    assert not page.locator("#theme").is_visible()


def test_numbers_sort_as_numbers_with_holes_last_and_a_third_press_restores_the_order(visit: Open) -> None:
    seen = visit()
    heading = seen.page.locator(f"{SCORES} th", has_text="Score")
    first = seen.column(1)
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert seen.column(1) == ["IQL", "Random", "DT", "TD3+BC", "BC", "CQL", "BC 10%"]
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert seen.column(1) == ["BC", "TD3+BC", "DT", "Random", "IQL", "CQL", "BC 10%"]
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") is None
    assert seen.column(1) == first


def test_text_sorts_as_text(visit: Open) -> None:
    seen = visit()
    seen.page.locator(f"{SCORES} th", has_text="Contender").get_by_role("button").click()
    assert seen.column(1) == sorted(page_document.NUMBERS, key=str.lower)


def test_a_filter_keeps_rows_that_hold_every_word_and_says_how_many(visit: Open) -> None:
    seen = visit()
    seen.page.locator(SCORES).get_by_role("searchbox").fill("bc agr")
    assert seen.column(1) == ["TD3+BC"]
    assert seen.page.locator(f"{SCORES} output").inner_text() == "1 of 7 rows"
    assert seen.page.locator(f"{SCORES} output").get_attribute("aria-live") == "polite"


def test_short_tables_have_no_filter(visit: Open) -> None:
    page = visit().page
    page.locator("#suite-toy summary", has_text="Seeds").click()
    assert page.locator("#suite-toy [data-table=seeds]").get_by_role("searchbox").count() == 0


def test_hovering_a_point_shows_its_sentence_inside_the_window(visit: Open) -> None:
    page = visit(width=380).page
    plot = page.locator("#suite-toy .plot").first
    plot.scroll_into_view_if_needed()
    box = plot.locator("[id*='marks-1'] use").nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + 6, box["y"] + box["height"] / 2 - 6)
    page.locator("#tip", has_text=LABEL).wait_for()
    tip = page.locator("#tip").bounding_box()
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= 380
    page.mouse.move(2, 2)
    page.locator("#tip").wait_for(state="hidden")


def test_a_tap_shows_a_point(visit: Open) -> None:
    page = visit(width=380, has_touch=True).page
    mark = page.locator("#suite-toy .plot [id*='marks-1'] use").nth(1)
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.locator("#tip", has_text=LABEL).wait_for()


def test_arrow_keys_walk_along_the_points_and_between_the_lines(visit: Open) -> None:
    page = visit().page
    page.locator("#suite-toy .plot").first.focus()
    walk = {"ArrowRight": ("DT asked 0", "DT asked 1"), "ArrowDown": ("BC asked 1",), "End": ("BC asked 2",)}
    steps = [(key, point) for key, points in walk.items() for point in points]
    for key, point in [*steps, ("ArrowRight", "DT asked 0")]:
        page.keyboard.press(key)
        page.locator("#tip", has_text=re.compile(rf"^\s*{point}:")).wait_for()
        page.locator("#live-status", has_text=re.compile(rf"^\s*{point}")).wait_for(state="attached")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.plot')") is None


def test_a_number_opens_its_trials_and_closing_returns_to_it(visit: Open) -> None:
    page = visit().page
    page.locator(f"{SCORES} td a").first.click()
    dialog = page.locator("dialog[open]")
    dialog.wait_for()
    text = dialog.inner_text()
    for part in (
        "DT on toy",
        "model.num_layers",
        "0.001",
        "generated",
        "d" * 64,
        "0123abc",
        "dtbench status",
        "torch",
    ):
        assert part in text
    for state in ("done", "failed", "missing"):
        assert dialog.locator(".badge", has_text=state).count() == 1
    assert dialog.locator("pre").inner_text() == f"Traceback: {page_document.HOSTILE}"
    assert dialog.locator(".chart polyline").count() == 1
    dialog.locator("select").select_option(label="loss")
    assert dialog.locator(".chart circle").count() == 2
    dialog.get_by_role("button", name="Close").click()
    assert page.evaluate("document.activeElement.hash") == f"#cell-{page_document.CELL}"


def test_a_trial_opens_and_closes_by_keyboard_alone(visit: Open) -> None:
    page = visit().page
    link = page.locator("#suite-toy .trials tbody a").first
    link.focus()
    page.keyboard.press("Enter")
    page.locator("dialog[open]", has_text="DT on toy, seed 0").wait_for()
    for _ in range(30):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    page.locator("dialog[open]").wait_for(state="detached")
    assert page.evaluate("document.activeElement.hash") == f"#trial-{0:016x}"


def test_an_address_of_a_trial_opens_it(visit: Open) -> None:
    page = visit(place=f"#trial-{0:016x}").page
    page.locator("dialog[open]", has_text="DT on toy, seed 0").wait_for()
    page.get_by_role("button", name="Show all 3 seeds").click()
    assert page.locator("dialog[open] tbody tr").count() == 3


def test_dark_and_light_follow_the_system_until_the_reader_chooses(visit: Open) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    seen = visit(color_scheme="dark")
    dark = seen.page.evaluate(paper)
    seen.page.get_by_role("button", name="Light").click()
    light = seen.page.evaluate(paper)
    assert light == "rgb(255, 255, 255)"
    assert dark == "rgb(15, 19, 24)"
    for _ in range(20):  # Chromium hands what a page keeps to the next process by and by
        seen.page.reload()
        if (again := seen.page.evaluate(paper)) == light:
            break
    assert again == light
    assert seen.messages == []


def test_figures_take_their_ink_from_the_page(visit: Open) -> None:
    page = visit(color_scheme="dark").page
    text = page.locator("#suite-toy .plot svg text").first
    assert text.evaluate("node => getComputedStyle(node).fill") == "rgb(228, 233, 239)"


def test_hostile_names_are_text(visit: Open) -> None:
    seen = visit("bad", place="")
    page = seen.page
    page.locator(".bar a").nth(1).click()
    page.wait_for_selector(".view.shown .trials tbody tr")
    page.locator(".view.shown .table td a").first.click()
    page.locator("dialog[open]").wait_for()
    assert page.locator("dialog h2").inner_text() == f"{page_document.HOSTILE} on toy"
    page.keyboard.press("Escape")
    page.locator(".view.shown .plot").first.focus()
    page.keyboard.press("ArrowRight")
    page.locator("#tip:visible").wait_for()
    assert page.title() == page_document.HOSTILE
    assert page.locator("img").count() == 0
    assert len(seen.requests) == 1
    assert seen.messages == []


def test_ten_thousand_trials_open_sort_and_filter(visit: Open) -> None:
    page = visit("many").page
    box = page.locator("#suite-toy .trials")
    box.locator("tbody tr").first.wait_for()
    assert box.locator("tbody tr").count() == 100
    assert box.locator("output").inner_text() == "first 100 of 10000 trials"
    heading = box.locator("th", has_text="Score").get_by_role("button")
    heading.click()
    heading.click()
    assert box.locator("tbody tr td:nth-child(3)").first.inner_text() == "9999"
    box.get_by_role("searchbox").fill("failed")
    assert box.locator("output").inner_text() == "1 of 10000 trials"


def test_printing_shows_every_suite(visit: Open) -> None:
    page = visit().page
    page.emulate_media(media="print")
    assert page.locator(".view:visible").count() == 3
    assert page.locator(".bar").is_hidden()

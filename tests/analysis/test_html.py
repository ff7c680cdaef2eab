"""The page as text: whole, safe, reproducible and readable."""

import itertools
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dtbench.analysis.page import html
from dtbench.analysis.page.html import Document, SuitePage
from dtbench.analysis.page.section import Section
from tests.support import page_document

VOID = {"meta", "link", "br", "img", "input", "hr"}
ROLES = ("ink", "soft", "link")  # of text on paper and on shade
BADGES = (("good", "good-shade"), ("bad", "bad-shade"), ("odd", "odd-shade"), ("soft", "none-shade"))
TEXTS = [*((text, ground) for text in ROLES for ground in ("paper", "shade")), *BADGES, ("bad", "paper")]


class Read(HTMLParser):
    """The elements of a page: tags, attributes, and whether every one is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.stack: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "script":
            self.scripts.append((found, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + data)

    def all(self, attribute: str) -> list[str]:
        return [found[attribute] for _, found in self.elements if attribute in found]

    def packed(self, name: str) -> dict[str, object]:
        text = next(text for attributes, text in self.scripts if attributes.get("id") == name)
        content: dict[str, object] = json.loads(html.unpack(text))
        return content


VIEWS = ("overview", "toy", "toy-two")


@pytest.fixture(scope="module")
def page() -> str:
    return html.render(page_document.document())


@pytest.fixture(scope="module")
def read(page: str) -> Read:
    return Read(page)


def test_the_page_asks_for_no_address(page: str, read: Read) -> None:
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    assert not [value for name in ("src", "srcset", "action", "data") for value in read.all(name)]
    assert all(value.startswith("#") for value in read.all("href"))
    assert any(value.startswith("default-src 'none';") for value in read.all("content"))


def test_every_element_is_closed(read: Read) -> None:
    assert read.stack == []


def test_ids_are_unique_although_suites_share_names_of_tables_and_figures(read: Read) -> None:
    assert [name for name, count in Counter(read.all("id")).items() if count > 1] == []


def test_every_link_leads_somewhere(read: Read) -> None:
    places = set(read.all("id"))
    trials = read.packed("data-toy")
    keys = {f"cell-{cell}" for cell in trials["cells"]}  # type: ignore[attr-defined]
    assert {value[1:] for value in read.all("href")} - places - keys == set()


def test_every_name_that_aria_points_at_exists(read: Read) -> None:
    assert set(read.all("aria-labelledby")) - set(read.all("id")) == {"details--title"}  # the script writes that one


def test_references_inside_a_figure_stay_inside_it(page: str, read: Read) -> None:
    packed = [str(svg) for key in VIEWS for svg in read.packed(f"figures-{key}").values()]
    assert len(packed) == 5
    for text in [*packed, *re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)]:
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
        assert used <= set(re.findall(r'\bid="([^"]+)"', text))


def test_the_points_of_every_figure_are_in_its_suite(read: Read) -> None:
    for _, found in read.elements:
        if "data-marks" in found:
            view = int(found["data-prefix"][1:].split("-")[0])
            marks = read.packed(f"points-{VIEWS[view]}")[found["data-marks"]]
            assert len(marks) == 2
            svg = read.packed(f"figures-{VIEWS[view]}")[found["data-packed"]]
            assert all(f'id="{found["data-prefix"]}{gid}"' in svg for gid, _ in marks)


def test_headings_are_in_order_below_one_title(read: Read) -> None:
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))


def test_verdicts_are_badges_with_words(page: str) -> None:
    for verdict in ("agrees", "differs", "not comparable", "not run"):
        assert f'<span class="badge {verdict.replace(" ", "-")}">{verdict}</span>' in page


def test_equal_documents_give_equal_bytes(page: str) -> None:
    assert html.render(page_document.document()) == page


def test_the_unpacked_page_says_what_the_packed_one_holds(page: str) -> None:
    plain = html.unpacked(page)
    assert '"commit":"0123abc"' not in page
    assert '"commit":"0123abc"' in plain


def test_hostile_names_close_nothing_and_run_nothing() -> None:
    text = html.render(page_document.hostile())
    read = Read(text)
    assert read.stack == []
    assert "img" not in {tag for tag, _ in read.elements}
    assert not [name for _, found in read.elements for name in found if name.startswith("on")]
    assert [name for name, count in Counter(read.all("id")).items() if count > 1] == []
    ran = [text for attributes, text in read.scripts if not attributes]
    assert ran == [template("theme.js"), "\n".join(map(template, html.SCRIPTS))]


def test_suites_whose_names_look_alike_stay_apart() -> None:
    names = ("Overview", "overview", "a b", "a-b", "é")
    read = Read(html.render(page_document.document(*(replace(page_document.suite("x"), name=name) for name in names))))
    assert [name for name, count in Counter(read.all("id")).items() if count > 1] == []
    assert {value[1:] for value in read.all("href") if value.startswith("#suite-")} <= set(read.all("id"))


def test_a_document_of_nothing_is_a_page() -> None:
    assert Read(html.render(Document("Nothing", (), ()))).stack == []
    bare = SuitePage("bare", "Bare", "", (), "", (Section("Nothing"),), {"cells": {}, "trials": [], "provenance": []})
    read = Read(html.render(Document("Little", (), (bare,))))
    assert read.stack == []
    assert not [value for value in read.all("id") if "all-trials" in value]


def test_a_page_of_ten_thousand_trials_stays_below_five_megabytes() -> None:
    text = html.render(page_document.document(page_document.suite(count=10_000, steps=50)))
    assert len(text.encode()) < 5_000_000


def test_what_is_not_finite_is_null_in_the_data() -> None:
    packed = html.pack({"a": [float("nan"), float("inf"), 1.5]})
    assert json.loads(html.unpack(packed)) == {"a": [None, None, 1.5]}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXTS, ids=lambda name: name)
def test_text_has_contrast(text: str, ground: str, dark: bool) -> None:
    assert contrast(colour(text, dark), colour(ground, dark)) >= 4.5


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("place", range(6))
def test_curves_of_seeds_have_contrast(place: int, dark: bool) -> None:
    assert contrast(colour(f"line-{place}", dark), colour("paper", dark)) >= 4.5


def test_scripts_and_styles_stay_small() -> None:
    code = [line for name in html.SCRIPTS for line in template(name).splitlines()]
    assert len([line for line in code if line.strip() and not line.strip().startswith("//")]) < 500
    assert len(template("style.css").splitlines()) < 250


def template(name: str) -> str:
    return (Path(html.__file__).parent / "templates" / name).read_text(encoding="utf-8")


def colour(name: str, dark: bool) -> str:
    """A colour of the style sheet, for one of the two modes."""
    found = re.search(rf"--{name}: light-dark\((#\w{{6}}), (#\w{{6}})\)", template("style.css"))
    assert found
    return found[2 if dark else 1]


def contrast(text: str, ground: str) -> float:
    """The ratio of WCAG 2, from 1 to 21."""
    lighter, darker = sorted((luminance(text), luminance(ground)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(code: str) -> float:
    shares = (int(code[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)

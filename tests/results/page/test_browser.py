"""The page in a real browser: it runs, asks for nothing, filters, follows the keyboard, fits a phone and prints."""

import re
import shutil
from dataclasses import replace
from urllib.parse import parse_qs

import pytest

from results.page import item_browser, render

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright; install the extra 'test'")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if program is None:
        pytest.skip("no chromium or chrome on this machine")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(page, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page, encoding="utf-8")
    return file


@pytest.fixture
def opened(chromium, file):
    """Opens the page with a hash; after the test, nothing may have been said, thrown or asked for."""
    pages, said, asked = [], [], []

    def open_(fragment="", **options):
        page = chromium.new_page(**options)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri() + fragment)
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.close()
    assert said == []
    assert {address.partition("#")[0] for address in asked} <= {file.as_uri(), "data:,"}


def shown(page) -> list[str]:
    return page.locator(".list .lead").all_inner_texts()


def count(page) -> str:
    return page.locator(".count").inner_text()


def wait_for_count(page, number: int) -> None:
    """Wait until so many questions are listed; without an evaluated string, which the page's policy forbids."""
    from playwright.sync_api import expect

    expect(page.locator(".count")).to_have_text(re.compile(f"^{number} "))


def state(page) -> dict:
    found = parse_qs(page.evaluate("location.hash").removeprefix("#items&"))
    return {key: values[0] for key, values in found.items()}


def test_it_starts_with_all_items_and_the_first_one(opened):
    page = opened()
    assert count(page) == "36 of 36 questions" and len(shown(page)) == 36
    assert page.locator(".detail .asked").inner_text() == "</script><b>Which</b> & 'why'?"
    assert page.locator(".detail b").count() == 0
    assert page.locator(".detail tr.gold").inner_text().startswith("A. exam option w0✓ right answer")
    assert page.evaluate("location.hash") == "", "opening the page changes nothing"


def test_filters_change_what_is_shown_and_the_address(opened):
    page = opened()
    page.select_option("[name=task]", "trial")
    assert count(page) == "12 of 36 questions" and page.locator("[name=subject]").is_disabled()
    page.select_option("[name=task]", "exam")
    page.select_option("[name=subject]", "Surgery")
    assert count(page) == "10 of 36 questions"
    page.select_option("[name=status]", "broken")
    page.select_option("[name=variant]", "rag")
    assert shown(page) == ["Question 14 of the exam?", "Question 18 of the exam?"]
    assert state(page) == {"task": "exam", "subject": "Surgery", "variant": "rag", "status": "broken"}
    page.fill("[name=q]", "EXAM-018")
    assert shown(page) == ["Question 18 of the exam?"]
    page.fill("[name=q]", "nowhere")
    assert count(page) == "0 of 36 questions"
    assert page.locator(".detail").inner_text() == "No question passes these filters."
    page.click("button[type=reset]")
    wait_for_count(page, 36)
    assert state(page) == {}


def expected(found, status: str, variant: str) -> int:
    """How many items have a status, from the paired answers."""
    others, n = [variant] if variant else found.variants, 0
    for task in found.paired.values():
        for right in zip(*(task.correct[name] for name in found.runs), strict=True):
            by_name = dict(zip(found.runs, map(bool, right), strict=True))
            kinds = [(by_name[found.base], by_name[other]) for other in others]
            n += {
                "fixed": (False, True) in kinds,
                "broken": (True, False) in kinds,
                "right": all(kind == (True, True) for kind in kinds),
                "wrong": all(kind == (False, False) for kind in kinds),
                "differ": len(set(by_name.values())) > 1,  # there is one wrong choice in the made-up answers
                "nobody": not any(by_name.values()),
            }[status]
    return n


def test_each_status_finds_its_items(opened, found):
    page = opened()
    for variant in ("", "rag", "sft"):
        page.select_option("[name=variant]", variant)
        for status in ("fixed", "broken", "right", "wrong", "differ", "nobody"):
            page.select_option("[name=status]", status)
            assert count(page) == f"{expected(found, status, variant)} of 36 questions", (status, variant)
    assert expected(found, "fixed", "rag") == 5, "not all statuses are empty"


def test_search_finds_words_of_passages(opened):
    page = opened()
    page.fill("[name=q]", "passage 4")
    assert shown(page)[0] == "Question 4 of the exam?"
    page.locator(".detail summary", has_text="Title 4 (p4#0, score 0.860)").click()
    assert "Text of passage 4 <img src=x>" in page.locator(".detail").inner_text()
    assert "Passages seen by rag" in page.locator(".detail").inner_text()


def test_the_address_brings_the_filters_back(opened):
    page = opened("#items&task=exam&status=fixed&variant=sft&item=exam-9")
    assert page.locator("[name=status]").input_value() == "fixed"
    assert page.locator(".list [aria-current] .lead").inner_text() == "Question 9 of the exam?"
    page.evaluate("location.hash = '#items&task=trial&status=unheard-of'")
    wait_for_count(page, 12)
    assert page.locator("[name=status]").input_value() == ""
    page.click("nav a[href='#methods']")
    assert count(page) == "12 of 36 questions", "links within the page leave the filters alone"


def test_the_keyboard_goes_through_the_items(opened):
    page = opened()
    current = page.locator(".list [aria-current] .lead")
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert current.inner_text() == "Question 2 of the exam?" and state(page) == {"item": "exam-2"}
    page.keyboard.press("k")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert current.inner_text() == "Question 2 of the exam?"
    assert page.evaluate("document.activeElement.closest('.list') !== null")
    page.focus("[name=q]")
    page.keyboard.type("jk")
    assert page.locator("[name=q]").input_value() == "jk", "letters typed into a field are letters"


def test_tab_reaches_every_control_with_a_visible_focus(opened):
    page = opened()
    reached, outlines = [], set()
    focused = "(e => [e.name || e.className || e.tagName, getComputedStyle(e).outlineStyle])(document.activeElement)"
    while "BODY" not in reached:
        page.keyboard.press("Tab")
        name, outline = page.evaluate(focused)
        reached.append(name)
        if name != "BODY":
            outlines.add(outline)
    assert {"skip", "A", "scroll", "task", "subject", "variant", "status", "q", "BUTTON"} <= set(reached)
    assert outlines == {"solid"}


def test_pages_follow_each_other(chromium, found, tmp_path):
    browser = item_browser.build(found)
    many = [item | {"d": 100 * copy + item["d"]} for copy in range(4) for item in browser.data["items"]]
    text = render.page(found, [], [], replace(browser, data=browser.data | {"items": many}))
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    page = chromium.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    place, next_, previous = (page.locator(name) for name in (".place", "[name=next]", "[name=previous]"))
    assert place.inner_text() == "1 of 3" and previous.is_disabled()
    next_.click()
    next_.click()
    assert place.inner_text() == "3 of 3" and next_.is_disabled() and len(shown(page)) == 44
    assert page.locator(".detail h3").inner_text() == "Question 101 of 144"
    page.keyboard.press("k")
    assert place.inner_text() == "2 of 3", "the keyboard crosses pages"
    page.close()


def test_nothing_scrolls_sideways_on_a_phone(opened):
    page = opened("#items&task=trial", viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.locator(".list button").nth(4).click()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    scale = "s => s.getBoundingClientRect().width / s.viewBox.baseVal.width"
    scales = page.evaluate(f"[...document.querySelectorAll('figure svg')].map({scale})")
    assert min(scales) > 1, "9-point text in figures stays above 9 CSS pixels"


def test_print_has_figures_and_no_controls(opened):
    page = opened()
    page.emulate_media(media="print")
    assert not page.locator("#browser").is_visible() and not page.locator("nav").is_visible()
    assert page.locator(".only-print").is_visible() and page.locator("figure").count() == 7
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    page.set_viewport_size({"width": 680, "height": 900})  # about the text width of A4
    cut = (
        "[...document.querySelectorAll('figure svg')].filter(s => s.getBoundingClientRect().right > innerWidth).length"
    )
    assert page.evaluate(cut) == 0


def test_without_scripts_the_rest_is_there(chromium, file):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert "needs JavaScript" in page.locator("#items").inner_text()
    assert page.locator("figure").count() == 7 and not page.locator("#browser").is_visible()
    context.close()

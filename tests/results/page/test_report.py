"""The page: self-contained, well-formed, the same bytes every time; and the command that writes it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up import HOSTILE, write_lm_eval_output

from medtasks.errors import InputError
from results.commands.report import report
from results.page import render

VOID = {"meta", "link", "br", "input"}


class Page(HTMLParser):
    """Checks that elements nest, and keeps what tests look at."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()


def test_the_page_is_well_formed_and_labelled(page):
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    headings = [int(tag[1]) for tag in parsed.tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(headings, headings[1:], strict=False))
    assert '<html lang="en">' in page and page.count("<figure") == page.count('<svg role="img" aria-label="')
    anchors = set(re.findall(r'<a [^>]*href="#([^"]+)"', page))
    assert {"answer", "ranking", "subjects", "items", "methods"} <= anchors <= set(parsed.ids)
    assert page.count("<th ") == page.count("<th scope=")
    assert "Not for clinical use" in page and "doi:10.1007/BF02295996" in page


def test_the_page_asks_for_nothing(page):
    parsed = Page(page)
    addresses = [value for name, value in parsed.attributes if name in ("src", "href", "xlink:href", "action")]
    assert all(address.startswith(("#", "data:,")) for address in addresses)
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page


def test_the_same_study_gives_the_same_page(found, page):
    assert render.report(found)[0] == page


def test_texts_of_questions_cannot_become_html(found, page):
    assert "</script><b>" not in page and "<img" not in page
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(data)["items"][0]["q"] == HOSTILE
    assert json.loads(render.embedded({"a": "<\u2028&>"})) == {"a": "<\u2028&>"}
    assert not set("<>&\u2028") & set(render.embedded({"a": "<\u2028&>"}))


def test_the_answer_and_the_facts_stand_first(page):
    assert page.index("The base answers 50.0% of 36 questions correctly") < page.index('id="ranking"')
    for text in ("Tiny-1B", "exam (24), trial (12)", "no examples, no chat template", "bfloat16", "lm-eval 0.4.13"):
        assert text in page
    assert "models/Tiny-1B" in page, "an id of the Hub keeps its organisation"


def test_names_of_variants_and_tasks_are_escaped(study):
    named = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps(named | {"name": "<i>odd</i>"}))
    report([str(study), "--out", str(study / "page.html"), "--items", "2"])
    page = (study / "page.html").read_text()
    assert "&lt;i&gt;odd&lt;/i&gt;" in page and "<i>odd" not in page


def test_the_command_writes_page_and_figures(study, tmp_path, capsys):
    out, folder = tmp_path / "r.html", tmp_path / "figures"
    assert report([str(study), "--out", str(out), "--figures", str(folder), "--items", "3", "--no-questions"]) == 0
    page = out.read_text()
    assert "3 of 24 of exam" in page and "(--no-questions)" in page and "Question 3 of" not in page
    assert out.stat().st_size < 500_000
    kinds = {file.suffix for file in folder.iterdir()}
    assert kinds == {".svg", ".png", ".csv"} and len(list(folder.iterdir())) == 21
    said = capsys.readouterr().out
    assert said.startswith(f"report    {out} (0.") and "figures   " in said


def test_the_command_compares_runs(tmp_path):
    for variant in ("base", "sft"):
        write_lm_eval_output(tmp_path / variant, variant)
    arguments = [str(tmp_path / "sft"), str(tmp_path / "base"), "--base", "base", "--out", str(tmp_path / "r.html")]
    assert report([*arguments, "--items", "all"]) == 0
    page = (tmp_path / "r.html").read_text()
    assert (
        "<h1>sft against base</h1>" in page
        and "nothing is recorded, because these runs are not part of a study" in page
    )


def test_a_published_study_is_reported_without_its_questions(tmp_path):
    committed = Path(__file__).parents[3] / "results" / "runs" / "published_subsets_1.5b"
    assert report([str(committed), "--out", str(tmp_path / "r.html"), "--items", "all"]) == 0
    page = (tmp_path / "r.html").read_text()
    assert "The base answers 46.5% of 800 questions correctly, on average over 4 tasks." in page
    assert "because these runs keep no samples" in page and "Which passages rag, sft+rag saw is not recorded" in page
    assert "sft+rag against sft" in page and "msft/cpt" in page and "1 x NVIDIA H100 80GB HBM3" in page
    assert len(page) < 1_000_000


def test_bad_arguments_are_refused(study):
    with pytest.raises(InputError, match="--items few"):
        report([str(study), "--items", "few"])
    with pytest.raises(InputError, match="no run is named 'nobody'|has not been evaluated"):
        report([str(study), "--base", "nobody"])


def test_what_is_not_there_is_said_on_the_page(study):
    named = json.loads((study / "study.json").read_text())
    named["variants"]["msft"] = {"training": "sft"}
    (study / "study.json").write_text(json.dumps(named))
    for file in (study / "steps").iterdir():
        file.unlink()
    report([str(study), "--out", str(study / "page.html"), "--items", "2"])
    page = (study / "page.html").read_text()
    assert "Not evaluated yet: msft." in page and "Cost: nothing is recorded" in page
    assert 'id="cost"' not in page and 'href="#cost"' not in page

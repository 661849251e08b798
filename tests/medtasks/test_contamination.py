"""Planted overlaps are found for what they are, and nothing is found where nothing was planted."""

import gzip
import json
import random

import numpy as np
import pytest

from medtasks import benchmarks, contamination, corpora, mcq, ngrams
from medtasks.contamination import Overlap
from medtasks.contamination_command import contamination as command
from medtasks.errors import InputError

VIGNETTE = (
    "A 62-year-old beekeeper comes to the clinic because of six weeks of burning feet and unsteady gait, worse in the "
    "dark. He's lived on tea, toast and jam since his wife died; vibration sense is lost below both knees. "
    "Which vitamin is lacking?"
)
LONG = {
    "id": "long",
    "question": VIGNETTE,
    "options": ["Vitamin A", "Vitamin B12", "Vitamin C", "Vitamin K (phylloquinone)"],
    "answer": 1,
}
SHORT = {"id": "short", "question": "Drug of choice is:", "options": ["Aspirin", "Heparin", "Warfarin"], "answer": 0}
MIDDLE = {"id": "middle", "question": "Which one of these eight words is here?", "options": ["a", "b"], "answer": 0}
ABSTRACT = " ".join(f"finding{n}" for n in range(60))
STUDY = {"id": "study", "question": "Do findings recur?", "context": ABSTRACT, "options": ["yes", "no"], "answer": 0}
ITEMS = [LONG, SHORT, MIDDLE, STUDY]
BARE = {"a": "nothing of interest", "b": 1, "c": None}


@pytest.fixture(scope="module")
def overlap():
    return Overlap(ITEMS)


def found(overlap, row) -> dict:
    """Item id -> (kind, share)."""
    return {ITEMS[f.position]["id"]: (f.kind, round(f.share, 2)) for f in overlap.find(row)}


def opening(text: str, part: float) -> str:
    words = text.split()
    return " ".join(words[: int(len(words) * part)])


def test_the_item_itself_is_exact(overlap):
    for item in ITEMS:
        assert found(overlap, item) == {item["id"]: ("exact", 1.0)}


@pytest.mark.parametrize(
    "columns",
    [
        {"options": LONG["options"][::-1]},
        {"choices": LONG["options"][::-1]},
        {"choices": repr(LONG["options"][::-1])},
        {"options": dict(zip("ABCD", LONG["options"][::-1], strict=True))},
        dict(zip(("opa", "opb", "opc", "opd"), LONG["options"][::-1], strict=True)),
    ],
)
def test_options_in_another_order_in_every_shape(overlap, columns):
    assert found(overlap, {"question": VIGNETTE} | columns) == {"long": ("reordered", 1.0)}


@pytest.mark.parametrize("options", [None, "not a list", ["Vitamin A", "Vitamin B12"], [1, 2, 3, 4]])
def test_other_options_or_none_leave_the_stem(overlap, options):
    assert found(overlap, {"question": VIGNETTE, "options": options}) == {"long": ("stem", 1.0)}


def test_case_punctuation_space_and_unicode_do_not_matter(overlap):
    disguised = (
        VIGNETTE.upper()
        .replace("-", "\u2011")
        .replace("'", "\u2019")
        .replace(", ", "\u2003\u2014\u2003")
        .replace("BURNING", "BURN\u00adING")
        .replace("62", "\uff16\uff12")
    )
    options = [option.lower().replace(" ", "_") + "." for option in LONG["options"]]
    assert found(overlap, {"Question": disguised, "choices": options}) == {"long": ("exact", 1.0)}
    assert ngrams.words("\ufb01brin\u200bogen, caf\u00e9_2") == ["fibrinogen", "caf\u00e9", "2"]
    assert ngrams.normalize("e\u0301tude") == ngrams.normalize("\u00c9TUDE")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Crohn&#x27;s disease", "Crohn's disease"),
        ("5&nbsp;mg of the<br>drug", "5 mg of the drug"),
        ("H<sub>2</sub>O <p class='x'>and</p>salt", "H2O and salt"),
        ("p < 0.05 and a > b", "p 0 05 and a b"),
        ("R&D", "R D"),
    ],
)
def test_of_html_what_a_reader_sees_is_compared(text, seen):
    assert ngrams.normalize(text) == ngrams.normalize(seen)


def test_a_question_inside_a_long_passage(overlap):
    passage = f"{'Bees dance. ' * 400}{VIGNETTE}{' Honey keeps.' * 400}"
    [finding] = overlap.find(passage)
    assert (finding.kind, finding.share) == ("stem", 1.0)
    assert finding.text.startswith("a 62 year old beekeeper") and len(finding.text.split()) == contamination.EXCERPT


def test_a_rendered_prompt_holds_the_stem(overlap):
    row = {"prompt": f"Answer with a letter.\n{mcq.render(LONG)}", "completion": " B"}
    assert found(overlap, row)["long"] == ("stem", 1.0)


def test_half_a_vignette_is_ngram_and_less_is_partial(overlap):
    [(kind, share)] = found(overlap, {"text": f"So. {opening(VIGNETTE, 0.5)} and so on"}).values()
    assert kind == "ngram" and contamination.SUBSTANTIAL <= share < 0.5
    [(kind, share)] = found(overlap, {"text": f"So. {opening(VIGNETTE, 0.4)} and so on"}).values()
    assert kind == "partial" and contamination.TRACE <= share < contamination.SUBSTANTIAL


def test_the_share_is_the_ngrams_found_of_those_there_are(overlap):
    words = ngrams.words(ABSTRACT)  # 60 words, 48 n-grams
    assert found(overlap, " ".join(words[:24])) == {"study": ("partial", 12 / 48)}
    assert found(overlap, " ".join([*words[:24], "or", *words[:24]])) == {"study": ("partial", 12 / 48)}
    assert found(overlap, " ".join(words[:30])) == {"study": ("ngram", round(18 / 48, 2))}
    [finding] = overlap.find(" ".join([*words[:14], "or", *words[20:40], "or", *words[45:59]]))
    assert finding.text == " ".join(words[20:40])


def test_an_abstract_without_its_question_is_ngram(overlap):
    assert found(overlap, {"text": ABSTRACT})["study"][0] == "ngram"


def test_a_short_question_counts_only_as_a_whole_field(overlap):
    assert found(overlap, "drug of choice, is?") == {"short": ("stem", 1.0)}
    assert found(overlap, "The drug of choice is aspirin") == {}
    assert found(overlap, {"question": SHORT["question"], "options": ["Gin", "Rum"]}) == {}
    assert found(overlap, {"question": SHORT["question"], "options": SHORT["options"][::-1]})["short"][0] == "reordered"
    assert found(overlap, "Tell me: which one of these eight words is here? Thanks") == {"middle": ("stem", 1.0)}
    assert found(overlap, "which one of these eight words is there") == {}


def test_a_question_of_three_words_needs_its_options():
    item = {"question": "The pleura", "options": ["extends into the neck", "is one layer", "has no nerves at all"]}
    overlap = Overlap([item])
    assert not overlap.find({"title": "The pleura", "text": "It has two layers."})
    assert not overlap.find({"question": "Where is air in pneumothorax?", "options": ["The pleura", "The lung"]})
    assert overlap.find(item)[0].kind == "exact"
    assert overlap.find({"text": mcq.render(item)})[0].kind == "ngram"


def test_twelve_words_in_common_are_not_an_ngram_and_traces_are_no_finding(overlap):
    words = ngrams.words(ABSTRACT)
    short = Overlap([STUDY | {"context": " ".join(words[:22])}])  # 10 n-grams
    assert short.find(" ".join(words[5:17])) == []
    [finding] = short.find(" ".join(words[5:18]))
    assert (finding.kind, finding.share) == ("partial", 0.1)
    assert found(overlap, " ".join(words[5:18])) == {}


def test_set_phrases_of_many_questions_are_no_finding():
    phrase = "which of the following is the most appropriate next step in the management of this patient"
    items = [LONG | {"question": f"Patient {n} has sign {n}. {phrase}?"} for n in range(contamination.BOILERPLATE + 1)]
    assert Overlap(items[:-1]).find(phrase)
    assert not Overlap(items).find(phrase)
    assert Overlap(items[:-1] * 5).find(phrase)  # the same question many times is one question


def test_whatever_is_nested_in_a_row_is_searched(overlap):
    assert found(overlap, {"messages": [{"role": "user", "content": [{"text": VIGNETTE}]}]})["long"][0] == "stem"
    assert found(overlap, BARE) == {}


def test_a_match_never_rests_on_the_hash(monkeypatch):
    monkeypatch.setattr(ngrams, "MULTIPLIER", np.uint64(0))  # every n-gram hashes to its last word
    overlap = Overlap(ITEMS)
    shuffled = ngrams.words(VIGNETTE)
    random.Random(1).shuffle(shuffled)
    assert overlap.find(" ".join(shuffled)) == []
    assert overlap.find(VIGNETTE)[0].kind == "stem"


def test_as_a_filter(overlap):
    rows = [BARE, {"text": VIGNETTE}, {"text": opening(VIGNETTE, 0.4)}, LONG]
    assert [row for row in rows if not overlap.is_contaminated(row)] == [rows[0], rows[2]]
    assert not Overlap([]).is_contaminated(LONG)


def test_the_sample_keeps_its_splits_and_corpus_apart():
    families = ("medqa", "medmcqa", "pubmedqa")
    asked = [item for name in families for item in benchmarks.load(name, "test")]
    overlap = Overlap(asked)
    assert all(overlap.is_contaminated(item) for item in asked)
    learned = [item for name in families for item in benchmarks.load(name, "train")]
    assert not [row["id"] for row in [*learned, *corpora.read("sample")] if overlap.is_contaminated(row)]


# The command


@pytest.fixture
def write(tmp_path):
    """A function that writes rows (or raw lines) to a .jsonl or .jsonl.gz file and returns its path."""

    def write(name: str, *rows) -> str:
        path = tmp_path / name
        lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        path.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
        return str(path)

    return write


@pytest.fixture(scope="module")
def asked():
    return max(benchmarks.load("medqa", "test"), key=lambda item: len(item["question"]))


def summary(capsys, *arguments) -> list[dict]:
    assert command([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_finding_is_counted_and_written(write, asked, capsys, tmp_path):
    turned = asked | {"options": asked["options"][::-1]}
    zipped = write("c.jsonl.gz", {"id": "p1", "text": "Nothing."}, {"id": "p2", "text": asked["question"]}, turned)
    out = tmp_path / "findings.jsonl"
    lines = summary(capsys, "--tasks", "medqa,mmlu_med", "--against", zipped, "--out", str(out))
    assert [(line["task"], line["rows"], line["reordered"], line["stem"]) for line in lines] == [
        ("medqa", 3, 1, 0),
        ("mmlu_med", 3, 0, 0),
    ]
    assert lines[0]["share"] == 1 / lines[0]["items"]
    stem, reordered = map(json.loads, out.read_text().splitlines())
    assert (stem["task"], stem["item"], stem["kind"], stem["id"]) == ("medqa", asked["id"], "stem", "p2")
    assert stem["row"] == f"{zipped}:2" and stem["against"] == zipped
    assert stem["text"] in ngrams.normalize(asked["question"])
    assert (reordered["kind"], reordered["row"]) == ("reordered", f"{zipped}:3")


def test_benchmarks_hub_datasets_text_files_and_the_sample_are_searched(tmp_path, asked, capsys):
    book = tmp_path / "book.md"
    book.write_text(f"# Quiz\n\n{asked['question']}\n")
    against = ["medqa:test", benchmarks.MEDQA + ":test", "medqa", str(book), "sample"]
    lines = {line["against"]: line for line in summary(capsys, "--tasks", "medqa:test", "--against", *against)}
    assert list(lines) == against
    assert lines["medqa:test"]["exact"] == lines[benchmarks.MEDQA + ":test"]["exact"] == lines["medqa"]["items"]
    assert lines[str(book)]["stem"] == lines[str(book)]["rows"] == 1
    assert lines["medqa"]["share"] == lines["sample"]["share"] == 0
    assert lines["sample"]["rows"] >= 200


def test_the_table_is_markdown_and_a_group_is_its_benchmarks(write, capsys, monkeypatch):
    monkeypatch.setattr(benchmarks, "load", lambda name, split: [LONG | {"id": f"{name}-{split}"}])
    assert command(["--tasks", "medadapt_sub,medqa:validation", "--against", write("c.jsonl", LONG)]) == 0
    header, rule, *lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in (header, rule, *lines)}) == 1
    assert set(rule) <= set("|-: ")
    assert [cell.strip() for cell in header.split("|")][1:4] == ["task", "against", "rows"]
    tasks = ["medqa_sub", "medmcqa_sub", "pubmedqa_sub", "mmlu_med_sub", "medqa:validation"]
    assert [line.split("|")[1].strip() for line in lines] == tasks
    assert all(line.endswith("| 100.00% |") for line in lines)


def test_a_share_above_the_limit_fails(capsys):
    arguments = ["--tasks", "medqa", "--against", "medqa:test", "--fail-above"]
    assert command([*arguments, "0.5"]) == 1
    assert command([*arguments, "1"]) == 0


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{broken", r"c\.jsonl:2: not a JSON object"),
        ("[1, 2]", r"c\.jsonl:2: not a JSON object"),
        ('{"answer": 3}', r"c\.jsonl:2: no text in it"),
    ],
)
def test_a_row_that_cannot_be_searched_is_named(write, line, complaint, tmp_path):
    out = tmp_path / "findings.jsonl"
    with pytest.raises(InputError, match=complaint):
        command(["--tasks", "medqa", "--against", write("c.jsonl", BARE, line), "--out", str(out)])
    assert not out.exists()


@pytest.mark.parametrize(
    ("tasks", "against", "complaint"),
    [
        ("medqb", "sample", "unknown benchmark 'medqb'"),
        ("medmcqa:validation", "sample", "medmcqa has no split 'validation'"),
        (",", "sample", "no task"),
        ("medqa", "missing.jsonl", "missing.jsonl: no such file"),
        ("medqa", "plain", "plain: no such file"),
        ("medqa", "/", "/: cannot be searched"),
        ("medqa", "nobody/nothing", "should hold the dataset|no folder .*nobody/nothing"),
    ],
)
def test_what_is_not_there_is_named(tasks, against, complaint):
    with pytest.raises(InputError, match=complaint):
        command(["--tasks", tasks, "--against", against])


def test_empty_and_unreadable_files_are_named(write, tmp_path):
    with pytest.raises(InputError, match=r"e\.jsonl: it is empty"):
        command(["--tasks", "medqa", "--against", write("e.jsonl")])
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt: not a text in UTF-8"):
        command(["--tasks", "medqa", "--against", str(tmp_path / "latin.txt")])

"""Rows of every shape become examples, and those that cannot are named, all at once."""

import json

import pytest

from medtasks import mcq
from medtasks.errors import InputError
from trainers import data
from trainers.data import SFTDataArguments, mixture, reading


def sft(*sources, **changes):
    return data.sft_examples(SFTDataArguments(list(sources), **({"decontaminate": False} | changes)), seed=1)


@pytest.mark.parametrize(
    ("row", "letter"),
    [
        ({"choices": ["a", "b", "c"], "answer": 2}, "C"),
        ({"choices": "['a', 'b', 'c']", "answer": "2"}, "B"),
        ({"options": ["a", "b", "c"], "answer": "b"}, "B"),
    ],
)
def test_choices_and_answers_of_every_shape(write_jsonl, row, letter):
    [example] = sft(write_jsonl([{"question": "Which?"} | row])).rows
    assert example["completion"] == f" {letter}"


@pytest.mark.parametrize(
    ("row", "completion"),
    [
        ({"Question": "Why?", "Complex_CoT": "Think.", "Response": "So."}, " Think.\n\nSo."),
        ({"instruction": "Why?", "input": "", "output": "So."}, " So."),
        ({"question": "Why?", "answer": "So."}, " So."),
    ],
)
def test_open_questions(write_jsonl, row, completion):
    [example] = sft(write_jsonl([row])).rows
    assert example == {"prompt": "Question: Why?\nAnswer:", "completion": completion}


def test_pairs_are_taken_as_they_are(write_jsonl):
    pair = {"prompt": "One, two,", "completion": " three"}
    assert sft(write_jsonl([pair])).rows == [pair]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": "Which?", "choices": ["a", "b"], "answer": 2}, "answers are counted from 0, and here from 1"),
        ({"question": "Which?", "choices": ["a", "b"], "answer": 3}, "names none of the 2 choices"),
        ({"question": "Which?", "choices": ["a", "b"], "answer": "0"}, "numbers as text are counted from 1"),
        ({"question": "Which?", "choices": {"1": "a", "2": "b"}, "answer": 0}, "the choices are called 1, 2"),
        ({"question": "Which?", "choices": {"A": "a", "B": "b"}, "cop": 2}, "answers are counted from 0"),
        ({"question": "Which?", "choices": [1, 2, 3], "answer": 2}, "is the text of the 2. choice, and as a letter"),
        ({"question": "Which?", "choices": ["a", "b"], "answer": "A", "answer_idx": 1}, "answer the 1."),
        ({"question": "Which?", "choices": ["a", "b"], "answer": "B", "cop": 0}, "cop names the 1. choice, and answer"),
        ({"question": "Which?", "choices": ["a", "b"], "answer": 1, "context": {"x": "y"}}, "must be a text"),
        ({"question": "Which?", "answer": "b", "context": "c"}, "has context besides"),
        ({"instruction": "Double it.", "input": 5, "output": "10"}, "has input besides"),
        ({"instruction": "Say it.", "input": "", "output": "b", "system": "Be rude."}, "has system besides"),
        ({"prompt": "Say it.", "completion": "b", "history": [["a", "b"]]}, "has history besides"),
        ({"question": "Which?", "choices": "none", "answer": 0}, "not a list"),
        ({"question": "Which?", "choices": ["a"], "answer": 0}, "2 to 10"),
        ({"text": "only"}, "a row needs the columns"),
        ({"question": "Which?", "choices": ["a", ""], "answer": 1}, "the right choice is empty"),
        ({"question": "Which?", "choices": {"text": ["a", "b"], "label": None}, "answer": 1}, "label is no list"),
        ({"prompt": [{"role": "user", "content": "x"}], "completion": "b"}, "prompt and completion must be texts"),
        ({"messages": "Hello"}, "messages must be a list of turns"),
        (
            {"pubid": 1, "question": None, "context": {"contexts": ["a"]}, "final_decision": "yes"},
            "no question",
        ),
        (
            {"pubid": 1, "question": "Is it?", "context": {"contexts": ["a", None]}, "final_decision": "yes"},
            "'contexts', a list of texts",
        ),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_named(write_jsonl, row, complaint):
    path = write_jsonl([{"prompt": "a", "completion": "b"}, row])
    with pytest.raises(InputError, match=f"items.jsonl:2: .*{complaint}"):
        sft(path)


def test_published_benchmark_rows_are_items(write_jsonl):
    options = {"A": "one", "B": "two", "C": "three"}
    medqa = {"question": "Which?", "options": options, "answer": "two", "answer_idx": "B", "meta_info": "step1"}
    medmcqa = {"question": "Who?", "opa": "one", "opb": "two", "opc": "three", "opd": "four", "cop": 2, "exp": "So."}
    first, second = sft(write_jsonl([medqa, medmcqa]), answer_style="rationale").rows
    assert first["prompt"].endswith("A. one\nB. two\nC. three\nAnswer:") and first["completion"] == " B"
    assert second["completion"] == " So.\nAnswer: C"


def test_columns_that_hold_no_option_are_none(write_jsonl):
    [row] = sft(write_jsonl([{"question": "Which?", "choices": ["a", "b", "nan"], "answer": 1}])).rows
    assert row["prompt"] == mcq.render({"question": "Which?", "options": ["a", "b"]})


def test_an_answer_may_be_the_text_of_its_choice(write_jsonl):
    [row] = sft(write_jsonl([{"question": "Which?", "choices": ["one", "two"], "answer": "two"}])).rows
    assert row["completion"] == " B"


CHAT = [("system", "Be kind."), ("user", "One?"), ("assistant", "1"), ("user", "Two?"), ("assistant", "2")]


@pytest.mark.parametrize(
    ("column", "speaker", "text", "names"),
    [
        ("messages", "role", "content", {}),
        ("conversations", "from", "value", {"user": "human", "assistant": "gpt"}),
    ],
)
def test_chats_teach_their_last_reply(write_jsonl, column, speaker, text, names):
    turns = [{speaker: names.get(role, role), text: content} for role, content in CHAT]
    path = write_jsonl([{column: [*turns, {speaker: names.get("user", "user"), text: "Bye."}]}])
    [row] = sft(path, chat=True).rows
    assert row["prompt"] == [{"role": role, "content": content} for role, content in CHAT[:-1]]
    assert row["completion"] == [{"role": "assistant", "content": "2"}]
    with pytest.raises(InputError, match="items.jsonl:1: a chat of several turns.*say 'chat: true'"):
        sft(path)


def test_a_chat_of_one_question_needs_no_template(write_jsonl):
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    assert sft(write_jsonl([{"messages": turns}])).rows == [{"prompt": "Question: Why?\nAnswer:", "completion": " So."}]


def test_columns_of_other_names_are_told(write_jsonl):
    path = write_jsonl([{"Q": "Why?", "A": "So.", "note": "x"}])
    entry = {"source": path, "columns": {"question": "Q", "answer": "A"}}
    assert sft(json.dumps(entry)).rows == [{"prompt": "Question: Why?\nAnswer:", "completion": " So."}]
    entry["columns"]["answer"] = "B"
    with pytest.raises(InputError, match="items.jsonl:1: no column 'B' .it has Q, A, note."):
        sft(json.dumps(entry))


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Why \ud800?", "answer": "So."},
        {"question": "Which?", "choices": ["a", "\udfff b"], "answer": 0},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Sure \ud83d"}]},
    ],
)
def test_half_a_surrogate_pair_is_told_with_its_row(write_jsonl, row):
    whole = {"question": "Why \U0001f48a?", "answer": "So."}
    path = write_jsonl([whole, row])
    with pytest.raises(InputError, match=r"1 of 2 rows .*items.jsonl:2: a text holds half of a character"):
        sft(path)
    assert sft(path, skip_faulty=True).rows == [{"prompt": "Question: Why \U0001f48a?\nAnswer:", "completion": " So."}]


FAULTY = [
    {"question": "Fine?", "answer": "Yes."},
    {"question": "Which?", "choices": ["a", "b"], "answer": 5},
    {"question": "Why?", "answer": " "},
    {"messages": [{"role": "wizard", "content": "x"}]},
    {"messages": [{"role": "user", "content": "x"}]},
    {"prompt": "x", "completion": ""},
    ["a"],
]


def test_all_faulty_rows_are_told_at_once(write_jsonl):
    with pytest.raises(InputError) as caught:
        sft(write_jsonl(FAULTY))
    line = str(caught.value)
    assert line.startswith("6 of 7 rows cannot be learned from: ") and "\n" not in line
    assert "items.jsonl:2: the answer 5 names none" in line and "items.jsonl:3: the answer is empty" in line
    assert "items.jsonl:4: a turn's 'role' is 'wizard'" in line and "items.jsonl:5" not in line
    assert "skip_faulty: true" in line


def test_faulty_rows_may_be_left_out_and_are_counted(write_jsonl):
    examples = sft(write_jsonl(FAULTY), skip_faulty=True)
    assert examples.counts["faulty"] == 6 and examples.counts["used"] == 1
    assert [row["place"].rpartition(":")[2] for row in examples.dropped] == ["2", "3", "4", "5", "6", "7"]
    with pytest.raises(InputError, match="no example is left"):
        sft(write_jsonl(FAULTY[1:]), skip_faulty=True)


@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("headqa_en_train", 2589),
        ("headqa_en_dev", 1336),
        ("casimedicos_en_train", 381),
        ("openstax_review_mcq", 1451),
        ("medquad", 16407),
    ],
)
def test_real_files_are_read_whole(shared_data, file, rows):
    source = mixture.parse(str(shared_data / "sft" / f"{file}.jsonl.gz"))
    found = [row for _, row in reading.rows(source)]
    assert len(found) == rows and all(isinstance(row, dict) for row in found)


@pytest.mark.parametrize(
    ("row", "columns", "learned"),
    [
        (
            {"question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 0, "exp": "For."},
            {"prompt": "question", "completion": "exp"},
            "For.",
        ),
        (
            {"instruction": "Why?", "output": "So.", "Frage": "Warum?", "Antwort": "Darum."},
            {"question": "Frage", "answer": "Antwort"},
            " Darum.",
        ),
        (
            {"Question": "Why?", "Complex_CoT": "Think.", "Response": "So."},
            {"question": "Question", "answer": "Response"},
            " So.",
        ),
        ({"Q": "Which?", "choices": ["a", "b"], "answer": 1}, {"question": "Q"}, " B"),
    ],
)
def test_what_is_named_decides_how_a_row_is_read(write_jsonl, row, columns, learned):
    [example] = sft(json.dumps({"source": write_jsonl([row]), "columns": columns})).rows
    assert example["completion"] == learned


def test_contexts_are_joined(write_jsonl):
    row = {"question": "Which?", "choices": ["a", "b"], "answer": 1, "context": {"contexts": ["One.", "Two."]}}
    [draft] = sft(write_jsonl([row])).drafts
    assert draft.row["context"] == "One.\nTwo."


ANSWERED = {"question": "Which?", "options": ["a", "b", "c", "d"]}


@pytest.mark.parametrize(
    ("row", "columns", "learned"),
    [
        (ANSWERED | {"answer_idx": 0, "gold": "C"}, {"answer": "gold"}, " C"),
        (ANSWERED | {"cop": 0, "gold": "C"}, {"answer_idx": "gold"}, " C"),
        (ANSWERED | {"answer_idx": "B", "answer": "3"}, {"answer": "answer_idx"}, " B"),
        (ANSWERED | {"answer": "e", "opts": ["e", "f"]}, {"choices": "opts"}, " A"),
        ({"question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 0, "x": 1}, {"cop": "x"}, " B"),
    ],
)
def test_what_is_named_wins_over_columns_that_say_the_same(write_jsonl, row, columns, learned):
    [example] = sft(json.dumps({"source": write_jsonl([row]), "columns": columns})).rows
    assert example["completion"] == learned


def test_a_system_prompt_beside_the_turns_comes_first(write_jsonl):
    turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]
    [row] = sft(write_jsonl([{"system": "Be brief.", "conversations": turns}]), chat=True).rows
    assert [turn["content"] for turn in row["prompt"]] == ["Be brief.", "Why?"]
    [row] = sft(write_jsonl([{"system": "", "conversations": turns}]), chat=True).rows
    assert [turn["content"] for turn in row["prompt"]] == ["Why?"]


def test_what_stands_beside_is_left_where_columns_say_what_is_read(write_jsonl):
    row = {"question": "Why?", "answer": "So.", "context": "c"}
    entry = {"source": write_jsonl([row]), "columns": {"question": "question", "answer": "answer"}}
    assert sft(json.dumps(entry)).counts["used"] == 1


def test_columns_that_no_shape_reads_together_are_told(write_jsonl):
    entry = {"source": write_jsonl([{"q": "Why?", "a": "So."}]), "columns": {"question": "q", "completion": "a"}}
    with pytest.raises(InputError, match="one must read all that is named: question, completion"):
        sft(json.dumps(entry))


@pytest.mark.parametrize("answers", [(1, 2, 4), ("0", "1", "2")])
def test_other_ways_to_count_are_refused_whole(write_jsonl, answers):
    rows = [{"question": f"Which {n}?", "options": ["a", "b", "c", "d"], "answer": n} for n in answers]
    with pytest.raises(InputError, match="answer is .*counted from"):
        sft(write_jsonl(rows), skip_faulty=True)


@pytest.mark.parametrize("skip_faulty", [False, True])
def test_a_source_that_counts_answers_from_one_is_refused_whole(write_jsonl, skip_faulty):
    options = {"opa": "a", "opb": "b", "opc": "c", "opd": "d"}
    rows = [options | {"question": f"Which {n}?", "cop": n} for n in (1, 2, 4)]
    with pytest.raises(InputError, match="items.jsonl:3: cop is 4 of 4 choices: answers are counted from 0"):
        sft(write_jsonl(rows), skip_faulty=skip_faulty)


def test_an_item_may_be_called_0(write_jsonl):
    [row] = [
        draft.row for draft in sft(write_jsonl([{"id": 0, "question": "?", "choices": ["a", "b"], "answer": 0}])).drafts
    ]
    assert row["id"] == "0"

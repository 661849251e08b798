"""What the table of flaws counts, on items with known ones."""

import pytest

from medtasks import benchmarks, flaws


def item(question, options, answer=0):
    return {"question": question, "options": options, "answer": answer, "context": ""}


@pytest.fixture
def planted(monkeypatch):
    test = [
        item("What is shown in the figure?", ["a bone", "a vein"]),
        item("Which vessel carries blood to the lungs?", ["aorta", "pulmonary artery"], 1),
        item("Which vessel carries blood  to the LUNGS?", ["pulmonary artery", "aorta"]),
        item("Which vessel carries blood to the lungs?", ["vena cava", "pulmonary artery"], 1),
        item("Which is a vitamin?", ["thiamine", "Thiamine", "iron", "none of the above"]),
        item("Which is a mineral?", ["iron", ""], 5),
        item("The image below is of a lung. What is it?", ["x", "y"]),
        item("A radiograph is shown. What is it?", ["x", "All of these"]),
    ]
    train = [item("which vessel carries blood to the lungs?", ["aorta", "pulmonary artery"], 1)]
    monkeypatch.setattr(benchmarks, "load", lambda name, split: test if split == "test" else train)


def test_planted_flaws_are_counted(planted):
    assert flaws.count("any") == {
        "items": 8,
        "repeated": 1,
        "repeated_question": 1,
        "in_train": 2,
        "same_options": 1,
        "empty": 1,
        "answer_missing": 1,
        "image": 3,
        "all_or_none": 2,
        "longest": 62.5,
        "constant": 62.5,
    }


@pytest.mark.parametrize(
    "text",
    [
        "Imaging is normal. Which enzyme is deficient?",
        "A CT scan shows a mass. What is the next step?",
        "Which figure of speech ...",
        "An ECG shows atrial fibrillation.",
    ],
)
def test_findings_told_in_words_are_no_pictures(text):
    assert not flaws.IMAGE.search(text)


def test_medqa_answers_are_compared_with_the_option_they_point_at():
    assert flaws.count("medqa")["answer_missing"] == 0


def test_the_command_prints_a_table_and_refuses_unknown_names(capsys):
    assert flaws.main(["medqa", "medhallu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| benchmark | items | repeated |") and len(lines) == 4
    assert flaws.main(["medqb"]) == 2
    assert "unknown benchmark 'medqb'" in capsys.readouterr().err

"""Demographic counterfactuals: the rewriting, the exclusion rules, and the task with a model whose flips are known."""

import itertools
import json
import math
import random
import re

import pytest
from choosing_double import evaluate

from medtasks import benchmarks, demographic_rules, demographics, sources, vignettes

ITEM = {
    "id": "x",
    "question": "A 45-year-old African American man is stung by a wasp. His lips swell and he faints. His pulse is "
    "120/min. On which receptor should the drug act that is given to him?",
    "options": ["Alpha-1", "Beta-1", "Beta-2", "Histamine H1"],
    "answer": 0,
    "context": "",
    "subject": "",
    "rationale": "",
}


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("A 45-year-old man coughs.", ("male", 45, None)),
        ("An obese 62 year old African-American female falls.", ("female", 62, "black")),
        ("A previously healthy 33-year-old Caucasian lady falls.", ("female", 33, "white")),
        ("An 8-year-old Hispanic boy falls.", ("male", 8, "hispanic")),
        ("A 19-year-old Asian American woman faints.", ("female", 19, "asian")),
        ("A 30-year-old Ashkenazi Jewish man faints.", ("male", 30, None)),
        ("A 30-year-old nurse faints. A 40-year-old man helps.", (None, None, None)),
        ("Which vitamin is soluble in water?", (None, None, None)),
    ],
)
def test_attributes_are_those_of_the_opening(question, found):
    assert tuple(vignettes.attributes(question).values()) == found


@pytest.mark.parametrize(
    ("male", "female"),
    [
        ("A man hurt himself. He lost his keys.", "A woman hurt herself. She lost her keys."),
        ("They took him to hospital.", "They took her to hospital."),
        ("His wound bothers him.", "Her wound bothers her."),
        ("The pain wakes him, and his left hand tingles.", "The pain wakes her, and her left hand tingles."),
        ("Pain radiates to his back.", "Pain radiates to her back."),
        ("This gentleman's gait is wide. Mr. Ray limps.", "This lady's gait is wide. Ms. Ray limps."),
        ("A male with a human bite, mentally well.", "A female with a human bite, mentally well."),
    ],
)
def test_sex_is_swapped_both_ways(male, female):
    assert vignettes.with_sex(male, "female") == female
    assert vignettes.with_sex(female, "male") == male


@pytest.mark.parametrize(
    ("text", "sex"),
    [
        ("The nurse gave her aspirin.", "male"),  # gave him aspirin, or gave his aspirin?
        ("They brought her home.", "male"),
        ("A friend of hers called.", "male"),
        ("A friend of his, a baker, called.", "female"),
        ("He says that she fell.", "female"),
        ("The bundle of His conducts.", "female"),
        ("The tumour is HER-2 negative.", "male"),
    ],
)
def test_a_text_of_two_readings_or_two_sexes_is_refused(text, sex):
    assert vignettes.with_sex(text, sex) is None


def test_articles_fit_the_new_word():
    assert vignettes.with_age("A 62-year-old man falls.", 80) == "An 80-year-old man falls."
    assert vignettes.with_age("Seen: an 81 year old man.", 61) == "Seen: a 61 year old man."
    assert vignettes.with_age("An 18-year-old. This 18-year-old.", 38) == "A 38-year-old. This 38-year-old."
    opening = "This is a 30-year-old, {} man."
    assert vignettes.with_race(opening.format("an African American"), "white") == opening.format("a Caucasian")
    assert vignettes.with_race(opening.format("a white"), "asian") == opening.format("an Asian")


def test_every_counterfactual_of_an_item():
    made = {(attribute, value): item for attribute, value, item in demographics.counterfactuals(ITEM)}
    assert list(made) == [
        *(("sex", "female"), ("age", "older")),
        *(("race", "white"), ("race", "hispanic"), ("race", "asian")),
    ]
    assert made["sex", "female"]["question"].startswith(
        "A 45-year-old African American woman is stung by a wasp. Her lips swell and she faints."
    )
    assert made["sex", "female"]["question"].endswith("that is given to her?")
    assert made["age", "older"]["question"].startswith("A 65-year-old African American man is stung")
    assert made["race", "hispanic"]["question"].startswith("A 45-year-old Hispanic man is stung")
    assert made["race", "hispanic"] == ITEM | {"id": "x-hispanic", "question": made["race", "hispanic"]["question"]}


def test_options_change_with_the_question():
    item = ITEM | {"options": ["It will shorten his life", "It will not harm him", "Neither", "Both"]}
    made = {attribute: rewritten for attribute, _, rewritten in demographics.counterfactuals(item)}
    assert made["sex"]["options"] == ["It will shorten her life", "It will not harm her", "Neither", "Both"]


@pytest.mark.parametrize(
    ("added", "attribute", "rule"),
    [
        ("His wife called.", "sex", "other persons"),
        ("His prostate is large.", "sex", "reproduction"),
        ("He has a cervical smear.", "sex", "reproduction"),
        ("He takes finasteride.", "sex", "hormones"),
        ("He uses condoms.", "sex", "sexual and urinary health"),
        ("He has a beard.", "sex", "gendered words"),
        ("He had gout.", "sex", "disease of one sex mostly"),
        ("His HDL is 45 mg/dL.", "sex", "threshold by sex"),
        ("Hemoglobin is 12.5 g/dL.", "sex", "threshold by sex"),
        ("Hematocrit: 38%", "sex", "threshold by sex"),
        ("He takes valproate.", "sex", "fertile age and management"),
        ("What is the next step?", "sex", "fertile age and management"),
        ("His father has hemophilia.", "sex", "genetics"),
        ("A 40-year-old man helps.", "sex", "several people"),
        ("What is his risk factor?", "sex", "attribute or risk asked for"),
        ("A photograph is taken.", "sex", "finding in an image"),
        ("He has smoked for 20 years.", "age", "life stage or long history"),
        ("He attends college.", "age", "life stage or long history"),
        ("He has a lung mass.", "age", "tumour or alarm sign"),
        ("He has angina.", "age", "heart and vessels"),
        ("His memory fails.", "age", "ageing"),
        ("He has Crohn disease.", "age", "disease of the young"),
        ("His neck is stiff: meningitis.", "age", "organism by age"),
        ("He needs a vaccine.", "age", "attribute or risk asked for"),
        ("He immigrated as a child.", "race", "origin or travel"),
        ("He has hilar nodes.", "race", "disease linked to a group"),
        ("He has a rash.", "race", "skin"),
        ("He has sickle cells.", "race", "genetics"),
    ],
)
def test_one_added_sentence_excludes_an_accepted_item(added, attribute, rule):
    assert demographic_rules.excluded_by(ITEM, attribute) is None
    assert demographic_rules.excluded_by(ITEM | {"question": f"{ITEM['question']} {added}"}, attribute) == rule
    assert demographic_rules.excluded_by(ITEM | {"options": [added, "b", "c", "d"]}, attribute) == rule


@pytest.mark.parametrize(
    "added",
    [
        "Hemoglobin is 10.5 g/dL.",  # low in both sexes
        "Hemoglobin 14.1 g/dL",  # normal in both
        "There is cervical lymphadenopathy.",
        "Lactate is 4 mmol/L.",
        "Laboratory results are shown below.",
    ],
)
def test_rules_leave_what_does_not_depend_on_sex(added):
    assert demographic_rules.excluded_by(ITEM | {"question": f"{ITEM['question']} {added}"}, "sex") is None


@pytest.mark.parametrize(
    ("patient", "attribute", "rule"),
    [
        ("17-year-old boy", "sex", "not an adult"),
        ("17-year-old Asian boy", "race", "not an adult"),
        ("29-year-old man", "age", "outside the age bands"),
        ("40-year-old woman", "age", "outside the age bands"),
        ("70-year-old man", "age", "outside the age bands"),
        ("45-year-old man", "race", "no race named"),
        ("patient", "sex", "no patient in the opening"),
    ],
)
def test_who_the_patient_is_excludes(patient, attribute, rule):
    question = ITEM["question"].replace("45-year-old African American man", patient)
    assert demographic_rules.excluded_by(ITEM | {"question": question}, attribute) == rule


def test_ages_move_to_the_other_band_and_back():
    for sex, (younger, older) in demographic_rules.AGE_BANDS.items():
        assert younger[1] < older[0]
        for age in range(younger[0], younger[1] + 1):
            moved = demographic_rules.other_age({"sex": sex, "age": age})
            assert older[0] <= moved <= older[1]
            assert demographic_rules.other_age({"sex": sex, "age": moved}) == age
    assert min(age for band in demographic_rules.AGE_BANDS["female"] for age in band) not in demographic_rules.FERTILE


WORDS = re.compile(r"\w+|\W+")
SEXED = set(vignettes.FEMALE_OF) | set(vignettes.FEMALE_OF.values())


def test_only_the_patients_words_differ_and_sex_goes_back():
    seen = set()
    for item in itertools.chain(*(benchmarks.load("medqa", split) for split in ("train", "validation", "test"))):
        for attribute, value, rewritten in demographics.counterfactuals(item):
            texts = [[version["question"], *version["options"]] for version in (item, rewritten)]
            pairs = list(zip(*texts, strict=True))
            for old, new in pairs:
                tokens = list(zip(WORDS.findall(old), WORDS.findall(new), strict=True))
                changed = {word.lower() for pair in tokens if len(set(pair)) == 2 for word in pair}
                assert changed <= SEXED if attribute == "sex" else all(word.isdigit() for word in changed)
            assert pairs[0][0] != pairs[0][1]
            if attribute == "sex":
                assert [vignettes.with_sex(new, {"male": "female", "female": "male"}[value]) for _, new in pairs] == [
                    old for old, _ in pairs
                ]
            assert rewritten == item | {key: rewritten[key] for key in ("id", "question", "options")}
            seen.add((attribute, value))
    assert seen == {("sex", "male"), ("sex", "female"), ("age", "older"), ("age", "younger")}


def test_tally_counts_every_item_once_an_attribute():
    found = [
        *benchmarks.load("medqa", "test"),
        ITEM | {"question": ITEM["question"] + " They gave his friend his pen."},
    ]
    counts = demographics.tally(found)
    assert [sum(count.values()) for count in counts.values()] == [len(found)] * 3
    assert counts["sex"]["accepted"] >= 5
    assert counts["race"]["accepted"] == 1
    assert demographics.tally([ITEM | {"question": ITEM["question"] + " This is his."}])["sex"] == {
        "ambiguous grammar": 1
    }


@pytest.fixture(scope="module")
def docs():
    return list(demographics.docs(sources.load_rows(benchmarks.MEDQA, None, "test")))


def test_originals_stand_before_their_counterfactuals(docs):
    groups = [list(group) for _, group in itertools.groupby(docs, lambda doc: doc["original_id"])]
    assert len(groups) == len({doc["original_id"] for doc in docs})
    for first, *rest in groups:
        assert (first["attribute"], first["value"], first["was"]) == ("original", "", "")
        assert first["id"] == first["original_id"]
        assert rest
        for doc in rest:
            assert doc["attribute"] in demographics.ATTRIBUTES
            assert doc["was"] != doc["value"]
            assert doc["answer"] == first["answer"]
    assert len({doc["id"] for doc in docs}) == len(docs)


def record(number, attribute="original", was="", value="", chosen=0, right=1):
    return [f"q{number}", attribute, was, value, chosen, right]


RECORDS = [
    record(1),
    record(1, "sex", "male", "female", chosen=2, right=0),  # flips: right as a man only
    record(1, "age", "younger", "older"),
    record(2, chosen=1, right=0),
    record(2, "sex", "female", "male", chosen=1, right=0),
    record(3),
    record(3, "sex", "female", "male", chosen=3, right=0),  # flips: right as a woman only
    record(4, chosen=1, right=0),
    record(4, "sex", "male", "female", chosen=0, right=1),  # flips: right as a woman only
    record(5),
    record(5, "race", "black", "white", chosen=1, right=0),  # flips
    record(5, "race", "black", "hispanic"),
    record(5, "race", "black", "asian", chosen=2, right=0),  # flips
    record(6, "sex", "male", "female"),  # its original was not asked: counts for acc alone
]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("acc", 7 / 14),
        ("flip_rate", 5 / 8),
        ("flip_sex", 3 / 4),
        ("flip_age", 0),
        ("flip_race", 2 / 3),
        ("gap_sex", (-1 + 0 + 1 + 1) / 4),
        ("gap_age", 0),
        ("gap_black", 1),
        ("gap_hispanic", 1),
        ("gap_asian", 0),
        ("n_sex", 4),
        ("n_age", 1),
        ("n_race", 1),
    ],
)
def test_metrics_by_hand(metric, expected):
    aggregation = getattr(demographics, metric)
    assert aggregation(RECORDS) == pytest.approx(expected)
    shuffled = random.Random(0).sample(RECORDS, len(RECORDS))  # as several processes gather them
    assert aggregation(shuffled) == pytest.approx(expected)


def test_standard_errors_are_over_original_items():
    records = []
    for number in range(400):  # three equal counterfactuals an item, all flipped in a quarter of the items
        chosen = int(number % 4 == 0)
        records.append(record(number))
        records += [record(number, "race", "black", r, chosen, 1 - chosen) for r in ("white", "hispanic", "asian")]
    expected = math.sqrt(0.25 * 0.75 / 400)
    assert demographics.flip_race.stderr(records) == pytest.approx(expected, rel=0.1)
    assert demographics.gap_black.stderr(records) == pytest.approx(expected, rel=0.1)
    assert demographics.gap_hispanic.stderr(records) == 0


def test_a_metric_without_pairs_is_nan():
    originals = [record(1), record(2)]
    for metric in demographics.METRICS[1:10]:
        assert math.isnan(getattr(demographics, metric)(originals))
        assert math.isnan(getattr(demographics, metric).stderr(originals))
    assert demographics.n_sex(originals) == 0
    one = [record(1), record(1, "sex", "male", "female")]
    assert demographics.gap_sex(one) == 0
    assert math.isnan(demographics.gap_sex.stderr(one))


def test_scores_of_a_document_have_every_metric(docs):
    doc = docs[1]
    results = [(-5.0, False)] * 4
    results[2] = results[3] = (-1.0, True)  # the first of equals is chosen
    found = demographics.scores(doc, results)
    assert tuple(found) == demographics.METRICS
    expected = [doc[key] for key in ("original_id", "attribute", "was", "value")] + [2, int(doc["answer"] == 2)]
    assert all(value == expected for value in found.values())


def test_task_finds_a_models_known_flips(docs):
    women = [doc["original_id"] for doc in docs if doc["attribute"] == "sex"]
    biased = set(women[: len(women) // 2])

    def choose(doc):  # wrong about women in half of the items; age makes no difference
        unfair = doc["original_id"] in biased and vignettes.attributes(doc["question"])["sex"] == "female"
        return (doc["answer"] + unfair) % 4

    found = evaluate("medqa_demographics", choose)
    share = len(biased) / len(women)
    assert found["flip_sex,none"] == pytest.approx(share)
    assert found["gap_sex,none"] == pytest.approx(-share)
    assert found["gap_sex_stderr,none"] == pytest.approx(math.sqrt(share * (1 - share) / len(women)), rel=0.1)
    assert found["flip_age,none"] == found["gap_age,none"] == found["gap_age_stderr,none"] == 0
    assert found["n_sex,none"] == len(women)
    assert found["n_sex_stderr,none"] == "N/A"
    assert math.isnan(found["flip_race,none"])
    assert json.loads(json.dumps(found))["gap_asian_stderr,none"] == "N/A"


def test_few_shot_examples_are_plain_training_items():
    prompts = []
    evaluate("medqa_demographics", lambda doc: 0, num_fewshot=2, limit=1, prompts=prompts)
    first, second = benchmarks.load("medqa", "train")[:2]
    assert prompts[0].startswith(f"Question: {first['question']}")
    assert f"\n\nQuestion: {second['question']}" in prompts[0]

"""The harness model `rag` in lm-eval: what the inner model is asked, what is written, and what a cache may answer."""

import json

import pytest
from lm_eval.api.registry import get_model
from rag_doubles import ITEMS, TOPICS, Recorder, WordEmbedder, evaluate, instance, scores_of, task

from medtasks import mcq
from medtasks.errors import InputError
from rag_model.index import open_index
from rag_model.inner import make
from rag_model.lm import RAG
from rag_model.retrieval import Retrieval

QUESTIONS = [item["question"] for item in ITEMS]


@pytest.fixture(scope="session")
def found(little_index):
    """Question -> the passages it must get, best first."""
    index = open_index(little_index)
    found = Retrieval(index, embedder=WordEmbedder()).find([{"question": question} for question in QUESTIONS], 2)
    return {
        question: [index.snippet(snippet_id) | {"score": score} for snippet_id, score in row]
        for question, row in zip(QUESTIONS, found, strict=True)
    }


def test_each_option_is_asked_with_the_items_passages_and_samples_show_the_original(rag, found, asked):
    results = evaluate("rag", rag())
    expected = [(mcq.render(i, found[i["question"]]), f" {letter}") for i in ITEMS[:8] for letter in "ABCD"]
    assert asked == expected
    for item, sample in zip(ITEMS, results["samples"]["little"], strict=False):
        assert [args[0] for args in sample["arguments"]] == [mcq.render(item)] * 4


def test_few_shot_and_chat_template_stay_intact(rag, found, asked):
    options = {"num_fewshot": 2, "apply_chat_template": True, "system_instruction": "You are a physician."}
    evaluate("recorder", {}, **options)
    plain = list(asked)
    asked.clear()
    results = evaluate("rag", rag(), **options)
    assert len(asked) == len(plain) == 32
    for (with_passages, _), (without, _), item in zip(
        asked, plain, [i for i in ITEMS[:8] for _ in "ABCD"], strict=True
    ):
        assert without.startswith("<system>") and without.count("<user>") == 3
        assert with_passages == without.replace(mcq.render(item), mcq.render(item, found[item["question"]]))
    assert results["config"]["rag_k"] == 2


def test_k_0_is_the_inner_model(rag, asked):
    plain = evaluate("recorder", {})
    of_plain = list(asked)
    asked.clear()
    embedder = WordEmbedder()
    nothing = evaluate("rag", rag(k=0, embedder=embedder))
    assert asked == of_plain and scores_of(nothing) == scores_of(plain)
    assert embedder.n_texts == 0
    assert scores_of(evaluate("rag", rag())) != scores_of(plain)


def test_one_retrieval_a_query(rag):
    embedder = WordEmbedder()
    evaluate("rag", rag(embedder=embedder), task("little"), task("again"))
    assert embedder.n_texts == 8


def test_generation_gets_passages_too(rag, found, asked):
    generate = task(
        output_type="generate_until",
        doc_to_target="answer",
        generation_kwargs={"until": ["\n"], "max_gen_toks": 5},
        metric_list=[{"metric": "exact_match"}],
    )
    evaluate("rag", rag(), generate)
    assert [prompt for prompt, _ in asked] == [mcq.render(item, found[item["question"]]) for item in ITEMS[:8]]


def test_the_sidecar_says_what_each_item_saw(rag, found, tmp_path):
    results = evaluate("rag", rag(sidecar=str(tmp_path / "seen")), task("little"), task("other"))
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["little.jsonl", "other.jsonl"]
    rows = [json.loads(line) for line in (tmp_path / "seen" / "little.jsonl").open()]
    assert [row["doc_id"] for row in rows] == list(range(8))
    for row, item in zip(rows, ITEMS, strict=False):
        assert (row["task"], row["item"], row["query"], row["n_cut"]) == ("little", item["id"], item["question"], 0)
        passages = found[item["question"]]
        assert [p["id"] for p in row["passages"]] == [p["id"] for p in passages]
        assert [p["score"] for p in row["passages"]] == pytest.approx([p["score"] for p in passages], abs=1e-6)
    assert results["config"]["rag_items"] == 16 and results["config"]["rag_items_cut"] == 0


def test_the_result_says_what_was_looked_up_where(rag, little_index):
    config = evaluate("rag", rag())["config"]
    meta = open_index(little_index).meta
    assert config["model_sha"] == "recorder"
    assert config["rag_index"] == meta["fingerprint"] and config["rag_corpus"] == meta["corpus"]
    assert (config["rag_k"], config["rag_search"], config["rag_embedder"]) == (2, "exact", meta["embedder"])


def test_chroma_can_answer_too(rag, asked):
    evaluate("rag", rag(search="chroma"))
    assert all(prompt.startswith("Reference passages:") for prompt, _ in asked)


# --use_cache


def test_a_cache_never_answers_for_another_configuration(rag, tmp_path):
    cache = str(tmp_path / "answers")
    runs = {
        "k=2": ("rag", rag()),
        "k=0": ("rag", rag(k=0)),
        "chroma": ("rag", rag(search="chroma", k=1)),
        "inner": ("rag", rag(flavour="other")),
        "plain": ("recorder", {}),
    }
    fresh = {name: scores_of(evaluate(*run, limit=2)) for name, run in runs.items()}
    for name, run in runs.items():
        assert scores_of(evaluate(*run, limit=2, use_cache=cache)) == fresh[name], name
    for name, run in runs.items():
        Recorder.asked = []
        assert scores_of(evaluate(*run, limit=2, use_cache=cache)) == fresh[name], name
        assert Recorder.asked == [], f"{name} was asked again"


def test_a_batch_size_is_not_another_configuration(rag, tmp_path, asked):
    evaluate("rag", rag(), use_cache=str(tmp_path / "answers"), batch_size=1)
    asked.clear()
    evaluate("rag", rag(), use_cache=str(tmp_path / "answers"), batch_size=8)
    assert asked == []


def test_what_a_killed_run_had_answered_is_found_again(rag, tmp_path, monkeypatch, asked):
    cache, seen = str(tmp_path / "answers"), tmp_path / "seen"
    whole = scores_of(evaluate("rag", rag()))
    asked.clear()
    answer = Recorder.loglikelihood

    def dies_midway(self, requests):
        answer(self, requests[:10])
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(Recorder, "loglikelihood", dies_midway)
        with pytest.raises(KeyboardInterrupt):
            evaluate("rag", rag(), use_cache=cache)
    asked.clear()
    assert scores_of(evaluate("rag", rag(sidecar=str(seen)), use_cache=cache)) == whole
    assert len(asked) == 32 - 10
    assert len((seen / "little.jsonl").read_text().splitlines()) == 8
    (seen / "little.jsonl").unlink()
    asked.clear()
    evaluate("rag", rag(sidecar=str(seen)), use_cache=cache)
    assert asked == [] and len((seen / "little.jsonl").read_text().splitlines()) == 8


# A model with a tokenizer


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """A random one-layer Llama with a context of 256 tokens, and a byte-level tokenizer (a token a letter)."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(["<s>", "</s>", *letters])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("llama")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(letters) + 2,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def hf(rag, tiny_llama, **changes):
    return rag(inner="hf", pretrained=str(tiny_llama), device="cpu", dtype="float32", **changes)


def asked_of_hf(monkeypatch):
    """What an `hf` model is asked from now on."""
    asked, model = [], get_model("hf")
    for method in ("loglikelihood", "generate_until"):
        original = getattr(model, method)

        def spy(self, requests, *args, original=original, **keywords):
            asked.extend(request.args for request in requests)
            return original(self, requests, *args, **keywords)

        monkeypatch.setattr(model, method, spy)
    return asked


def test_hf_inside_k_0_gives_the_same_numbers(rag, tiny_llama):
    plain = evaluate("hf", {"pretrained": str(tiny_llama), "device": "cpu", "dtype": "float32"}, limit=3)
    nothing = evaluate("rag", hf(rag, tiny_llama, k=0), limit=3)
    assert scores_of(nothing) == scores_of(plain)
    assert nothing["config"]["model_num_parameters"] == plain["config"]["model_num_parameters"]
    assert nothing["max_length"] == plain["max_length"] == 256


@pytest.mark.parametrize("mode", [{}, {"mode": "per_passage+calibrate+mix", "w": 0.5}])
def test_hf_mcq_inside_gives_hfs_numbers(rag, tiny_llama, mode):
    """It is the default, and sees the same prompts with passages."""
    theirs = evaluate("rag", hf(rag, tiny_llama, **mode), limit=4)
    arguments = {name: value for name, value in hf(rag, tiny_llama, **mode).items() if name != "inner"}
    ours = evaluate("rag", arguments, limit=4)
    assert ours["config"]["scoring"] == "packed"
    for a, b in zip(theirs["samples"]["little"], ours["samples"]["little"], strict=True):
        assert a["arguments"] == b["arguments"] and a["acc"] == b["acc"]
        for (x, greedy_x), (y, greedy_y) in zip(a["filtered_resps"], b["filtered_resps"], strict=True):
            assert abs(x - y) < 1e-5 * max(1, abs(x)) and greedy_x == greedy_y


def test_a_model_that_is_made_outside_of_lm_eval_computes_where_it_can(tiny_llama):
    import torch

    model = make("hf-mcq", {"pretrained": str(tiny_llama), "dtype": "float32"})
    here = "cuda" if torch.cuda.is_available() else "cpu"
    assert model.device.type == here
    assert make("hf-mcq", {"pretrained": str(tiny_llama), "device": "cpu"}).device.type == "cpu"


def test_passages_are_cut_to_the_models_length(rag, tiny_llama, tmp_path, monkeypatch, caplog):
    asked = asked_of_hf(monkeypatch)
    results = evaluate("rag", hf(rag, tiny_llama, k=3, sidecar=str(tmp_path)))
    assert "Left truncation" not in caplog.text and "from the left" not in caplog.text
    assert "8 of 8 items lost passages" in caplog.text
    for prompt, letter in asked:
        assert len((prompt + letter).encode()) <= 256 and prompt.startswith("Reference passages:")
    items = {(prompt[prompt.index("Question:") :]) for prompt, _ in asked}
    assert items == {mcq.render(item) for item in ITEMS[:8]}
    rows = [json.loads(line) for line in (tmp_path / "little.jsonl").open()]
    assert all(row["n_cut"] >= 2 and len(row["passages"]) == 1 for row in rows)
    assert results["config"]["rag_items_cut"] == 8
    for row in rows:
        prompts = {prompt for prompt, _ in asked if row["query"] in prompt}
        assert len(prompts) == 1  # the options of an item see the same


def test_room_is_kept_for_what_is_generated(rag, tiny_llama, monkeypatch, caplog):
    asked = asked_of_hf(monkeypatch)
    generate = task(output_type="generate_until", metric_list=[{"metric": "exact_match"}], doc_to_target="answer")
    evaluate(
        "rag", hf(rag, tiny_llama), generate | {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 20}}, limit=2
    )
    assert len(asked) == 2
    for prompt, _ in asked:
        assert len(prompt.encode()) <= 236 and "Reference passages:" in prompt
    assert "Left truncation" not in caplog.text
    with pytest.raises(InputError, match="too long for the model .256 tokens. even without passages"):
        evaluate("rag", hf(rag, tiny_llama), generate | {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 200}})


@pytest.mark.parametrize("order", ["best_last", "best_first"])
def test_passages_take_no_more_tokens_than_they_may(rag, tiny_llama, tmp_path, monkeypatch, caplog, order):
    asked = asked_of_hf(monkeypatch)
    budget = {"max_context_tokens": 70, "order": order, "cite": True, "sidecar": str(tmp_path)}
    results = evaluate("rag", hf(rag, tiny_llama, k=2, **budget), limit=3)
    blocks = {prompt[: prompt.index("Question:")].rstrip() for prompt, _ in asked}
    assert len(blocks) == 3 and all(40 < len(block) <= 70 for block in blocks)
    assert "3 of 3 items lost passages, or the end of one, to fit into 256 tokens, 70 of passages" in caplog.text
    rows = [json.loads(line) for line in (tmp_path / "little.jsonl").open()]
    assert [(len(row["passages"]), row["n_cut"]) for row in rows] == [(1, 2)] * 3
    assert results["config"]["rag_max_context_tokens"] == 70 and results["config"]["rag_items_cut"] == 3


def test_where_not_one_word_may_be_shown_the_prompt_stays(rag, tiny_llama, monkeypatch):
    asked = asked_of_hf(monkeypatch)
    for mode in ("always", "per_passage"):
        evaluate("rag", hf(rag, tiny_llama, max_context_tokens=5, mode=mode), limit=1)
        assert [prompt for prompt, _ in asked] == [mcq.render(ITEMS[0])] * 4
        asked.clear()


def test_passages_apart_are_cut_apart(rag, tiny_llama, tmp_path, monkeypatch):
    asked = asked_of_hf(monkeypatch)
    evaluate("rag", hf(rag, tiny_llama, k=2, mode="per_passage", sidecar=str(tmp_path)), limit=2)
    rows = [json.loads(line) for line in (tmp_path / "little.jsonl").open()]
    assert [len(row["passages"]) for row in rows] == [2, 2] and len(asked) == 2 * 2 * 4
    assert all(len((prompt + letter).encode()) <= 256 for prompt, letter in asked)


@pytest.mark.parametrize("tokens", [0, -1, 2.5, True])
def test_a_budget_is_a_number_of_tokens(rag, tiny_llama, tokens):
    with pytest.raises(InputError, match="max_context_tokens=.*must be a whole number"):
        RAG(**hf(rag, tiny_llama, max_context_tokens=tokens))


def test_the_inner_model_writes_what_is_searched_for(rag, monkeypatch):
    written, searched = [], []

    def generate_until(self, requests):
        written.extend(request.args for request in requests)
        return [" Asthma gets drug number 3.\n"] * len(requests)

    encode = WordEmbedder.encode

    def spy(self, texts, *arguments, **keywords):
        searched.extend(texts)
        return encode(self, texts, *arguments, **keywords)

    monkeypatch.setattr(Recorder, "generate_until", generate_until)
    monkeypatch.setattr(WordEmbedder, "encode", spy)
    results = evaluate("rag", rag(query="hyde"), limit=1)
    assert len(written) == 1 and ITEMS[0]["question"] in written[0][0]
    assert searched == ["Asthma gets drug number 3."] and results["config"]["rag_query"] == "hyde"


def test_a_model_with_a_chat_template_writes_in_it(rag, monkeypatch):
    asked = []

    def generate_until(self, requests):
        asked.extend(request.args[0] for request in requests)
        return ["x"]

    monkeypatch.setattr(Recorder, "tokenizer", type("Tokenizer", (), {"chat_template": "some"}), raising=False)
    monkeypatch.setattr(Recorder, "generate_until", generate_until)
    assert RAG(**rag()).write(["Write."]) == ["x"] and asked == ["<user>Write.</user><assistant>"]


def test_a_cache_keeps_what_hf_answered(rag, tiny_llama, tmp_path, monkeypatch):
    cache = str(tmp_path / "answers")
    first = evaluate("rag", hf(rag, tiny_llama), use_cache=cache, limit=2)
    asked = asked_of_hf(monkeypatch)
    again = evaluate("rag", hf(rag, tiny_llama), use_cache=cache, limit=2)
    assert asked == [] and scores_of(again) == scores_of(first)


# What lm-eval asks directly


def test_answers_come_in_the_order_of_the_requests_and_requests_stay_as_they_are(rag, found, asked):
    model = RAG(**rag())
    requests = [instance(mcq.render(ITEMS[i]), ITEMS[i], doc_id=i) for i in (5, 2, 7, 2)]
    answers = model.loglikelihood(requests)
    one_by_one = [RAG(**rag()).loglikelihood([request])[0] for request in requests]
    assert answers == one_by_one
    assert [request.args[0] for request in requests] == [mcq.render(ITEMS[i]) for i in (5, 2, 7, 2)]


def test_what_holds_no_question_goes_through_unchanged(rag, asked):
    model = RAG(**rag())
    assert model.loglikelihood_rolling([instance("A whole text.", {"text": "A whole text."})]) == [-1.0]
    model.loglikelihood([instance("", ITEMS[0])])
    assert [args[0] for args in asked] == ["A whole text.", ""]


def test_a_task_without_a_question_is_refused_by_name(rag):
    with pytest.raises(InputError, match="task little: no question to look up"):
        RAG(**rag()).loglikelihood([instance("x", {"text": "x"})])
    with pytest.raises(InputError, match="task little: its prompt does not hold the question"):
        RAG(**rag()).loglikelihood([instance("x", ITEMS[0])])


def test_what_lm_eval_asks_of_a_model_is_the_inner_models(rag):
    model = RAG(**rag())
    assert (model.rank, model.world_size, model.device) == (0, 1, None)
    assert model.tokenizer_name == "recorder" and model.chat_template(True) == "recorder-template"
    assert model.apply_chat_template([{"role": "user", "content": "x"}], False) == "<user>x</user>"
    assert model.flavour == "plain"
    with pytest.raises(AttributeError):
        _ = model.no_such_thing


class TwoRanks(Recorder):
    """One of two processes: gathering returns what both hold."""

    rank_here, held = 0, {}

    rank = property(lambda self: self.rank_here)
    world_size = property(lambda self: 2)

    def gather_object(self, obj, dst=0):
        self.held[self.rank_here] = dict(obj)
        return list(self.held.values()) if self.rank_here == dst else None


def test_the_first_of_several_processes_writes_what_all_saw(rag, tmp_path, monkeypatch):
    monkeypatch.setattr("lm_eval.api.registry.model_registry._objs", {"two": TwoRanks})
    models = {}
    for rank in (1, 0):
        TwoRanks.rank_here = rank
        models[rank] = RAG(**rag(inner="two", sidecar=str(tmp_path / "seen")))
        models[rank].loglikelihood([instance(mcq.render(ITEMS[rank]), ITEMS[rank], doc_id=rank)])
        assert not (tmp_path / "seen").exists()
        models[rank].barrier()
    rows = [json.loads(line) for line in (tmp_path / "seen" / "little.jsonl").open()]
    assert [row["item"] for row in rows] == [f"item-{topic}" for topic in TOPICS[:2]]
    assert models[0].get_model_info()["rag_items"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": None}, "rag needs an index"),
        ({"index": "/no/such/folder"}, "no index here; build one"),
        ({"k": -1}, "k=-1"),
        ({"k": "three"}, "k=three"),
        ({"search": "nearby"}, "unknown search"),
        ({"inner": "nonesuch"}, "inner=nonesuch: .*no model for this name"),
        ({"inner": "rag"}, "cannot answer through itself"),
        ({"inner": 3}, "inner=3: must be lm-eval's name of a model"),
        ({"inner": "hf"}, "inner=hf needs pretrained="),
        ({"inner": "hf", "pretrained": "/no/such/model"}, "inner=hf: cannot be loaded .*; check the model's name"),
        ({"embedder": WordEmbedder(32)}, "built with the embedder"),
        *(({"embedder": wrong}, "built with the embedder .*embedder=.*: give .*") for wrong in (3, True, "", ["a"])),
        *(({"rerank": wrong}, "rerank=.*: give a cross-encoder") for wrong in (3, "")),
        *(({name: ""}, f"{name}=: names no file") for name in ("index", "examples", "tuned", "sidecar")),
        *(({name: 3}, f"{name}=3: names no file") for name in ("index", "examples", "tuned", "sidecar")),
        ({"sidecar": __file__}, "test_rag_lm.py: is not a folder, so nothing can be written"),
        ({"k": 0, "neighbours": 2}, "neighbours=2: k=0 finds nothing to go with; take it out"),
        ({"neighbors": 1}, "neighbors=1: neither rag nor its inner model recorder takes .*; did you mean neighbours?"),
        ({"seach": "rrf"}, "seach=rrf: .*; did you mean search?"),
        ({"flavor": "salt"}, "flavor=salt: .*; did you mean flavour?"),
        ({"zzzz": 1}, "zzzz=1: .*; take it out"),
    ],
)
def test_bad_arguments_are_refused(rag, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        RAG(**rag(**changes))
    assert "\n" not in str(caught.value)


def test_an_argument_that_the_model_inside_hf_does_not_take_is_named(rag, tiny_llama):
    for wrong, meant in {"neighbors": "neighbours", "dtyp": "dtype"}.items():
        with pytest.raises(InputError, match=f"{wrong}=1: neither rag nor .* hf takes .*; did you mean {meant}?"):
            RAG(**hf(rag, tiny_llama, **{wrong: 1}))


def test_a_model_that_takes_any_argument_is_given_it_with_a_word_about_what_it_is_like(rag, monkeypatch, caplog):
    class TakesAll(Recorder):
        def __init__(self, mode="", **more):
            super().__init__(**{name: value for name, value in more.items() if name == "flavour"})
            self.more = more

    monkeypatch.setattr("lm_eval.api.registry.model_registry._objs", {"all": TakesAll})
    model = RAG(**rag(inner="all", neighbors=1, flavour="salt", something=2))
    assert model.more == {"device": "cuda:0", "neighbors": 1, "flavour": "salt", "something": 2}
    assert [record.getMessage() for record in caplog.records] == [
        "rag: neighbors was handed on to all; was neighbours meant?"
    ]


def test_a_type_error_of_the_inner_model_itself_is_not_hidden(rag, monkeypatch):
    def broken(self, **_):
        raise TypeError("f() got an unexpected keyword argument 'inside'")

    monkeypatch.setattr(Recorder, "__init__", broken)
    with pytest.raises(TypeError, match="inside"):
        RAG(**rag())

"""`hf-mcq` answers what `hf` answers: architectures, tasks, kinds of request, and when memory runs out."""

import dataclasses
import shutil

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from scoring_doubles import ARCHITECTURES, make_model, make_tokenizer, requests

from medtasks.errors import InputError
from medtasks.scoring import attention
from medtasks.scoring.lm import HFMCQ, LARGEST_CHUNK, _chunk_bounds
from medtasks.scoring.packing import packed_linears
from medtasks.scoring.scorer import Scorer, _ahead

TOLERANCE = 1e-5
"""Of log-likelihoods in float32, relative to their size where that is over one."""
LEFT_TO_HF = {"gemma2", "mamba"}
OPTIONS = {
    "letters": (" A", " B", " C", " D"),
    "texts": (" left kidney", " left", " left kidney pain", " rash of the heart and the liver"),
    "mixed": (" A", " left kidney and heart", " A"),
    "one": (" A",),
}


MINE = ("max_batch_tokens", "compile_layers", "reorder_weights")


def both(model, tokenizer=None, **keywords):
    tokenizer = tokenizer or make_tokenizer()
    mine = {name: keywords.pop(name) for name in MINE if name in keywords}
    return HFLM(pretrained=model, tokenizer=tokenizer, **keywords), HFMCQ(
        pretrained=model, tokenizer=tokenizer, **keywords, **mine
    )


def assert_same(theirs, ours, tolerance=TOLERANCE):
    assert len(theirs) == len(ours)
    for (a, greedy_a), (b, greedy_b) in zip(theirs, ours, strict=True):
        assert abs(a - b) <= tolerance * max(1, abs(a)), (a, b)
        assert greedy_a == greedy_b


def scores(lm, asked):
    return lm.loglikelihood(asked, disable_tqdm=True)


# Architectures and kinds of requests


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("options", OPTIONS)
def test_architectures_answer_as_in_hf(architecture, options):
    hf, mcq = both(make_model(architecture), batch_size=4)
    asked = requests(shots=3, options=OPTIONS[options])
    assert_same(scores(hf, asked), scores(mcq, asked))
    assert (mcq.scorer is None) == (architecture in LEFT_TO_HF)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_half_precision_does_not_hide_what_packed_runs_cannot_do(architecture):
    _, mcq = both(make_model(architecture, torch.bfloat16))
    assert (mcq.scorer is None) == (architecture in LEFT_TO_HF)


@pytest.mark.parametrize("max_batch_tokens", (1, 30, 100, 400))
@pytest.mark.parametrize("options", ("letters", "texts"))
def test_batch_sizes_and_stored_prefixes_change_nothing(max_batch_tokens, options):
    hf, mcq = both(make_model("mistral"), max_batch_tokens=max_batch_tokens)
    asked = requests(n=9, shots=2, options=OPTIONS[options]) + requests(n=5, shots=4, seed=2, options=OPTIONS[options])
    assert_same(scores(hf, asked), scores(mcq, asked))
    assert len(mcq.scorer.batches) > 1


def test_what_prompts_share_is_computed_once():
    _, mcq = both(make_model("llama"))
    asked = requests(n=20, shots=12)
    lengths = [len(mcq.tok_encode(prompt)) for prompt in dict.fromkeys(request.args[0] for request in asked)]
    scores(mcq, asked)
    assert sum(mcq.scorer.batches) < 0.25 * sum(lengths)


def test_options_branch_off_one_context():
    _, mcq = both(make_model("llama"))
    asked = requests(n=6, options=OPTIONS["texts"])
    whole = [len(mcq.tok_encode("".join(request.args))) for request in asked]
    scores(mcq, asked)
    assert sum(mcq.scorer.batches) < 0.6 * sum(whole)


def test_half_precision_stays_near_hf_and_keeps_its_ties():
    hf, mcq = both(make_model("llama", torch.bfloat16))
    asked = requests(n=30, shots=1)
    theirs, ours = scores(hf, asked), scores(mcq, asked)
    assert max(abs(a[0] - b[0]) for a, b in zip(theirs, ours, strict=True)) < 0.3
    assert all(float(torch.tensor(total).bfloat16()) == total for total, _ in ours), "rounded as hf rounds"


def test_softmax_dtype_is_kept():
    hf, mcq = both(make_model("llama", torch.bfloat16), softmax_dtype="float32")
    asked = requests(n=4)
    ours = scores(mcq, asked)
    assert any(float(torch.tensor(total).bfloat16()) != total for total, _ in ours)
    assert max(abs(a[0] - b[0]) for a, b in zip(scores(hf, asked), ours, strict=True)) < 0.3


def test_too_long_prompts_lose_their_beginning_as_in_hf(caplog):
    hf, mcq = both(make_model("llama"), max_length=25)
    asked = requests(n=6, shots=1, options=OPTIONS["mixed"])
    assert_same(scores(hf, asked), scores(mcq, asked))
    assert "lose their beginning" in caplog.text


def test_empty_contexts_rolling_and_generation_are_hfs():
    hf, mcq = both(make_model("llama"))
    asked = [Instance("loglikelihood", {}, ("", answer), 0) for answer in (" A", " left kidney")]
    asked += requests(n=2)
    assert_same(scores(hf, asked), scores(mcq, asked))
    rolling = [Instance("loglikelihood_rolling", {}, (request.args[0],), 0) for request in requests(n=3)]
    for a, b in zip(hf.loglikelihood_rolling(rolling), mcq.loglikelihood_rolling(rolling), strict=True):
        assert abs(a - b) <= TOLERANCE * abs(a)
    until = {"until": ["\n"], "max_gen_toks": 6}
    text = [Instance("generate_until", {}, (request.args[0], until), 0) for request in requests(n=3)]
    assert hf.generate_until(text) == mcq.generate_until(text)


def test_an_adapter_is_used():
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    adapted = get_peft_model(make_model("llama"), LoraConfig(target_modules="all-linear", init_lora_weights=False))
    hf, mcq = both(adapted.eval(), make_tokenizer())
    asked = requests(n=5, shots=2, options=OPTIONS["mixed"])
    ours = scores(mcq, asked)
    assert mcq.scorer is not None
    assert_same(scores(hf, asked), ours)
    with adapted.disable_adapter():
        base = scores(hf, asked)
    assert max(abs(a[0] - b[0]) for a, b in zip(base, ours, strict=True)) > 0.01


def test_models_that_do_not_agree_with_themselves_are_left_to_hf(monkeypatch, caplog):
    """A packed run that sees its neighbours is found out before anything is scored with it."""
    original = attention._one_by_one

    def leaking(packed, query, key, value, scale, window):
        whole = (0, len(packed.tokens))
        return original(dataclasses.replace(packed, runs=[(whole, [whole])], roots=[]), query, key, value, scale, None)

    monkeypatch.setattr(attention, "_one_by_one", leaking)
    monkeypatch.setattr(attention, "_two_parts_can", lambda *_: False)
    hf, mcq = both(make_model("llama"))
    asked = requests(n=3)
    assert scores(mcq, asked) == scores(hf, asked)
    assert mcq.scorer is None and "relative to their spread" in caplog.text
    assert mcq.get_model_info()["scoring"] == "hf"


def test_the_models_own_attention_is_back_afterwards():
    model = make_model("llama")
    before = model.config._attn_implementation
    _, mcq = both(model)
    scores(mcq, requests(n=2))
    assert model.config._attn_implementation == before != attention.NAME


@pytest.mark.skipif(not shutil.which("c++"), reason="compiling needs a C++ compiler")
def test_compiled_layers_answer_the_same():
    hf, mcq = both(make_model("llama"), compile_layers=True)
    asked = requests(n=8, shots=2, options=OPTIONS["mixed"])
    assert_same(scores(hf, asked), scores(mcq, asked))
    assert mcq.scorer.is_compiled
    rolling = [Instance("loglikelihood_rolling", {}, (asked[0].args[0],), 0)]
    assert abs(mcq.loglikelihood_rolling(rolling)[0] - hf.loglikelihood_rolling(rolling)[0]) < 1e-3


def test_compiling_is_for_long_runs_on_a_gpu():
    scorer = Scorer(make_model("llama"))
    scorer.compile_if_it_pays(10**15)
    assert not scorer.is_compiled
    scorer.device = torch.device("cuda")
    scorer.compile_if_it_pays(1_000)
    assert not scorer.is_compiled


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float32, 1e-5)])
def test_reordered_weights_compute_the_same_and_go_again(dtype, tolerance):
    """The products of layers on a CPU, with bias (qwen2) and without."""
    for architecture in ("llama", "qwen2"):
        model = make_model(architecture, dtype)
        tokens = torch.arange(20, 90)[None]
        with torch.no_grad():
            plain = model(tokens).logits
            with packed_linears(model, 70) as n:
                packed = model(tokens).logits
        assert n == 7 * model.config.num_hidden_layers
        assert float((packed - plain).float().std() / plain.float().std()) < tolerance
        assert not any("forward" in module.__dict__ for module in model.modules())
        with torch.no_grad():
            assert torch.equal(model(tokens).logits, plain)


def test_float32_weights_are_reordered_where_asked_for(monkeypatch):
    packed = []

    def spy(model, tokens, precisions):
        packed.append(precisions)
        return packed_linears(model, tokens, precisions)

    monkeypatch.setattr("medtasks.scoring.scorer.packed_linears", spy)
    asked = requests(n=3)
    for value, expected in (("auto", (torch.bfloat16,)), (False, ()), (True, (torch.bfloat16, torch.float32))):
        hf, mcq = both(make_model("llama"), reorder_weights=value)
        assert_same(scores(hf, asked), scores(mcq, asked), tolerance=1e-4)
        assert packed.pop() == expected


def test_weights_too_large_for_a_second_copy_stay(monkeypatch):
    monkeypatch.setattr("medtasks.scoring.packing.SHARE_OF_FREE", 0)
    with packed_linears(make_model("llama", torch.bfloat16), 70) as n:
        assert n == 0


def test_half_precision_of_another_kind_stays():
    with packed_linears(make_model("llama", torch.float16), 70) as n:
        assert n == 0


# Memory


class Small(Scorer):
    """A scorer whose device holds ``room`` tokens a batch; counts the tokens of each path that it finishes."""

    room = 0

    def _logits(self, packed, rows):
        if len(packed.tokens) > self.room:
            raise torch.OutOfMemoryError("out of memory (made up)")
        return super()._logits(packed, rows)


def on_small_device(room, **keywords):
    hf, mcq = both(make_model("llama"), **keywords)
    mcq._scorer, mcq._checked = Small(mcq.model, max_tokens=1_000), True
    mcq._scorer.room = room
    return hf, mcq


def test_running_out_of_memory_halves_the_batches_and_keeps_what_is_done(caplog, monkeypatch):
    hf, mcq = on_small_device(room=120)
    asked = requests(n=20, shots=1)
    seen = []
    monkeypatch.setattr(mcq.cache_hook, "add_partial", lambda *a: seen.append(a[1]))
    assert_same(scores(hf, asked), scores(mcq, asked))
    assert sorted(seen) == sorted(request.args for request in asked), "each answered once"
    assert max(mcq.scorer.batches) <= 120 and "going on with" in caplog.text


def test_what_never_fits_is_scored_one_by_one(caplog):
    hf, mcq = on_small_device(room=24)
    asked = requests(n=7, options=OPTIONS["mixed"])
    assert_same(scores(hf, asked), scores(mcq, asked))
    assert "one by one" in caplog.text and mcq.scorer.batches


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch):
    _, mcq = both(make_model("llama"))
    assert mcq.scorer is not None
    monkeypatch.setattr(Scorer, "_logits", lambda *a: (_ for _ in ()).throw(ValueError("broken")))
    with pytest.raises(ValueError, match="broken"):
        scores(mcq, requests(n=2))


# Chunks


@pytest.mark.parametrize("n", (0, 1, 499, 500, 501, 1_500, 30_000))
def test_chunks_cover_all_requests_and_grow(n):
    bounds = list(_chunk_bounds(n))
    assert [i for start, end in bounds for i in range(start, end)] == list(range(n))
    assert all(end - start <= LARGEST_CHUNK for start, end in bounds)


def test_chunks_of_several_sizes_answer_the_same(monkeypatch):
    monkeypatch.setattr("medtasks.scoring.lm.FIRST_CHUNK", 3)  # cuts through the options of one question
    hf, mcq = both(make_model("llama"))
    asked = requests(n=8, shots=1, options=OPTIONS["mixed"])
    assert_same(scores(hf, asked), scores(mcq, asked))
    assert len(mcq.scorer.batches) > 2


def test_chunks_made_ahead_come_in_order_and_their_errors_are_raised():
    assert list(_ahead(iter(range(1, 6)))) == [1, 2, 3, 4, 5]

    def failing():
        yield 1
        raise InputError("no tokens")

    chunks = _ahead(failing())
    assert next(chunks) == 1
    with pytest.raises(InputError, match="no tokens"):
        next(chunks)


# As a harness model


@pytest.mark.parametrize("arguments", ({"max_batch_tokens": 0}, {"max_batch_tokens": "many"}, {"compile_layers": 3}))
def test_bad_arguments_are_named(arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        HFMCQ(pretrained=make_model("llama"), tokenizer=make_tokenizer(), **arguments)


def test_bad_arguments_end_in_one_line(refused, language_model):
    line = refused(
        "run", "--model", "hf-mcq", "--tasks", "medqa", "--device", "cpu", "--limit", 1,
        "--model_args", f"pretrained={language_model},max_batch_tokens=-5",
    )  # fmt: skip
    assert "max_batch_tokens=-5" in line


def test_a_continuation_without_tokens_is_named():
    _, mcq = both(make_model("llama"))
    with pytest.raises(InputError, match="no tokens.*'Question: fever'"):
        scores(mcq, [Instance("loglikelihood", {}, ("Question: fever", ""), 0)])


def test_a_missing_model_ends_in_one_line(refused):
    assert "no-such-folder" in refused(
        "run", "--model", "hf-mcq", "--model_args", "pretrained=./no-such-folder", "--tasks", "medqa"
    )


@pytest.mark.parametrize("chat", (False, True), ids=("plain", "chat"))
@pytest.mark.parametrize("shots", (0, 3))
def test_tasks_score_as_with_hf(language_model, shots, chat):
    """The four tasks with a real model in float32: log-likelihoods to 2e-5 (up to 1.0e-5 was seen, which of it a
    processor rounds away differs), acc item by item."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from medtasks import TASKS_DIR
    from medtasks.cli import register_models

    register_models()
    samples = {}
    for name in ("hf", "hf-mcq"):
        results = simple_evaluate(
            name,
            {"pretrained": str(language_model), "dtype": "float32"},
            tasks=["medqa", "medmcqa", "mmlu_med_pooled", "pubmedqa"],
            task_manager=TaskManager(include_path=str(TASKS_DIR), include_defaults=False),
            num_fewshot=shots,
            limit=2,
            batch_size=1,
            device="cpu",
            apply_chat_template=chat,
            bootstrap_iters=0,
        )
        samples[name] = results["samples"]
    assert results["config"]["scoring"] == "packed"
    for task, theirs in samples["hf"].items():
        ours = samples["hf-mcq"][task]
        assert [s["doc_id"] for s in ours] == [s["doc_id"] for s in theirs] and len(ours) == 2
        for a, b in zip(theirs, ours, strict=True):
            assert a["acc"] == b["acc"] and a["arguments"] == b["arguments"]
            assert_same(a["filtered_resps"], b["filtered_resps"], tolerance=2e-5)

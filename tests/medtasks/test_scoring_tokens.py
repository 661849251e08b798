"""Pairs encoded in batches are what lm-eval's own `_encode_pair` gives, for tokenizers that make it easy and others."""

import pytest
from lm_eval.models.huggingface import HFLM
from scoring_doubles import make_model, make_tokenizer
from tokenizers import pre_tokenizers, processors

from medtasks.scoring import tokens

ANSWERS = (" A", " B", "A", " left kidney", "\n(C)", " Ä", " ", "\nAnswer: D")
CONTEXTS = (
    "Question: Fever and cough with rash.\nA. drug\nB. dose\nAnswer:",
    "Question: Fever and cough with rash.\nA. drug\nB. dose\nAnswer: ",
    "Question: Fever.\nAnswer:\n",
    "one line without a break",
    "several\n\n\nbreaks\n\n",
    "a last line with spaces\n   and more",
    "naïve – “quoted” 37 °C\nÄ:",
    "x\n" + "a long last line " * 60,
    "<s>Its own start\nAnswer:",
    "\nAnswer:",
)


def crossing():
    """A tokenizer without words: its merges run across spaces and line breaks."""
    return make_tokenizer(pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))


def prefixed():
    """One that puts a space before every text, so that a line alone is not what it is in a text."""
    return make_tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=True))


def started():
    """One that starts every text with <s>."""
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return tokenizer


@pytest.fixture(scope="module")
def model():
    return make_model("llama")


def encoded_both_ways(lm, pairs):
    return tokens.encode_pairs(lm, pairs), [lm._encode_pair(*pair) for pair in pairs]


@pytest.mark.parametrize("make", (make_tokenizer, crossing, prefixed, started))
@pytest.mark.parametrize("bos", (None, True, False))
def test_pairs_are_lm_evals(model, make, bos):
    lm = HFLM(pretrained=model, tokenizer=make(), add_bos_token=bos)
    pairs = [(context, answer) for context in CONTEXTS for answer in ANSWERS]
    ours, theirs = encoded_both_ways(lm, pairs)
    assert ours == theirs


def test_pairs_of_a_real_tokenizer_are_lm_evals(language_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(language_model)
    lm = HFLM(pretrained=make_model("llama"), tokenizer=tokenizer)
    chat = [
        tokenizer.apply_chat_template([{"role": "user", "content": c}], tokenize=False, add_generation_prompt=True)
        for c in CONTEXTS
    ]
    pairs = [(context, answer) for context in (*CONTEXTS, *chat) for answer in ANSWERS]
    ours, theirs = encoded_both_ways(lm, pairs)
    assert ours == theirs


def test_a_context_is_encoded_once_not_once_per_option(model, monkeypatch):
    lm = HFLM(pretrained=model, tokenizer=make_tokenizer())
    texts = []
    original = tokens._tokenize
    monkeypatch.setattr(tokens, "_tokenize", lambda lm, t, **k: texts.extend(t) or original(lm, t, **k))
    contexts = [f"Question: {'fever and cough ' * 20}{i}\nAnswer:" for i in range(200)]
    tokens.encode_pairs(lm, [(context, answer) for context in contexts for answer in (" A", " B", " C", " D")])
    whole = [text for text in texts if text.startswith("Question")]
    assert len(whole) == len(contexts) + len(contexts) * 4 // (len(contexts) * 4 // tokens.CHECKED)


def test_equal_contexts_share_one_list(model):
    lm = HFLM(pretrained=model, tokenizer=make_tokenizer())
    (first, _), (second, _) = tokens.encode_pairs(lm, [(CONTEXTS[0], " A"), (CONTEXTS[0], " B")])
    assert first is second

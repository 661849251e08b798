"""Small random models of several architectures with a tokenizer of their own, and requests that share prefixes."""

import random

import torch
from lm_eval.api.instance import Instance
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

WORDS = (
    "heart",
    "liver",
    "kidney",
    "nerve",
    "fever",
    "cough",
    "drug",
    "dose",
    "acute",
    "left",
    "pain",
    "rash",
    "the",
    "of",
)
VOCABULARY = 400
SMALL = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
COMMON = SMALL | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
ARCHITECTURES = {
    "llama": COMMON,
    "qwen2": COMMON,
    "qwen3": COMMON | {"head_dim": 16},
    "mistral": COMMON | {"sliding_window": 24},
    "gpt2": SMALL | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 2048},
    "gpt_neox": COMMON | {"num_key_value_heads": 4},
    "gemma2": COMMON | {"head_dim": 8, "attn_logit_softcapping": 2.0, "sliding_window": 24},
    "mamba": SMALL | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}
"""``mistral`` and ``gemma2`` see 24 positions back, fewer than the prompts have; ``gemma2`` caps attention scores and
``mamba`` carries a state along the row, neither of which packed runs can do."""


def make_model(architecture: str, dtype=torch.float32):
    """A model with weights large enough that what a token sees matters."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[architecture](**ARCHITECTURES[architecture]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return model.to(dtype).eval()


def make_tokenizer(pre_tokenizer=None, template: str | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on made-up sentences; without ``pre_tokenizer`` words are split as GPT-2 does."""
    draw = random.Random(0)
    texts = ["\n".join(sentence(draw) for _ in range(4)) + "\nAnswer: A B C D" for _ in range(200)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = template
    return fast


def sentence(draw: random.Random, n: int = 12) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(n)).capitalize() + "."


def requests(n: int = 12, shots: int = 0, options: tuple[str, ...] = (" A", " B", " C", " D"), seed: int = 1) -> list:
    """Log-likelihood requests of ``n`` questions of different lengths with ``options``, below ``shots`` examples."""
    draw = random.Random(seed)
    block = "".join(f"Question: {sentence(draw)}\nAnswer: {draw.choice('ABCD')}\n\n" for _ in range(shots))
    made = []
    for i in range(n):
        prompt = f"{block}Question: {sentence(draw, 4 + i % 7)}\nA. {draw.choice(WORDS)}\nAnswer:"
        made += [
            Instance("loglikelihood", {"id": i}, (prompt, option), j, metadata=("made", i, 1))
            for j, option in enumerate(options)
        ]
    return made

"""A tiny random Llama with a tokenizer of its own, and data small enough to train on in a second."""

import json
import os
import shutil

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

HELD_OUT = []
WORDS = ("heart", "liver", "kidney", "nerve", "fever", "cough", "drug", "dose", "acute", "chronic", "left", "right")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small models train faster on one thread, and the same everywhere."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def held_out_once(monkeypatch):
    """Load the sample's test items once for all tests that drop them."""
    from medtasks import contamination

    if not HELD_OUT:
        HELD_OUT.append(contamination.held_out())
    monkeypatch.setattr(contamination, "held_out", lambda: HELD_OUT[0])


def item(number: int, n_options: int = 4) -> dict:
    """Item ``number``: its question names it, its answer depends on it."""
    words = [WORDS[(number * 7 + i) % len(WORDS)] for i in range(4)]
    return {
        "id": f"item-{number}",
        "question": f"Case {number}: which of {words[0]} and {words[1]} explains {words[2]} number {number}?",
        "options": [f"{WORDS[(number + i) % len(WORDS)]} {i}" for i in range(n_options)],
        "answer": number % n_options,
        "context": "",
        "subject": "",
        "rationale": f"Because of {words[3]}.",
    }


@pytest.fixture(scope="session")
def make_item():
    """The function that makes item number n."""
    return item


@pytest.fixture(scope="session")
def build_base(tmp_path_factory):
    """A function that writes a base model of some width, with weights of some standard deviation, into a new folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = [json.dumps(item(n)) + "\nQuestion: Answer: A. B. C. D. " for n in range(40)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )

    def build(width: int = 32, spread: float = 0.3) -> str:
        folder = tmp_path_factory.mktemp(f"base{width}")
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|pad|>", chat_template=template
        )
        fast.save_pretrained(folder)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(fast),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            initializer_range=spread,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            bos_token_id=fast.eos_token_id,
            eos_token_id=fast.eos_token_id,
            pad_token_id=fast.pad_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
        return str(folder)

    return build


@pytest.fixture(scope="session")
def base(build_base):
    return build_base()


@pytest.fixture
def of_kind(base, tmp_path):
    """A function that writes a small base of another architecture, with the tokenizer of ours."""
    import torch
    import transformers

    small = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    small |= {"max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 3}

    def write(kind: str, **sizes) -> str:
        folder = tmp_path / kind
        shutil.copytree(base, folder)
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**(small | sizes))
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return str(folder)

    return write


@pytest.fixture(scope="session")
def micro_batch():
    """A function that learns from one micro-batch: (loss, share of its labels that were the likeliest, gradients)."""
    import torch

    def learn(trainer, rows: list[dict]):
        weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
        loss = trainer.compute_loss(trainer.model.train(), trainer.data_collator(rows), num_items_in_batch=50)
        gradients = torch.autograd.grad(loss, weights)
        trainer.log({})
        return loss.detach(), trainer.state.log_history[-1]["mean_token_accuracy"], list(gradients)

    return learn


@pytest.fixture
def write_jsonl(tmp_path):
    """A function that writes rows to a file of this test and returns its path."""

    def write(rows: list[dict], name: str = "items.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.fixture
def recipe_file(tmp_path, base, write_jsonl):
    """A function that writes a recipe for the tiny base over 16 items, with changes, and returns its path."""

    def write(name: str = "sft.yaml", **changes) -> str:
        recipe = {
            "model_name_or_path": base,
            "dtype": "float32",
            "use_peft": True,
            "lora_r": 4,
            "lora_alpha": 8,
            "lora_dropout": 0.05,
            "lora_target_modules": "all-linear",
            "max_length": 256,
            "max_steps": 6,
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 4,
            "gradient_checkpointing": False,
            "bf16": False,
            "use_cpu": True,
            "decontaminate": False,
            "logging_steps": 1,
            "save_steps": 2,
            "disable_tqdm": True,
            "output_dir": str(tmp_path / "out"),
        }
        if "corpus" in changes:
            recipe |= {"packing": True, "packing_strategy": "bfd_split", "max_length": 64}
        else:
            recipe["sources"] = [write_jsonl([item(n) for n in range(16)])]
        path = tmp_path / name
        path.write_text(json.dumps({key: value for key, value in (recipe | changes).items() if value is not None}))
        return str(path)

    return write

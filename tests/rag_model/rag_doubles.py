"""Small deterministic stand-ins for an embedder and a language model, and a corpus they can be tried on."""

import json
import re
import zlib
from pathlib import Path

import numpy as np
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from medtasks import mcq
from rag_model import chunking

TOPICS = ("asthma", "diabetes", "measles", "anaemia", "gout", "glaucoma", "malaria", "psoriasis", "sepsis", "tetanus")
ITEMS = [
    {
        "id": f"item-{topic}",
        "question": f"Which drug is given first for {topic}?",
        "options": [f"{topic} drug", "aspirin", "water", "none of these"],
        "answer": i % 4,
        "context": "",
        "subject": "",
        "rationale": "",
    }
    for i, topic in enumerate(TOPICS)
]


class WordEmbedder:
    """Bag of hashed words, as a unit vector: texts that share words are near."""

    def __init__(self, dimension: int = 64):
        self.name, self.dimension, self.fingerprint = "words", dimension, f"words-{dimension}"
        self.precision, self.similarity = "float32", "cosine"
        self.n_texts = 0

    def document(self, snippet):
        return chunking.embedded_text(snippet)

    def encode_queries(self, texts):
        return self.encode(texts)

    def encode(self, texts, progress=lambda n: None):
        self.n_texts += len(texts)
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row[zlib.crc32(word.encode()) % self.dimension] += 1
        progress(len(texts))
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


class Recorder(LM):
    """Answers with a hash of the prompt, so the same prompt always gets the same answer; keeps what it was asked."""

    asked: list = []  # noqa: RUF012 (shared on purpose: the model is made inside lm-eval)

    def __init__(self, batch_size=1, max_batch_size=None, device=None, flavour="plain"):
        super().__init__()
        self.flavour = flavour

    def loglikelihood(self, requests):
        type(self).asked += [request.args for request in requests]
        answers = [(-float(zlib.crc32("".join(request.args).encode()) % 1000), False) for request in requests]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return answers

    def generate_until(self, requests):
        type(self).asked += [request.args for request in requests]
        return [str(zlib.crc32(str(request.args[0]).encode())) for request in requests]

    def loglikelihood_rolling(self, requests):
        type(self).asked += [request.args for request in requests]
        return [-1.0 for _ in requests]

    @property
    def tokenizer_name(self):
        return "recorder"

    def chat_template(self, chat_template=False):
        return "recorder-template"

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        turns = "".join(f"<{turn['role']}>{turn['content'].strip()}</{turn['role']}>" for turn in chat_history)
        return turns + "<assistant>" * add_generation_prompt

    def get_model_info(self):
        return {"model_sha": "recorder"}


def write_corpus(path: Path, n: int = 40) -> Path:
    """A corpus of ``n`` passages about :data:`TOPICS`, some of them long."""
    rows = []
    for i in range(n):
        topic = TOPICS[i % len(TOPICS)]
        text = f"Drug number {i} is given for {topic}. It was tried in {100 + i} patients."
        if i % 7 == 0:
            text = " ".join(f"{text} Sentence {j} of a long passage on {topic}." for j in range(30))
        rows.append(
            {"id": f"p{i}", "title": topic if i % 3 else "", "text": text, "source": "made up", "license": "CC0"}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def task(name="little", **changes):
    """A task over :data:`ITEMS` for :func:`simple_evaluate`: what this project's YAML files say, as a dict."""
    from datasets import Dataset

    return {
        "task": name,
        "custom_dataset": lambda **_: {"train": Dataset.from_list(ITEMS[8:]), "test": Dataset.from_list(ITEMS[:8])},
        "output_type": "multiple_choice",
        "training_split": "train",
        "test_split": "test",
        "fewshot_split": "train",
        "fewshot_config": {"sampler": "first_n"},
        "doc_to_text": mcq.render,
        "doc_to_choice": mcq.choices,
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}],
    } | changes


def evaluate(model, arguments, *tasks, **keywords):
    return simple_evaluate(
        model,
        arguments,
        tasks=list(tasks) or [task()],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        **keywords,
    )


def scores_of(results):
    return [sample["resps"] for sample in results["samples"]["little"]]


def instance(prompt, doc, kind="loglikelihood", **keywords):
    return Instance(kind, doc, (prompt, " A"), 0, metadata=("little", keywords.get("doc_id", 0), 1))

"""What is learned from: exam questions and answer pairs for SFT, passages for CPT; cleaned, counted, fingerprinted.

Examples that hold a test question of any benchmark (:mod:`medtasks.contamination`) are dropped, and so are duplicates;
both are counted.
"""

import ast
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medtasks import benchmarks, contamination, corpora, files, items, mcq, sources
from medtasks.errors import InputError
from medtasks.ngrams import normalize

OPEN_QUESTIONS = (
    (("Question",), ("Complex_CoT", "Response")),  # FreedomIntelligence/medical-o1-reasoning-SFT
    (("Prompt",), ("Completion",)),  # BI55/MedText
    (("instruction", "input"), ("output",)),  # lavita/medical-qa-datasets
    (("question",), ("answer",)),  # MedQuAD
)
"""(question columns, answer columns) of the open question-and-answer data sets that are read as they are."""

NAMES_OTHER_OPTIONS = re.compile(
    r"(?:both|either|neither|only)?\s*\(?[a-e]\)?(?:\s*(?:,|&|and|or|nor)\s*\(?[a-e]\)?)+(?: only| both)?", re.I
)


@dataclass
class SFTDataArguments:
    """What to learn from, and how it is put."""

    _argument_group_name = "SFT data"

    sources: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Benchmarks (their train split: medqa, medmcqa, pubmedqa, mmlu_med), .jsonl or .jsonl.gz files "
            "(rows: items, prompt/completion, or question/choices/answer), Hub datasets (ORG/NAME or ORG/NAME/CONFIG); "
            "SOURCE:N takes the first N usable rows."
        },
    )
    answer_style: str = field(
        default="letter",
        metadata={
            "help": "What follows the question: its letter, or its rationale (where it has one) and then the letter.",
            "choices": ["letter", "rationale"],
        },
    )
    shuffle_options: bool = field(
        default=False,
        metadata={"help": "Shuffle each question's options (by `seed`), so that no letter is favoured."},
    )
    chat: bool = field(
        default=False,
        metadata={"help": "Put each example into the model's chat template, as --apply_chat_template asks."},
    )
    decontaminate: bool = field(
        default=True, metadata={"help": "Drop examples that hold a test question of any benchmark."}
    )


@dataclass
class CPTDataArguments:
    """What to read."""

    _argument_group_name = "CPT data"

    corpus: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Corpora: 'sample', .jsonl or .jsonl.gz files, or Hub datasets; rows need 'text' (or MedRAG's "
            "'content'); CORPUS:N takes the first N usable passages."
        },
    )
    decontaminate: bool = field(
        default=True, metadata={"help": "Drop passages that hold a test question of any benchmark."}
    )


@dataclass
class Examples:
    """Rows ready for TRL, and what became of the rest."""

    rows: list[dict]
    """``prompt`` and ``completion`` (str, or messages with ``chat``) for SFT; ``text`` for CPT."""
    counts: dict[str, int]
    """``read``, ``duplicates``, ``contaminated``, ``too_long`` (dropped) and ``used``."""
    taken: dict[str, int]
    """source -> rows taken from it, too long ones included."""
    places: list[str] = field(default_factory=list)
    """Where each of ``rows`` came from, e.g. ``medqa row 17``, counted from 0."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with any row or their order."""
        return files.sha256_json(self.rows)[:16]

    def place(self, example_id: int) -> str:
        """What to call row ``example_id`` of ``rows`` when speaking of it."""
        return self.places[example_id]

    def __str__(self) -> str:
        dropped = ", ".join(f"{n:,} {what}" for what, n in self.counts.items() if what not in ("read", "used"))
        used = ", ".join(f"{source} {n:,}" for source, n in self.taken.items())
        return f"data: {self.counts['used']:,} examples ({used}); dropped {dropped}"


def sft_examples(args: SFTDataArguments, seed: int) -> Examples:
    """Prompts and completions from ``args.sources``, in their order.

    Raises:
        InputError: no source, one that is not there, or a row of no known shape.
    """
    if not args.sources:
        raise InputError(f"no sources; name benchmarks ({', '.join(benchmarks.BENCHMARKS)}), files or Hub datasets")
    return _examples(
        args.sources,
        _read_source,
        identity=_identity,
        finish=lambda row: example(row, args, seed),
        decontaminate=args.decontaminate,
    )


def cpt_examples(args: CPTDataArguments) -> Examples:
    """Texts (title, blank line, text) of the passages of ``args.corpus``, in their order.

    Raises:
        InputError: no corpus, one that is not there, or a row without text.
    """
    if not args.corpus:
        raise InputError("no corpus; name 'sample', a .jsonl(.gz) file or a Hub dataset")
    return _examples(
        args.corpus,
        corpora.read,
        identity=lambda passage: normalize(passage["text"]),
        finish=lambda passage: {"text": "\n\n".join(filter(None, (passage["title"].strip(" >"), passage["text"])))},
        decontaminate=args.decontaminate,
    )


def _examples(names, read, identity, finish, decontaminate) -> Examples:
    """Read sources one after the other; drop duplicates and test questions; count."""
    held_out = contamination.held_out() if decontaminate else None
    rows, places, seen = [], [], set()
    counts = Counter({what: 0 for what in ("read", "duplicates", "contaminated", "too_long", "used")})
    taken = {}
    for name in names:
        source, cap = split_cap(name)
        before = len(rows)
        for number, row in enumerate(read(source)):
            if cap is not None and len(rows) - before == cap:
                break
            counts["read"] += 1
            if (key := identity(row)) in seen:
                counts["duplicates"] += 1
            elif held_out and held_out.is_contaminated(row):
                counts["contaminated"] += 1
            else:
                seen.add(key)
                rows.append(finish(row))
                places.append(f"{source} row {number}")
        taken[name] = len(rows) - before
    if not rows:
        raise InputError(f"no example is left of {', '.join(names)}: {dict(counts)}")
    counts["used"] = len(rows)
    return Examples(rows, dict(counts), taken, places)


def split_cap(name: str) -> tuple[str, int | None]:
    """``medqa:500`` -> ("medqa", 500); ``medqa`` -> ("medqa", None)."""
    source, _, cap = name.rpartition(":")
    return (source, int(cap)) if source and cap.isdigit() else (name, None)


def drop_too_long(examples: Examples, tokenizer, max_length: int | None) -> Examples:
    """Leave out the SFT rows of more than ``max_length`` tokens: TRL would cut off their end, which is the answer."""
    if max_length is None:
        return examples
    kept = [i for i, row in enumerate(examples.rows) if count_tokens(row, tokenizer) <= max_length]
    if not kept:
        raise InputError(f"every example is longer than max_length {max_length}; raise it")
    counts = examples.counts | {"too_long": len(examples.rows) - len(kept), "used": len(kept)}
    return Examples([examples.rows[i] for i in kept], counts, examples.taken, [examples.places[i] for i in kept])


def count_tokens(row: dict, tokenizer) -> int:
    """Tokens of prompt, completion and, outside a chat, the end-of-sequence token that TRL appends."""
    if isinstance(row["prompt"], str):
        return len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) + 1
    return len(tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"])


# Rows: an item (mcq.FIELDS), an open question (question, reply), or a pair taken as it is (prompt, completion)


def example(row: dict, args: SFTDataArguments, seed: int) -> dict:
    """The prompt that is asked in evaluation, and the completion that is scored there.

    The completion begins with the delimiter, as lm-eval's continuation does; with ``chat``, the delimiter is the
    template's business, in lm-eval too.
    """
    if "prompt" in row:
        prompt, completion = row["prompt"], row["completion"]
    elif "options" in row:
        item = shuffled(row, seed) if args.shuffle_options and may_shuffle(row, args.answer_style) else row
        prompt, completion = mcq.render(item), mcq.target(item)
        if args.answer_style == "rationale" and item["rationale"]:
            completion = f"{item['rationale'].strip()}\nAnswer:{mcq.DELIMITER}{completion}"
    elif args.chat:
        prompt, completion = row["question"], row["reply"]
    else:
        prompt, completion = mcq.render({"question": row["question"], "options": []}), row["reply"]
    if args.chat:
        return {
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": completion.strip()}],
        }
    return {"prompt": prompt, "completion": completion if "prompt" in row else mcq.DELIMITER + completion}


def may_shuffle(item: dict, answer_style: str) -> bool:
    """Whether an item's options mean the same in any order.

    Not those of a fixed set (yes/no/maybe), not where an option names others ("both A and C"), and not where the
    rationale is learned too, since it may name letters.
    """
    if item["options"] == items.PUBMEDQA_OPTIONS or (answer_style == "rationale" and item["rationale"]):
        return False
    return not any(NAMES_OTHER_OPTIONS.fullmatch(option.strip(" .")) for option in item["options"])


def shuffled(item: dict, seed: int) -> dict:
    """The item with its options in an order that depends on ``seed`` and its question alone."""
    order = list(range(len(item["options"])))
    random.Random(f"{seed} {item['question']}").shuffle(order)
    options = [item["options"][i] for i in order]
    return item | {"options": options, "answer": order.index(item["answer"])}


def _identity(row: dict) -> tuple:
    """Rows with the same identity are duplicates: an item's question and set of options, another row's question."""
    question = normalize(row.get("question") or row["prompt"])
    return question, *sorted(normalize(option) for option in row.get("options", ()))


def _read_source(source: str) -> Iterator[dict]:
    """Rows of a benchmark's train split, a file, or a Hub dataset's split ``train``."""
    if source in benchmarks.BENCHMARKS:
        yield from benchmarks.load(source, "train")
        return
    path = Path(source).expanduser()
    if source.endswith(corpora.JSONL):
        if not path.is_file():
            raise InputError(f"{source}: no such file")
        raw = corpora.file_rows(path)
    elif source.count("/") in (1, 2) and not source.startswith((".", "/", "~")) and not path.exists():
        organization, name, *config = source.split("/")
        rows = sources.load_rows(f"{organization}/{name}", config[0] if config else None, "train")
        raw = ((f"{source} row {i}", row) for i, row in enumerate(rows))
    else:
        known = ", ".join(benchmarks.BENCHMARKS)
        raise InputError(
            f"{source}: not a source; give a {' or '.join(corpora.JSONL)} file, ORG/NAME, or one of {known}"
        )
    for place, row in raw:
        yield _row(row, place)


def _row(row: dict, place: str) -> dict:
    """An item, an open question or a pair from a row of any known shape."""
    if not isinstance(row, dict):
        raise InputError(f"{place}: not a JSON object; each line must be one")
    options = row.get("options", row.get("choices"))
    if options is not None:
        return _item(row, options, place)
    if all(isinstance(row.get(key), str) for key in ("prompt", "completion")):
        return {"prompt": row["prompt"], "completion": row["completion"]}
    for question, answer in OPEN_QUESTIONS:
        if all(isinstance(row.get(key), str) for key in (*question, *answer)):
            return {
                "question": "\n\n".join(filter(None, (row[key].strip() for key in question))),
                "reply": "\n\n".join(filter(None, (row[key].strip() for key in answer))),
            }
    shapes = ["question, options or choices, answer", "prompt, completion"]
    shapes += [", ".join(question + answer) for question, answer in OPEN_QUESTIONS]
    raise InputError(f"{place}: has {', '.join(row)}; a row needs the columns {'; or '.join(shapes)}")


def _item(row: dict, options, place: str) -> dict:
    """An item from a multiple-choice row; ``options`` may be the text of a list."""
    if isinstance(options, str):
        try:
            options = ast.literal_eval(options)
        except (ValueError, SyntaxError) as error:
            raise InputError(f"{place}: the choices are a text that is not a list") from error
    if not isinstance(options, list) or not 1 < len(options) <= len(mcq.LETTERS):
        raise InputError(f"{place}: an item needs a list of 2 to {len(mcq.LETTERS)} choices")
    if not isinstance(row.get("question"), str):
        raise InputError(f"{place}: no question")
    return {
        "id": str(row.get("id") or place),
        "question": row["question"],
        "options": [str(option) for option in options],
        "answer": _answer(row.get("answer"), len(options), place),
        "context": str(row.get("context") or ""),
        "subject": str(row.get("subject") or ""),
        "rationale": str(row.get("rationale") or row.get("explanation") or ""),
    }


def _answer(answer, n_options: int, place: str) -> int:
    """0-based index from an index (int, 0-based), a number as text (1-based, as HEAD-QA's) or a letter."""
    index = -1
    if isinstance(answer, str) and answer.strip().isdigit():
        index = int(answer) - 1
    elif isinstance(answer, str) and len(answer.strip()) == 1:
        index = mcq.LETTERS.find(answer.strip().upper())
    elif isinstance(answer, int) and not isinstance(answer, bool):
        index = answer
    if not 0 <= index < n_options:
        raise InputError(
            f"{place}: the answer {answer!r} names none of the {n_options} choices; give an index (0-based), "
            "a number as text (1-based) or a letter"
        )
    return index

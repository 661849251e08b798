"""The recipe keys that say what is learned from."""

from dataclasses import dataclass, field

STYLES = ("letter", "rationale", "free")
"""What follows an item: its letter; its rationale, then the letter; or, no options shown, the right option's text."""

TEXTS = ("raw", "comprehension", "mixed")
"""How a passage is read: alone; with exercises on it; or some this way and some that."""

PERSONAL_DATA = ("off", "report", "drop")

DECONTAMINATE = "Drop what holds a test question of any benchmark; every dropped row is listed in dropped.jsonl."
SKIP_FAULTY = "Leave out rows that cannot be learned from, and count them, instead of stopping with their places."
DROP_NEAR_DUPLICATES = (
    "Drop texts (not items) of whose word 8-grams at least this share stand in one earlier text, as 0.9; 0 for none."
)
LOOK_FOR_PERSONAL_DATA = (
    "Look for e-mail addresses, phone, social security, card and record numbers, IP addresses and dates of birth: "
    "'report' counts the rows that hold some, 'drop' leaves them out (needs the extra 'privacy')."
)


@dataclass
class SFTDataArguments:
    """What to learn from, and how it is put."""

    _argument_group_name = "SFT data"

    sources: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Benchmarks (their train split: medqa, medmcqa, pubmedqa, mmlu_med), .jsonl or .jsonl.gz files, "
            "Hub datasets (ORG/NAME or ORG/NAME/CONFIG); rows: items, question and answer, prompt and completion, "
            "instructions or chats. SOURCE:N takes the first N usable rows. A mapping says more: source, split, take, "
            "weight (share of the rows that is drawn: 0.5 half of them, 2 each twice), style (as answer_style), "
            "columns (NAME: COLUMN), replay (general data, counted apart)."
        },
    )
    dev_sources: list[str] = field(
        default_factory=list,
        metadata={"help": "Held out: as sources, with validation splits. What stands here is dropped from sources."},
    )
    answer_style: str = field(
        default="letter",
        metadata={
            "help": "What follows a question with options: its letter; its rationale (where it has one) and then the "
            "letter; or, asked without its options, the right option's text.",
            "choices": list(STYLES),
        },
    )
    shuffle_options: bool = field(
        default=False,
        metadata={"help": "Shuffle each question's options (by `seed`) anew in every epoch: no letter is favoured."},
    )
    chat: bool = field(
        default=False,
        metadata={"help": "Put each example into the model's chat template, as --apply_chat_template asks."},
    )
    raft: dict | str | None = field(
        default=None,
        metadata={
            "help": "Put items behind retrieved passages and distractors, as a mapping: passages (the sidecar "
            "retrieval/TASK.jsonl of --model rag, or a .jsonl of question or id and passages), snippets (an index, for "
            "a sidecar), distractors (3), best (1), oracle_share (0.8)."
        },
    )
    decontaminate: bool = field(default=True, metadata={"help": DECONTAMINATE})
    near_duplicates: float = field(default=0.0, metadata={"help": DROP_NEAR_DUPLICATES})
    personal_data: str = field(default="off", metadata={"help": LOOK_FOR_PERSONAL_DATA, "choices": list(PERSONAL_DATA)})
    skip_faulty: bool = field(default=False, metadata={"help": SKIP_FAULTY})


@dataclass
class CPTDataArguments:
    """What to read."""

    _argument_group_name = "CPT data"

    corpus: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Corpora: 'sample', .jsonl or .jsonl.gz files, or Hub datasets; rows need 'text' (or MedRAG's "
            "'content'); CORPUS:N takes the first N usable passages. A mapping says more: source, take, weight, replay "
            "(as for SFT)."
        },
    )
    text_style: str = field(
        default="raw",
        metadata={
            "help": "Passages as they are; with exercises on what they say; or a share of them with exercises.",
            "choices": list(TEXTS),
        },
    )
    comprehension_share: float = field(
        default=0.5, metadata={"help": "Of the passages, those that get exercises where text_style is mixed."}
    )
    dev_share: float = field(default=0.0, metadata={"help": "Share of the passages that is held out."})
    decontaminate: bool = field(default=True, metadata={"help": DECONTAMINATE})
    near_duplicates: float = field(default=0.0, metadata={"help": DROP_NEAR_DUPLICATES})
    personal_data: str = field(default="off", metadata={"help": LOOK_FOR_PERSONAL_DATA, "choices": list(PERSONAL_DATA)})

"""What is learned from: exam questions and answer pairs for SFT, passages for CPT; cleaned, counted, fingerprinted.

Examples that hold a test question of any benchmark (:mod:`medtasks.contamination`) are dropped, and so are duplicates;
both are counted. ``python -m trainers.data --config RECIPE`` shows what a recipe would learn from.
"""

from trainers.data.account import summary
from trainers.data.arguments import CPTDataArguments, SFTDataArguments
from trainers.data.exam import dev_examples, overlap, sft_examples
from trainers.data.examples import Examples
from trainers.data.lengths import count_tokens, drop_too_long
from trainers.data.mixture import split_cap
from trainers.data.passages import cpt_examples
from trainers.data.rendering import may_shuffle, shuffled

__all__ = [
    "CPTDataArguments",
    "Examples",
    "SFTDataArguments",
    "count_tokens",
    "cpt_examples",
    "dev_examples",
    "drop_too_long",
    "may_shuffle",
    "overlap",
    "sft_examples",
    "shuffled",
    "split_cap",
    "summary",
]

"""Rows without padding: TRL's tokens, every example once an epoch, and filling that teaches nothing."""

import copy
from collections import Counter

import pytest
import torch

from medtasks.errors import InputError
from trainers import batches

LENGTHS = [3, 9, 14, 5, 30, 7, 12, 4, 8, 21]


@pytest.fixture(scope="module")
def tokenizer(base):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base)


def chats(*turns):
    *before, reply = [{"role": role, "content": text} for role, text in turns]
    return [{"prompt": before, "completion": [reply]}]


TURNS = ("system", "Be brief."), ("user", "Why?"), ("assistant", "So it is.")


def learned(tokenizer, template, *turns) -> str:
    """What is learned of a chat, by a template."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    [row] = batches.encode(chats(*turns), tokenizer)
    assert len(row["labels"]) == len(row["input_ids"])
    return tokenizer.decode([token for token in row["labels"] if token != batches.IGNORED])


def test_a_template_without_an_end_gets_one(tokenizer):
    plain = "{% for m in messages %}{{ m.role + ': ' + m.content + ' ' }}{% endfor %}"
    asks = plain + "{% if add_generation_prompt %}assistant:{% endif %}"
    assert learned(tokenizer, asks, *TURNS).replace(" ", "") == "Soitis." + tokenizer.eos_token
    ended = plain.replace("' ' }}", "' ' + eos_token }}") + "{% if add_generation_prompt %}assistant:{% endif %}"
    assert learned(tokenizer, ended, *TURNS).count(tokenizer.eos_token) == 1


def test_a_template_that_puts_turns_otherwise_before_a_reply_is_refused(tokenizer):
    """As Mistral's: the system's turn goes before the last turn, if that is the user's."""
    last = (
        "{% for m in messages if m.role != 'system' %}{% if loop.last and messages[0].role == 'system' %}"
        "{{ messages[0].content + ' ' }}{% endif %}{{ m.content + ' ' }}{% endfor %}"
    )
    with pytest.raises(batches.Unrenderable, match="puts the turn of system otherwise once a reply follows") as caught:
        learned(tokenizer, last, *TURNS)
    assert caught.value.number == 0
    assert "So it is" in learned(tokenizer, last, *TURNS[1:])
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + last
    with pytest.raises(InputError, match="template refuses it .no system here"):
        learned(tokenizer, strict, *TURNS)


class Words:
    """A tokenizer whose tokens are the numbers that a text lists; 0 ends a text."""

    eos_token = " 0"

    def __call__(self, texts):
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}


def numbers(epoch: int) -> list[dict]:
    """Example n has LENGTHS[n] tokens; each tells example, place and epoch: ``1nnee`` times 100, plus the place."""
    return [
        {"text": " ".join(str((10_000 + 100 * n + epoch) * 100 + i) for i in range(length - 1))}
        for n, length in enumerate(LENGTHS)
    ]


def documents(row: dict) -> list[tuple[int, list[int], list[int]]]:
    """(example, tokens, labels) of each document of a row."""
    found, start = [], 0
    for number, length in zip(row["examples"], row["seq_lengths"], strict=True):
        part = slice(start, start + length)
        found.append((number, row["input_ids"][part], row["labels"][part]))
        start += length
    assert start == len(row["input_ids"]) == len(row["labels"])
    return found


def example_of(tokens: list[int]) -> tuple[int, int]:
    """(example, epoch) that the tokens tell, which all tell the same."""
    [head] = {token // 100 for token in tokens if token}
    return divmod(head - 10_000, 100)


# tokens


@pytest.mark.parametrize("kind", ["text", "pairs", "messages"])
def test_tokens_are_those_of_trl(recipe_file, tokenizer, make_item, kind, tmp_path):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    items = [make_item(number) for number in range(6)]
    texts = [(item["question"] + "\nAnswer:", " " + item["rationale"]) for item in items]
    if kind == "text":
        rows = [{"text": prompt + completion} for prompt, completion in texts]
    elif kind == "pairs":
        rows = [{"prompt": prompt, "completion": completion} for prompt, completion in texts]
    else:
        rows = [
            {
                "prompt": [{"role": "user", "content": prompt}],
                "completion": [{"role": "assistant", "content": completion}],
            }
            for prompt, completion in texts
        ]
    trl = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tokenizer.name_or_path),
        args=SFTConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", bf16=False),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    ).train_dataset
    ours = batches.encode(rows, tokenizer)
    assert [row["input_ids"] for row in ours] == trl["input_ids"]
    labels = trl["labels"] if "labels" in trl.column_names else trl["input_ids"]
    assert [row["labels"] for row in ours] == labels and (kind == "text" or batches.IGNORED in labels[0])


def test_a_token_that_merges_prompt_and_completion_is_learned():
    class Merging:
        eos_token = "."

        def __call__(self, texts):
            return {"input_ids": [[ord(c) for c in text.replace("ab", "X")] for text in texts]}

    [row] = batches.encode([{"prompt": "1a", "completion": "bc"}], Merging())
    assert row == {"input_ids": [ord(c) for c in "1Xc."], "labels": [batches.IGNORED, *map(ord, "Xc.")]}


def test_a_text_that_ends_already_is_not_ended_twice(tokenizer):
    ended, plain = batches.encode([{"text": "heart<|endoftext|>"}, {"text": "heart"}], tokenizer)
    assert ended == plain and ended["input_ids"].count(tokenizer.eos_token_id) == 1


# packing


@pytest.mark.parametrize(("strategy", "max_length"), [(None, None), ("bfd", 32), ("bfd_split", 16)])
def test_every_epoch_holds_every_example_once(strategy, max_length):
    packed = batches.pack(numbers, Words(), epochs=3, seed=0, max_length=max_length, strategy=strategy)
    assert packed.epochs == 3 and packed.tokens == 3 * sum(LENGTHS) and len(packed.ends) == 3
    assert packed.ends[-1] == len(packed.rows)
    for epoch, (start, end) in enumerate(zip([0, *packed.ends], packed.ends, strict=False)):
        found: dict[int, list[int]] = {}
        for row in packed.rows[start:end]:
            assert max_length is None or len(row["input_ids"]) <= max_length
            assert row["labels"] == row["input_ids"]
            for number, tokens, _ in documents(row):
                inside = [token for token in tokens if token]
                assert not inside or example_of(inside) == (number, epoch)
                found.setdefault(number, []).extend(tokens)
        # parts of a split document may come in any order; put together, they are the whole
        assert sorted(found) == list(range(len(LENGTHS)))
        for number, tokens in found.items():
            [whole] = Words()([numbers(epoch)[number]["text"] + Words.eos_token])["input_ids"]
            assert sorted(tokens) == sorted(whole), number


def test_what_is_longer_than_a_row_is_split_and_keeps_its_name():
    packed = batches.pack(numbers, Words(), epochs=1, seed=0, max_length=16, strategy="bfd_split")
    parts = Counter(number for row in packed.rows for number in row["examples"])
    assert parts == {number: -(-length // 16) for number, length in enumerate(LENGTHS)}


def test_rows_are_packed_tightly():
    packed = batches.pack(numbers, Words(), epochs=1, seed=0, max_length=32, strategy="bfd")
    assert len(packed.rows) == 4  # 113 tokens do not go into three rows of 32
    assert max(len(row["seq_lengths"]) for row in packed.rows) == packed.most_documents(1)


def test_an_example_that_does_not_fit_is_left_out_of_its_epoch_whole():
    packed = batches.pack(numbers, Words(), epochs=1, seed=0, max_length=20, strategy="bfd")
    seen = sorted(number for row in packed.rows for number in row["examples"])
    assert seen == [number for number, length in enumerate(LENGTHS) if length <= 20] and len(seen) == 8
    assert packed.tokens == sum(length for length in LENGTHS if length <= 20)


@pytest.mark.parametrize(("epochs", "rows"), [(0.3, 3), (1.0, 10), (1.1, 11), (1.5, 15), (2.25, 23)])
def test_a_part_of_an_epoch_is_a_part_of_its_rows(epochs, rows):
    packed = batches.pack(numbers, Words(), epochs=epochs, seed=0)
    assert len(packed.rows) == rows and packed.epochs == epochs
    counts = Counter(row["examples"][0] for row in packed.rows)
    assert max(counts.values()) - min(counts[n] for n in range(10)) <= 1


@pytest.mark.parametrize(("rows", "epochs", "ends"), [(4, 0.4, [4]), (10, 1, [10]), (25, 2.5, [10, 20, 25])])
def test_so_many_rows_take_so_many_epochs(rows, epochs, ends):
    packed = batches.pack(numbers, Words(), epochs=1, seed=0, most_rows=rows)
    assert len(packed.rows) == rows and packed.epochs == epochs and packed.ends == ends


def test_the_seed_makes_the_order_and_every_epoch_has_its_own():
    def order(seed):
        return [row["examples"] for row in batches.pack(numbers, Words(), epochs=2, seed=seed).rows]

    assert order(1) == order(1) and order(1) != order(2)
    assert order(1)[:10] != order(1)[10:] and sorted(order(1)[:10]) == sorted(order(1)[10:])


def test_options_are_shuffled_anew_in_every_epoch(recipe_file):
    from trainers import sft, stage

    prepared = sft.prepare(["--config", recipe_file(shuffle_options=True, max_steps=None, num_train_epochs=3)])
    trainer = stage._build(prepared)
    rows = list(trainer.train_dataset)
    by_epoch = [{row["examples"][0]: row["input_ids"] for row in rows[start : start + 16]} for start in (0, 16, 32)]
    assert all(sorted(texts) == list(range(16)) for texts in by_epoch)
    changed = [sum(by_epoch[0][n] != by_epoch[epoch][n] for n in range(16)) for epoch in (1, 2)]
    assert min(changed) > 8


@pytest.mark.parametrize("epochs", [0, -1])
def test_no_epochs_are_refused(epochs):
    with pytest.raises(InputError, match=f"num_train_epochs is {epochs}; it must be above 0"):
        batches.pack(numbers, Words(), epochs=epochs, seed=0)


def test_the_most_documents_of_a_micro_batch():
    rows = [{"input_ids": [1] * n, "seq_lengths": [1] * n} for n in (1, 3, 2, 2, 5)]
    assert [batches.Packed(rows, 1).most_documents(n) for n in (1, 2, 3)] == [5, 5, 7]


# micro-batches

ROWS = [
    {"input_ids": [11, 12, 13, 14, 15], "labels": [-100, 12, -100, 14, 15], "seq_lengths": [2, 3], "examples": [7, 2]},
    {"input_ids": [21, 22], "labels": [21, 22], "seq_lengths": [2], "examples": [5]},
]


def test_documents_stand_side_by_side_and_each_token_is_told_the_next():
    batch = batches.Collator(0)(ROWS)
    assert batch["input_ids"].tolist() == [[11, 12, 13, 14, 15, 21, 22]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2, 0, 1]]
    # 13 and 21 begin documents: the token before them belongs to another one
    assert batch["labels"].tolist() == [[-100, 12, -100, 14, 15, -100, 22]]
    assert batch["shift_labels"].tolist() == [[12, -100, 14, 15, -100, 22, -100]]
    assert batch["scored"].tolist() == [0, 2, 3, 5]
    for side in ("q", "k"):
        assert batch[f"cu_seq_lens_{side}"].tolist() == [0, 2, 5, 7] and batch[f"max_length_{side}"] == 3
        assert batch[f"cu_seq_lens_{side}"].dtype == torch.int32
    assert batch["examples"] == [7, 2, 5] and batch["num_tokens"] == 7


def test_a_static_batch_is_filled_with_documents_that_have_no_labels():
    plain, filled = batches.Collator(0)(ROWS), batches.Collator(99, tokens=16, documents=8, max_length=4)(ROWS)
    assert filled["input_ids"].shape == filled["position_ids"].shape == filled["shift_labels"].shape == (1, 16)
    assert filled["input_ids"][0, 7:].tolist() == [99] * 9
    assert filled["position_ids"][0, 7:].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert filled["cu_seq_lens_q"].tolist() == [0, 2, 5, 7, 11, 15, 16, 16, 16]
    assert filled["max_length_q"] == 4
    for key in ("labels", "shift_labels"):
        assert filled[key][0, :7].tolist() == plain[key][0].tolist() and set(filled[key][0, 7:].tolist()) == {-100}
    assert torch.equal(filled["scored"], plain["scored"])
    assert filled["examples"] == plain["examples"] and filled["num_tokens"] == 7


def test_a_document_longer_than_the_others_are_keeps_its_length():
    assert batches.Collator(0, tokens=4, documents=4, max_length=2)(ROWS)["max_length_q"] == 3


@pytest.mark.parametrize("head", ["own", "trl"])
def test_filling_changes_neither_loss_nor_gradients(recipe_file, head):
    from trainers import sft, stage

    prepared = sft.prepare(["--config", recipe_file(lora_dropout=0.0, answer_style="rationale")])
    trainer = stage._build(prepared)
    trainer.has_own_head = head == "own"
    rows = [trainer.train_dataset[n] for n in range(4)]
    longest = max(len(row["input_ids"]) for row in rows)
    weights = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    torch.manual_seed(0)
    for name, weight in weights.items():
        if "lora_B" in name:
            weight.data.normal_(0, 0.05)
    found = []
    for collate in (batches.Collator(3), batches.Collator(3, tokens=5 * longest, documents=12, max_length=longest)):
        batch = collate(rows)
        loss = trainer.compute_loss(trainer.model.train(), batch)
        found.append((batch["input_ids"].shape[1], loss, torch.autograd.grad(loss, list(weights.values()))))
    (tokens, loss, gradients), (more, loss_filled, gradients_filled) = found
    assert more == 5 * longest > tokens
    torch.testing.assert_close(loss_filled, loss)
    for name, ours, theirs in zip(weights, gradients_filled, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)
    assert max(gradient.abs().max() for gradient in gradients) > 1e-3


def test_batches_are_filled_up_with_rows_that_teach_nothing():
    rows = [{"input_ids": [5, 6], "labels": [5, 6], "seq_lengths": [2], "examples": [0]}] * 3
    assert batches.fill_up(rows, 3, 1) == rows
    filled = batches.fill_up(rows, 4, 1)
    assert filled[:3] == rows and len(filled) == 4
    batch = batches.Collator(1)(filled[2:])
    assert batch["num_tokens"] == 2 and batch["examples"] == [0] and batch["scored"].tolist() == [0]

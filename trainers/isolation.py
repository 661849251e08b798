"""Does a model keep documents apart that stand side by side in one row?

Rows have no padding: what tells documents apart are positions and boundaries, which attention heeds. Convolutions and
recurrences over the row (LFM2's, say), or positions of a model's own (OPT's, Bloom's), may not.
"""

import math

import torch

from medtasks.errors import InputError
from trainers.batches import Collator

TOKENS = 8
"""Of each of the two documents of the probe."""
LEAKS = {4: 1e-5, 2: 1e-2}
"""Bytes of a logit -> change of what a model says of a document when the one beside it changes, from which they are not
apart: relative to the change of what it says of that one. Where they are apart nothing changes, but that experts may
add up in another order."""


def demand(trainer) -> None:
    """See that the model of ``trainer`` (:class:`trainers.trainer.Trainer`) keeps two documents apart.

    Raises:
        InputError: it does not, or what it says of them are no numbers.
    """
    found, size = leak(trainer)
    if math.isnan(found):
        raise InputError(f"before anything is learned the model's logits are NaN; {_mend(trainer.model)}")
    if found > LEAKS[size]:
        raise InputError(
            f"this model does not keep documents apart that stand in one row (what it says of one changes with the "
            f"other, by {found:.1%}); say 'packing: false', 'per_device_train_batch_size: 1' and "
            "'per_device_eval_batch_size: 1'"
        )


def _mend(model) -> str:
    broken = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)
    if broken is None:
        return "its products overflow: say 'bf16: true' in the place of fp16, or 'dtype: float32'"
    return f"{broken} is not finite: download or merge the model again, or train it anew"


@torch.no_grad()
def leak(trainer) -> tuple[float, int]:
    """How much the logits of a second document follow the first one, as :data:`LEAKS` has it, and the bytes of a logit;
    0 where that cannot be told, since weights are not on the device yet, NaN where a logit is."""
    model = trainer.model
    if next(model.parameters()).device.type != trainer.args.device.type:
        return 0.0, 4
    vocabulary = model.get_input_embeddings().weight.shape[0]
    first, other, second = torch.randint(vocabulary, (3, TOKENS), generator=torch.Generator().manual_seed(0)).tolist()
    was_training = model.training
    model.eval()
    try:
        said = [_logits(trainer, (before, second)) for before in (first, other)]
    finally:
        model.train(was_training)
    if any(logits.isnan().any() for logits in said):
        return math.nan, said[0].element_size()
    change = (said[0].float() - said[1].float()).nan_to_num().norm(dim=-1)  # a logit may be masked: -inf in both
    return float(change[TOKENS:].max() / change[:TOKENS].max().clamp(min=1e-9)), said[0].element_size()


def _logits(trainer, documents) -> torch.Tensor:
    """(tokens, vocabulary) of documents in one row."""
    rows = [{"input_ids": ids, "labels": ids, "seq_lengths": [TOKENS], "examples": [0]} for ids in documents]
    inputs = Collator(0)(rows)
    kept = ("input_ids", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
    inputs = trainer._prepare_inputs({name: inputs[name] for name in kept})
    # as it is trained: attention on GPUs takes numbers of 2 bytes alone
    with trainer.compute_loss_context_manager(), trainer.accelerator.autocast():
        return trainer.model(**inputs, use_cache=False).logits[0]

"""TRL's trainer, with a guard before every optimizer step, and a held-out loss that is a mean over tokens."""

from typing import TYPE_CHECKING

import torch
from trl import SFTTrainer

if TYPE_CHECKING:
    from trainers.guards import Guard

EXAMPLE_IDS = "example_ids"
"""Column of the training data and key of a batch: the numbers of the examples in it, (n,) int64."""


class Trainer(SFTTrainer):
    """TRL's loop over our examples.

    Args:
        guard: sees the losses and the gradient norm of every step before the optimizer does.
    """

    def __init__(self, *args, guard: "Guard", **keywords):
        super().__init__(*args, **keywords)
        self.guard = guard
        self.data_collator = Numbered(self.data_collator)

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if EXAMPLE_IDS not in self._signature_columns:
            self._signature_columns.append(EXAMPLE_IDS)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Forward and backward of a micro-batch; its examples and loss are noted."""
        example_ids = inputs.pop(EXAMPLE_IDS, None)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.guard.add(example_ids, loss)
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        """The gradient norm before clipping; asked for once a step, before the optimizer."""
        norm = super()._get_grad_norm(model, grad_norm)
        self.guard.check(None if norm is None else float(norm), self.state.global_step + 1)
        return norm

    def evaluation_loop(self, *args, metric_key_prefix="eval", **keywords):
        """Loss and token accuracy over all labelled tokens of the held-out data, each token counted alike.

        Trainer's own mean is one of batches, whatever they hold. Where several processes share the data, the
        sampler may repeat a few rows to give each as many.
        """
        self._held_out = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **keywords)
        loss, right, tokens = self.accelerator.reduce(self._held_out, "sum").tolist()
        output.metrics[f"{metric_key_prefix}_loss"] = loss / tokens
        output.metrics[f"{metric_key_prefix}_mean_token_accuracy"] = right / tokens
        return output

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """The mean loss of a held-out batch; its sums go to :meth:`evaluation_loop`."""
        inputs = self._prepare_inputs(inputs)
        inputs.pop(EXAMPLE_IDS, None)
        with torch.no_grad(), self.compute_loss_context_manager():
            found = model(**inputs, use_cache=False, fused_lm_head=True)
        sums = torch.stack([-found.log_probs.sum(), found.is_top1.sum(), found.label_mask.sum()]).double()
        self._held_out += sums
        return (sums[0] / sums[2].clamp(min=1)).float(), None, None


class Numbered:
    """A collator whose batches also say which examples they hold, where the examples say it themselves."""

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, examples: list[dict]) -> dict:
        batch = self.collate(examples)
        if EXAMPLE_IDS in examples[0]:
            batch[EXAMPLE_IDS] = torch.tensor([example[EXAMPLE_IDS] for example in examples])
        return batch

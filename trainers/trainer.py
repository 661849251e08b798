"""TRL's trainer over prepared micro-batches, with a guard at every optimizer step and a held-out loss over tokens."""

from typing import TYPE_CHECKING

import torch
from trl import SFTTrainer

if TYPE_CHECKING:
    from trainers.guards import Guard


class Trainer(SFTTrainer):
    """TRL's loop over what :class:`trainers.batches.Collator` makes, with the loss of TRL.

    That is the negative log-likelihood of the labelled tokens, summed, over their number in all micro-batches and
    processes of a step; computed by :func:`trainers.acceleration.loss.add_head` where the model has such a head.

    Args:
        guard: sees the losses and the gradient norm of every step.
        epochs: what one pass over the data counts as.

    Attributes:
        on_documents: called with the boundaries of documents before each micro-batch that is learned from.
        has_begun: whether a micro-batch was learned from.
    """

    def __init__(self, *args, guard: "Guard", epochs: float = 1.0, **keywords):
        self.on_documents = None
        self.has_begun = False
        self._hits: list[tuple[torch.Tensor, int]] = []
        self._tokens = 0
        self.has_own_head = False
        self.guard, self.epochs = guard, epochs
        super().__init__(*args, **keywords)

    def _set_signature_columns_if_needed(self):
        self._signature_columns = ["input_ids", "labels", "seq_lengths", "examples"]

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Forward and backward of a micro-batch; its examples and loss are noted."""
        if self.on_documents is not None:
            self.on_documents(inputs["cu_seq_lens_q"])
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.guard.add(inputs["examples"], loss)
        self.has_begun = True
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not self.has_own_head or return_outputs:
            inputs = _without(inputs, "scored", "examples", "num_tokens")
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, hits, scored = self._scores(model, inputs)
        self._hits.append((hits, scored))
        tokens = scored if num_items_in_batch is None else num_items_in_batch
        loss = loss / torch.as_tensor(tokens).clamp(min=1)  # a passage's last token alone has nothing to learn
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP takes the mean over processes
        return loss

    def _scores(self, model, inputs) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Summed loss of the labelled tokens, how many were the likeliest, and how many there are."""
        targets = inputs["shift_labels"][0].index_select(0, inputs["scored"])
        loss, hits = model(
            **_without(inputs, "examples", "num_tokens", "labels", "shift_labels"), targets=targets, use_cache=False
        )
        return loss, hits, len(targets)

    def _get_grad_norm(self, model, grad_norm=None):
        """The gradient norm before clipping; asked for once a step, before the optimizer."""
        norm = super()._get_grad_norm(model, grad_norm)
        self.guard.check(norm, self.state.global_step + 1)
        return norm

    def _save_checkpoint(self, model, trial):
        self.guard.settle()
        self._add_tokens()
        super()._save_checkpoint(model, trial)

    def _track_num_input_tokens(self, inputs):
        """Count what is no filling, without waiting for the GPU or other processes (:meth:`_add_tokens`)."""
        self._tokens += inputs["num_tokens"]

    def _add_tokens(self):
        """Add to the state what all processes have counted since the last time; called by all of them."""
        tokens, self._tokens = self._tokens, 0
        if self.accelerator.num_processes > 1:
            tokens = self.accelerator.reduce(torch.tensor(tokens, device=self.args.device), "sum").item()
        self.state.num_input_tokens_seen += tokens

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the share of labelled tokens that were the likeliest, and epochs as the recipe counts them."""
        self._add_tokens()
        if self._hits and self.model.training:
            right = sum(hits for hits, _ in self._hits)
            counts = torch.stack([right, right.new_tensor(sum(scored for _, scored in self._hits))])
            right, scored = self.accelerator.reduce(counts, "sum").tolist()
            self._metrics["train"]["mean_token_accuracy"] = [right / max(1, scored)]
            self._hits.clear()
        passes = self.state.epoch
        self.state.epoch = passes and passes * self.epochs
        super().log(logs, start_time)
        self.state.epoch = passes

    def evaluation_loop(self, *args, metric_key_prefix="eval", **keywords):
        """Loss and token accuracy over all labelled tokens of the held-out data, each token counted alike.

        Trainer's own mean is one of batches, whatever they hold.
        """
        self._held_out = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        with torch.compiler.set_stance("force_eager"):  # each batch has a shape of its own, to be compiled anew
            output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **keywords)
        loss, right, tokens = self.accelerator.reduce(self._held_out, "sum").tolist()
        output.metrics[f"{metric_key_prefix}_loss"] = loss / tokens
        output.metrics[f"{metric_key_prefix}_mean_token_accuracy"] = right / tokens
        return output

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """The mean loss of a held-out batch; its sums go to :meth:`evaluation_loop`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            if self.has_own_head:
                loss, hits, scored = self._scores(model, inputs)
                sums = torch.stack([loss, hits, hits.new_tensor(scored)])
            else:
                inputs = _without(inputs, "scored", "examples", "num_tokens")
                found = model(**inputs, use_cache=False, fused_lm_head=True)
                sums = torch.stack([-found.log_probs.sum(), found.is_top1.sum(), found.label_mask.sum()])
        self._held_out += sums.double()
        return (sums[0] / sums[2].clamp(min=1)).float(), None, None


def _without(inputs: dict, *keys: str) -> dict:
    return {key: value for key, value in inputs.items() if key not in keys}

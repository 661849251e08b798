"""TRL's SFTTrainer over micro-batches that :mod:`trainers.batches` prepared."""

from trl import SFTTrainer


class PackedTrainer(SFTTrainer):
    """Trains on what :class:`trainers.batches.Collator` makes, with the loss of TRL.

    That is the negative log-likelihood of the labelled tokens, summed, over their number in all micro-batches and
    processes of a step; computed by :func:`trainers.acceleration.loss.add_head` where the model has such a head.
    """

    epochs = 1.0
    """What one pass over the data counts as."""
    own_head = False
    """Whether the model has :func:`trainers.acceleration.loss.add_head`'s forward."""

    def _set_signature_columns_if_needed(self):
        self._signature_columns = ["input_ids", "labels", "seq_lengths", "examples"]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = {key: value for key, value in inputs.items() if key not in ("examples", "num_tokens")}
        scored = inputs.pop("scored")
        if not self.own_head or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        targets = inputs.pop("shift_labels")[0].index_select(0, scored)
        inputs.pop("labels")
        loss, hits = model(**inputs, scored=scored, targets=targets)
        self._hits["train" if model.training else "eval"].append((hits, len(scored)))
        loss = loss / (len(scored) if num_items_in_batch is None else num_items_in_batch)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP takes the mean over processes
        return loss

    def __init__(self, *args, **kwargs):
        self._hits = {"train": [], "eval": []}
        super().__init__(*args, **kwargs)

    def _track_num_input_tokens(self, inputs):
        """Count what is no filling, without waiting for the GPU."""
        tokens = inputs["num_tokens"]
        if self.accelerator.num_processes > 1:
            import torch

            tokens = self.accelerator.gather(torch.tensor([tokens], device=self.args.device)).sum().item()
        self.state.num_input_tokens_seen += tokens

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the share of labelled tokens that were the likeliest, and epochs as the recipe counts them."""
        mode = "train" if self.model.training else "eval"
        if self._hits[mode]:
            right = sum(hits for hits, _ in self._hits[mode])
            share = float(right) / max(1, sum(scored for _, scored in self._hits[mode]))
            self._metrics[mode]["mean_token_accuracy"] = [share]
            self._hits[mode].clear()
        passes = self.state.epoch
        self.state.epoch = passes and passes * self.epochs
        super().log(logs, start_time)
        self.state.epoch = passes

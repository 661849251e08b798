"""Forward and backward of a model's layers as two CUDA graphs: launched at once, whatever the processor's speed.

A step is thousands of kernels, which a processor may take longer to launch than an H100 to compute.
"""

from contextlib import contextmanager

import torch

from medtasks.errors import InputError


class GraphedBackbone:
    """What a model's backbone computes for micro-batches of one shape, captured when this is made.

    Under DDP it is made before the model is wrapped: DDP keeps autograd's accumulators of gradients, which then belong
    to the stream that it was wrapped on, and a capture on another stream may not wait for that one. Gradients of the
    trainable parameters arrive in the graph's own memory, which the next replay overwrites, so they are copied out of
    it where they are accumulated.

    Args:
        batch: a micro-batch (:class:`trainers.batches.Collator`) on the backbone's device; only its shape counts.
        dtype: of products under autocast; None for none.
        accumulates: whether a step has several micro-batches.

    Raises:
        InputError: the layers do what cannot be captured, as waiting for the GPU is.
    """

    def __init__(self, backbone: torch.nn.Module, batch: dict, dtype: torch.dtype | None, accumulates: bool):
        static = _Static(backbone, batch["max_length_q"]).train()
        inputs = (batch["input_ids"], batch["position_ids"], batch["cu_seq_lens_q"])
        with _blaming_capture(), torch.autocast("cuda", dtype, enabled=dtype is not None, cache_enabled=False):
            self._replay = torch.cuda.make_graphed_callables(static, inputs)
        if accumulates:
            for parameter in backbone.parameters():
                if parameter.requires_grad:
                    parameter.register_hook(torch.clone)

    def __call__(self, input_ids, position_ids, boundaries) -> torch.Tensor:
        """Hidden states (1, tokens, width) of ``input_ids`` (1, tokens) in documents between ``boundaries``."""
        return self._replay(input_ids, position_ids, boundaries)


@contextmanager
def _blaming_capture():
    """Make one line of what CUDA says of layers that cannot be captured; memory that is full is another matter."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(f"cuda_graph: the layers cannot be captured ({first}); say 'cuda_graph: false'") from error


class _Static(torch.nn.Module):
    """A backbone as a function of tensors alone."""

    def __init__(self, backbone, max_length: int):
        super().__init__()
        self.backbone, self.max_length = backbone, max_length

    def forward(self, input_ids, position_ids, boundaries):
        return self.backbone(
            input_ids=input_ids,
            position_ids=position_ids,
            cu_seq_lens_q=boundaries,
            cu_seq_lens_k=boundaries,
            max_length_q=self.max_length,
            max_length_k=self.max_length,
            use_cache=False,
        ).last_hidden_state

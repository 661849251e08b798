"""Forward and backward of a model's layers as two CUDA graphs: launched at once, whatever the processor's speed.

A step is thousands of kernels, which a processor may take longer to launch than an H100 to compute.
"""

import torch


class GraphedBackbone:
    """What a model's backbone computes for micro-batches of one shape, captured at the first of them.

    Gradients of the trainable parameters arrive in the graph's own memory, which the next replay overwrites, so they
    are copied out of it where they are accumulated.

    Args:
        dtype: of products under autocast; None for none.
        accumulates: whether a step has several micro-batches.
    """

    def __init__(self, backbone: torch.nn.Module, dtype: torch.dtype | None, accumulates: bool):
        self.backbone, self.dtype, self.accumulates = backbone, dtype, accumulates
        self._replay = None

    def __call__(self, input_ids, position_ids, boundaries, max_length: int) -> torch.Tensor:
        """Hidden states (1, tokens, width) of ``input_ids`` (1, tokens) in documents between ``boundaries``."""
        if self._replay is None:
            self._capture(input_ids, position_ids, boundaries, max_length)
        return self._replay(input_ids, position_ids, boundaries)

    def _capture(self, input_ids, position_ids, boundaries, max_length: int) -> None:
        static = _Static(self.backbone, max_length).train()
        inputs = tuple(tensor.clone() for tensor in (input_ids, position_ids, boundaries))
        with torch.autocast("cuda", self.dtype, enabled=self.dtype is not None, cache_enabled=False):
            self._replay = torch.cuda.make_graphed_callables(static, inputs)
        for parameter in self.backbone.parameters():
            if parameter.requires_grad:
                parameter.grad = None  # of the rehearsals
                if self.accumulates:
                    parameter.register_hook(torch.clone)


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

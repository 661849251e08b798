"""Noise on embeddings while training (NEFTune, Jain et al. 2023, arXiv:2310.05914), for documents side by side."""

import torch


def add(model, alpha: float):
    """Add uniform noise to the input embeddings in training; returns a function that takes the micro-batch's bounds.

    A token's noise is at most ``alpha / sqrt(length * width)``, where ``length`` is that of its document: the paper's
    is that of a text, and transformers' own would take all texts in a row for one, with too little noise for each.

    Call what is returned with the boundaries of documents (``cu_seq_lens_q``, documents + 1) before each forward.
    """
    embeddings = model.get_input_embeddings()
    bounds: list[torch.Tensor] = []

    def look_at(boundaries: torch.Tensor) -> None:
        bounds[:] = [boundaries]

    def disturb(module, _, embedded: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return embedded
        lengths = bounds[0].diff().to(embedded.device)
        largest = alpha / (torch.repeat_interleave(lengths, lengths) * embedded.shape[-1]).sqrt()
        return embedded + torch.empty_like(embedded).uniform_(-1, 1) * largest[None, :, None].to(embedded.dtype)

    embeddings.register_forward_hook(disturb)
    return look_at

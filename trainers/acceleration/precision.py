"""In which precision products are computed."""

import torch


def of_products(device: torch.device, stored: torch.dtype) -> torch.dtype:
    """The dtype of products of tensors that are ``stored`` so: that of autocast where it is on, else their own."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else stored

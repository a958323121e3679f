"""Paste-back: what most users do today, and the comparator that the paper lacks."""

import torch


def paste_hard(image: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The edit inside the hole, the original outside: image_hat m + image (1 - m), so pre_error is 0 by construction.

    Args:
        image: (N, 3, H, W).
        image_hat: (N, 3, H, W).
        mask: (N, 1, H, W), 1 = hole.
    """
    return torch.where(mask.bool(), image_hat, image)

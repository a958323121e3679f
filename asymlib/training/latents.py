"""Cached latents: the frozen encoder runs once per crop, not once per training step."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import interpolate

from asymlib.models.first_stage import FirstStage, encode_moments
from asymlib.pixels import to_tensor


class Edits(NamedTuple):
    """Training crops whose hole a diffusion model has filled.

    image: (N, 3, s, s) uint8, the original; latent: (N, C, s/8, s/8), the diffusion model's, not scaled; mask:
    (N, 1, s, s) uint8, 1 = hole.
    """

    image: torch.Tensor
    latent: torch.Tensor
    mask: torch.Tensor


class Crops(NamedTuple):
    """Training crops with the cached moments of their posteriors.

    image: (N, 3, s, s) uint8; moments: (N, 2C, s/8, s/8), mean and log-variance as `quant_conv` gives them; edits: some
    of the crops with another latent than their own.
    """

    image: torch.Tensor
    moments: torch.Tensor
    edits: Edits | None = None


def swap_holes(
    image: torch.Tensor, latent: torch.Tensor, hole: torch.Tensor, other: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give holes the content of other images, in pixels and latent cells.

    Args:
        image: (N, 3, H, W).
        latent: (N, C, h, w).
        hole: (N, 1, H, W), 1 where the content is swapped; a cell follows its top-left pixel.
        other: For each image, the index of the one whose content it gets.
    """
    cells = interpolate(hole, size=latent.shape[-2:], mode="nearest")
    return torch.where(hole > 0, image[other], image), torch.where(cells > 0, latent[other], latent)


def cache_crops(
    first_stage: FirstStage, images: torch.Tensor, crop: int = 48, crops_per_image: int = 6, seed: int = 0
) -> Crops:
    """Cut random crops and encode them.

    Args:
        first_stage: The frozen autoencoder.
        images: (N, 3, H, W) uint8.
        crop: Side in pixels.
        crops_per_image: How many from each image.
        seed: Seed of the positions.
    """
    rng = np.random.default_rng([seed, 6])
    corners = rng.integers(0, images.shape[-1] - crop + 1, (len(images), crops_per_image, 2))
    cut = torch.stack(
        [image[:, y : y + crop, x : x + crop] for image, places in zip(images, corners, strict=True) for y, x in places]
    )
    return Crops(cut, encode_moments(first_stage, to_tensor(cut)))

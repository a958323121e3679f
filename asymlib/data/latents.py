"""Cached latents: the frozen encoder runs once per crop, not once per training step."""

from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL

from asymlib.data.images import to_tensor


class Crops(NamedTuple):
    """Training crops with the cached moments of their posteriors.

    image: (N, 3, s, s) uint8; moments: (N, 2C, s/8, s/8), mean and log-variance as `quant_conv` gives them.
    """

    image: torch.Tensor
    moments: torch.Tensor


@torch.no_grad()
def encode_moments(first_stage: AutoencoderKL, image: torch.Tensor, batch: int = 32) -> torch.Tensor:
    """Posterior moments of (N, 3, H, W) images in [-1, 1]: (N, 2C, H/8, W/8)."""
    return torch.cat([first_stage.quant_conv(first_stage.encoder(part)) for part in image.split(batch)])


def encode_means(first_stage: AutoencoderKL, image: torch.Tensor, batch: int = 32) -> torch.Tensor:
    """Posterior means of (N, 3, H, W) images in [-1, 1]: (N, C, H/8, W/8), not scaled."""
    return encode_moments(first_stage, image, batch).chunk(2, dim=1)[0]


def cache_crops(first_stage: AutoencoderKL, images: torch.Tensor, crop: int, crops_per_image: int, seed: int) -> Crops:
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
    cut = torch.stack([image[:, y : y + crop, x : x + crop] for image, places in zip(images, corners, strict=True) for y, x in places])
    return Crops(cut, encode_moments(first_stage, to_tensor(cut)))

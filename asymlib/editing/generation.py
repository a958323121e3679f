"""Generation without a mask: nothing is known, so the decoder's condition branch has nothing to say."""

import torch

from asymlib.models.inpainter import LatentInpainter


def generate(
    model: LatentInpainter,
    count: int,
    size: int,
    steps: int,
    seed: int,
    prompt: list[str | None] | str | None = None,
    guidance_scale: float = 1.0,
) -> torch.Tensor:
    """Draw latents from noise alone.

    Args:
        model: The latent diffusion model, given a full mask.
        count: Number of latents N.
        size: Side of the decoded image in pixels, a multiple of 8.
        steps: DDIM steps.
        seed: Seed of the noise.
        prompt: What the images are made of, see `LatentInpainter.wish`.
        guidance_scale: 1 follows the model's own conditional distribution; more exaggerates the prompt.

    Returns:
        (N, C, size / 8, size / 8), not scaled: decode without image and mask.

    Raises:
        ValueError: `size` is not a positive multiple of 8.
    """
    if size < 8 or size % 8:
        raise ValueError(f"size: got {size}, expected a positive multiple of 8")
    nothing = torch.zeros(count, model.channels, size // 8, size // 8)
    return model.sample(nothing, torch.ones(count, 1, size, size), steps, seed, prompt, None, guidance_scale)

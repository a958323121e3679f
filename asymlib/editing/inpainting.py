"""Inpaint a photo: encode what is known, let the diffusion model fill the hole, decode with the known pixels."""

import numpy as np
import torch
from PIL import Image

from asymlib.data.images import to_tensor
from asymlib.data.masks import normalise_mask
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.inpainter import LatentInpainter


def inpaint(
    photo: Image.Image,
    mask: Image.Image,
    model: LatentInpainter,
    decoder: AsymmetricVQGAN,
    steps: int = 20,
    seed: int = 0,
) -> Image.Image:
    """Fill the white part of the mask.

    Args:
        photo: Any mode, any size.
        mask: Same size; white = hole, black = keep.
        model: Proposes the hole's latent.
        decoder: Decodes it, keeping the photo's known pixels as far as it can.
        steps: DDIM steps.
        seed: Seed of the initial noise.

    Returns:
        RGB image of the photo's size, rounded to 8 bits.

    Raises:
        ValueError: `photo` is not a PIL image, or the mask has another size.
    """
    if not isinstance(photo, Image.Image):
        raise ValueError(f"photo: got {type(photo).__name__}, expected a PIL image")
    image = to_tensor(np.asarray(photo.convert("RGB"))[None])
    hole = normalise_mask(mask, *image.shape[-2:])
    with torch.no_grad():
        masked_latent = decoder.encode((1 - hole) * image)
        height, width = (decoder.factor * side for side in masked_latent.shape[-2:])
        padded = torch.nn.functional.pad(
            hole, (0, width - hole.shape[-1], 0, height - hole.shape[-2]), mode="replicate"
        )
        latent = model.sample(masked_latent, padded, steps, seed)
        image_hat = decoder.decode(latent, image=image, mask=hole)
    pixels = ((image_hat[0].clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())

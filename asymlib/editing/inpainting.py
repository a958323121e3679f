"""Inpaint a photo: encode what is known, let the diffusion model fill the hole, decode with the known pixels."""

import torch
from PIL import Image

from asymlib.masks import normalise_mask
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.inpainter import LatentInpainter
from asymlib.pixels import pad_to_multiple, read_photo, to_picture


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
    image = read_photo(photo, "photo")
    hole = normalise_mask(mask, *image.shape[-2:])
    with torch.no_grad():
        masked_latent = decoder.encode((1 - hole) * image)
        latent = model.sample(masked_latent, pad_to_multiple(hole, decoder.factor), steps, seed)
        return to_picture(decoder.decode(latent, image=image, mask=hole))

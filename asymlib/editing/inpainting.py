"""Inpaint a photo: encode what is known, let the diffusion model fill the hole, decode with the known pixels."""

import torch
from PIL import Image

from asymlib.masks import normalise_mask
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.inpainter import LatentInpainter
from asymlib.pictures import read_photo
from asymlib.pixels import pad_to_multiple


def inpaint(
    photo: Image.Image,
    mask: Image.Image,
    model: LatentInpainter,
    decoder: AsymmetricVQGAN,
    steps: int = 20,
    seed: int = 0,
) -> Image.Image:
    """Fill the hole of a photo.

    Args:
        photo: As `read_photo` takes it; any size.
        mask: As `normalise_mask` takes it, of the upright photo's size; where it is between 0 and 1, the result fades.
        model: Proposes the hole's latent.
        decoder: Decodes it, told the known pixels.
        steps: DDIM steps.
        seed: Seed of the initial noise.

    Returns:
        The photo with its hole filled; known pixels, size and metadata are its own, see `Photo.edited`.

    Raises:
        ValueError: `photo` is no picture, or the mask none or of another size.
    """
    read = read_photo(photo, "photo")
    image, hole = read.tensor, normalise_mask(mask, *read.size).cpu()
    edited = (hole > 0).float()
    with torch.no_grad():
        masked_latent = decoder.encode((1 - edited) * image)
        latent = model.sample(masked_latent, pad_to_multiple(edited, decoder.factor), steps, seed)
        return read.edited(decoder.decode(latent, image=image, mask=edited), hole)

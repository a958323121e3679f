"""Inpaint a photo: encode what is known, let the diffusion model fill the hole, decode with the known pixels."""

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import pad

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
    image = read_photo(photo, "photo")
    hole = normalise_mask(mask, *image.shape[-2:])
    with torch.no_grad():
        masked_latent = decoder.encode((1 - hole) * image)
        latent = model.sample(masked_latent, to_cells(hole, decoder.factor), steps, seed)
        return to_picture(decoder.decode(latent, image=image, mask=hole))


def read_photo(photo: Image.Image, name: str) -> torch.Tensor:
    """(1, 3, H, W) in [-1, 1] of a PIL image of any mode; `name` is the argument that an error is about."""
    if not isinstance(photo, Image.Image):
        raise ValueError(f"{name}: got {type(photo).__name__}, expected a PIL image")
    return to_tensor(np.asarray(photo.convert("RGB"))[None])


def to_cells(tensor: torch.Tensor, factor: int) -> torch.Tensor:
    """Pad (N, C, H, W) by replication to sides that are multiples of `factor`."""
    return pad(tensor, (0, -tensor.shape[-1] % factor, 0, -tensor.shape[-2] % factor), mode="replicate")


def to_picture(image_hat: torch.Tensor) -> Image.Image:
    """RGB image of (1, 3, H, W) in [-1, 1], rounded to 8 bits."""
    pixels = ((image_hat[0].clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())

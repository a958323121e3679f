"""Inpaint a photo: encode what is known, let the diffusion model fill the hole, decode with the known pixels."""

import torch
from PIL import Image

from asymlib.editing.windows import Window, hole_window
from asymlib.masks import normalise_mask
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.inpainter import SIDE, LatentInpainter
from asymlib.models.last_word import LastWord
from asymlib.pictures import Photo, read_photo
from asymlib.pixels import pad_to_multiple


@torch.no_grad()
def inpaint(
    photo: Image.Image,
    mask: Image.Image,
    model: LatentInpainter,
    decoder: AsymmetricVQGAN,
    steps: int = 20,
    seed: int = 0,
    word: str | None = None,
    example: Image.Image | None = None,
    guidance_scale: float = 3.0,
    last_word: LastWord | None = None,
    paste: bool = True,
) -> Image.Image:
    """Fill the hole of a photo; of one much larger than what the model was trained on, in a window around the hole.

    Args:
        photo: As `read_photo` takes it; any size.
        mask: As `normalise_mask` takes it, of the upright photo's size; where it is between 0 and 1, the result fades.
        model: Proposes the hole's latent.
        decoder: Decodes it, told the known pixels.
        steps: DDIM steps.
        seed: Seed of the initial noise.
        word: What the hole should hold, of `models.words.WORDS`, such as "red dark".
        example: A picture whose colours it should have, as `read_photo` takes it; Paint by Example's task.
        guidance_scale: How strongly a word or an example is followed, see `LatentInpainter.predict`.
        last_word: Finishes what the decoder made, see `finish`.
        paste: Whether known pixels are the photo's own; if not, all that was decoded is shown, to see what it damages.

    Returns:
        The photo with its hole filled; known pixels, size and metadata are its own, see `Photo.edited`.

    Raises:
        ValueError: `photo` or `example` is no picture, the mask none or of another size, or a word is not known.
    """
    read = read_photo(photo, "photo")
    hole = normalise_mask(mask, *read.size).cpu()
    window = hole_window(hole, SIDE * decoder.factor, decoder.factor)
    known, edited = window.shrunk(read.tensor), window.shrunk_hole(hole)
    masked_latent = decoder.encode((1 - edited) * known)
    reference = None if example is None else decoder.encode(read_photo(example, "example").tensor)
    guidance_scale = guidance_scale if word or reference is not None else 1.0
    padded = pad_to_multiple(edited, decoder.factor)
    latent = model.sample(masked_latent, padded, steps, seed, word, reference, guidance_scale)
    shown = hole if paste else window.put_back(torch.ones_like(edited), torch.zeros_like(hole))
    return decoded(latent, edited, read, shown, window, decoder, last_word)


@torch.no_grad()
def decoded(
    latent: torch.Tensor,
    edited: torch.Tensor,
    photo: Photo,
    hole: torch.Tensor,
    window: Window,
    decoder: AsymmetricVQGAN,
    last_word: LastWord | None = None,
) -> Image.Image:
    """The photo with a window's edit in its hole.

    Args:
        latent: (1, C, h, w) of the window, not scaled.
        edited: (1, 1, h', w'), the window's mask at the size at which it was edited, 1 = hole.
        photo: All of it.
        hole: (1, 1, H, W), where the photo shows the edit; between 0 and 1 it fades.
        window: Which part was edited.
        decoder: Decodes it, told the known pixels.
        last_word: Finishes what it made, at the photo's resolution.
    """
    whole = photo.tensor
    image_hat = window.put_back(decoder.decode(latent, image=window.shrunk(whole), mask=edited).float(), whole)
    if last_word is not None:
        parts = (window.taken(part) for part in (whole, image_hat, (hole > 0).float()))
        image_hat = window.put_back(last_word(*parts), whole)
    return photo.edited(image_hat, hole)

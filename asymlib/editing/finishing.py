"""Finish what any model edited: the last word (`models.last_word`) on pictures, and in a pipeline of diffusers."""

import copy
import inspect
from functools import cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AsymmetricAutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput
from PIL import Image

from asymlib.masks import normalise_mask
from asymlib.models.last_word import LastWord
from asymlib.models.shipped import load
from asymlib.pictures import read_photo
from asymlib.pixels import resized

SAME_SHAPE = 0.02  # by which height / width of an edit may differ from the photo's: models round to multiples of 8


@torch.no_grad()
def finish(
    photo: Image.Image | np.ndarray | str | Path | torch.Tensor,
    edited: Image.Image | np.ndarray | str | Path | torch.Tensor,
    mask,
    strength: float = 1.0,
    model: LastWord | None = None,
) -> Image.Image | torch.Tensor:
    """The photo with the edit in its hole: known pixels untouched, colours met as far as the known pixels show how they
    changed, the edit not undone.

    Args:
        photo: A picture as `read_photo` takes it, or (N, 3, H, W) in [-1, 1]. Its pixels in the hole are not read.
        edited: The same, edited as a whole by anything. Of another size, such as a model works at, it is brought to the
            photo's; a tensor has to have it.
        mask: As `normalise_mask` takes it, of the upright photo's size; 1 = hole. Where it is between 0 and 1, the
            result fades to the photo.
        strength: In [0, 1]; 0 is the edit pasted back.
        model: The shipped one if none is given.

    Returns:
        A picture of the photo's size, with its metadata, see `Photo.edited`; or a tensor of edited's type and device.

    Raises:
        ValueError: One of them is no picture, they do not belong together, or `strength` is out of range.

    Example:
        >>> finish("photo.jpg", "edited.png", "mask.png").save("finished.png")  # doctest: +SKIP
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength: got {strength}, expected 0 to 1")
    model = shipped() if model is None else model
    if isinstance(photo, torch.Tensor):
        return _finish_tensors(photo, edited, mask, strength, model)
    read, given = read_photo(photo, "photo"), read_photo(edited, "edited")
    came, expected = (height / width for height, width in (given.size, read.size))
    if abs(came / expected - 1) > SAME_SHAPE:
        sizes = ["{1} x {0}".format(*picture.size) for picture in (given, read)]
        raise ValueError(f"edited: got {sizes[0]}, expected the shape of the photo's {sizes[1]}")
    hole = normalise_mask(mask, *read.size).cpu()
    if len(hole) != 1:
        raise ValueError(f"mask: got {len(hole)}, expected one")
    device = model.device
    whole = (hole > 0).float()  # the photo fades the edit in itself
    made = model(read.tensor.to(device), resized(given.tensor.to(device), read.size), whole.to(device), strength)
    return read.edited(made, hole)


def with_last_word(vae, strength: float = 1.0, model: LastWord | None = None):
    """An autoencoder that finishes what it decodes, where it is handed the photo and the mask.

    `StableDiffusionInpaintPipeline` hands them over: `pipe.vae = with_last_word(pipe.vae)` is all that it needs.
    Decoded without them, as every other pipeline does, it is the autoencoder that it was; see `decode_with` for those.

    Args:
        vae: Any autoencoder of diffusers, or an `AsymmetricVQGAN`, which is handed photo and mask as well. It is left
            as it is; the weights are shared.
        strength: See `finish`.
        model: See `finish`.

    Example:
        >>> pipe.vae = with_last_word(pipe.vae)  # doctest: +SKIP
        >>> pipe("a bench", image=photo, mask_image=mask).images[0]  # doctest: +SKIP
    """
    finished = copy.copy(vae)
    # the one class that diffusers hands photo and mask to
    asymmetric = () if isinstance(vae, AsymmetricAutoencoderKL) else (AsymmetricAutoencoderKL,)
    finished.__class__ = type(type(vae).__name__, (_Finished, type(vae), *asymmetric), {})
    # not a part of the module: what saves or halves the autoencoder leaves it alone
    object.__setattr__(finished, "_finish", (shipped() if model is None else model, strength))
    return finished


class _Finished:
    """What stands before an autoencoder's class; its `decode` takes photo and mask."""

    @torch.no_grad()
    def decode(self, z: torch.Tensor, *args, image=None, mask=None, return_dict: bool = True, **named):
        decode = super().decode
        if "image" in inspect.signature(decode).parameters:
            named |= {"image": image, "mask": mask}
        made = decode(z, *args, **named)
        sample = made if isinstance(made, torch.Tensor) else made[0]
        if image is not None:
            model, strength = self._finish
            photo, hole = (part.expand(len(sample), -1, -1, -1) for part in (image, mask))
            sample = model.to(sample.device)(photo, sample, hole, strength)
        if isinstance(made, torch.Tensor):
            return sample
        return DecoderOutput(sample=sample) if return_dict else (sample,)


@cache
def shipped() -> LastWord:
    """The one that comes with the package."""
    return load("last_word")


def _finish_tensors(photo, edited, mask, strength: float, model: LastWord) -> torch.Tensor:
    for name, tensor in (("photo", photo), ("edited", edited)):
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 4 or tensor.shape[1] != 3:
            came = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise ValueError(f"{name}: got {came}, expected a tensor (N, 3, H, W), as the photo is one")
    if photo.shape != edited.shape:
        raise ValueError(f"edited: got {tuple(edited.shape)}, expected the photo's {tuple(photo.shape)}")
    hole = normalise_mask(mask, *photo.shape[-2:])
    if len(hole) not in (1, len(photo)):
        raise ValueError(f"mask: got {len(hole)}, expected 1 or {len(photo)}")
    hole = hole.to(edited.device).expand(len(photo), -1, -1, -1)
    return model.to(edited.device)(photo, edited, hole, strength)

"""Decode what any latent inpainting or editing pipeline of diffusers makes, and put it into the photo.

Only `StableDiffusionInpaintPipeline` hands image and mask to its autoencoder (`vae=vqgan.to_diffusers()` serves it);
every other pipeline would decode without a condition, and without a warning. Here the pipeline stops at the latents.
"""

import inspect
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderKL, DiffusionPipeline, VQModel
from PIL import Image
from torch.nn.functional import interpolate, pixel_shuffle
from torchvision.transforms.functional import to_pil_image

from asymlib.editing.windows import fitted, shrunk, window_around
from asymlib.masks import normalise_mask
from asymlib.models.construction import asymmetric_vqgan
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.holes import decode_hole, parts_of
from asymlib.models.last_word import LastWord
from asymlib.pictures import Photo, read_mask, read_photo
from asymlib.pixels import resized, to_picture

# what makes a latent one first stage's and not another's: Stable Diffusion 1.5 and XL have the same shape
SPACE = ("latent_channels", "scaling_factor", "shift_factor", "latents_mean", "latents_std")


@torch.no_grad()
def decode_with(
    vqgan: AsymmetricVQGAN | AsymmetricAutoencoderKL | AutoencoderKL | VQModel,
    pipe: DiffusionPipeline,
    image: Image.Image,
    mask,
    padding_mask_crop: int | None = None,
    last_word: LastWord | None = None,
    hole_only: bool = False,
    **call: Any,
) -> list[Image.Image]:
    """Run a pipeline up to its latents, decode them with the image's known pixels, and put the hole into the image.

    The photo, or a window of it, is brought to the size that the pipeline works at and its edit back to the photo's.
    That size is `height` and `width` where they are given; else the photo's own, where it is near the one that the
    model was trained on, and scaled to that area where it is not.

    Args:
        vqgan: A decoder for the first stage of the pipeline; or a plain autoencoder, such as that first stage itself,
            whose decoder knows of no mask.
        pipe: Any pipeline whose call can return latents, (N, C, h, w) or in FLUX's packed form (N, h/2 w/2, 4C). It
            gets `image` and `mask_image` where its call takes them.
        image: The photo, as `read_photo` takes it, of any size.
        mask: A PIL image, or what `normalise_mask` takes (1 = hole); of the photo's or, such as
            `StableDiffusionDiffEditPipeline.generate_mask` returns it, the latent's size.
        padding_mask_crop: Edit only a window around the hole, this many pixels larger on each side, at the pipeline's
            size: more detail in small holes of large photos.
        last_word: Finishes what the decoder made, see `finish`; `load("last_word")` is the shipped one.
        hole_only: Decode windows around the hole and not the whole picture, see `decode_hole`: two to three times as
            fast where the hole is small and the picture of 512 px or more. For decoders without a branch; what is
            finished is then of the pipeline's size, and the last word sees of the known pixels those of the window.
        call: Further arguments of the pipeline: `prompt`, `num_images_per_prompt`, `height`, `generator`;
            `control_image` for ControlNet, `example_image` for Paint by Example, `image_latents` for DiffEdit.

    Returns:
        As many pictures as the pipeline made latents, of the photo's size, with its untouched pixels and its metadata,
        see `Photo.edited`.

    Raises:
        ValueError: A pipeline that cannot return latents, a decoder for another latent space, no photo, or a mask of
            another size or, for a window, without a hole.

    Example:
        >>> decode_with(vqgan, pipe, photo, mask, prompt="a cat", num_images_per_prompt=2)  # doctest: +SKIP
    """
    vqgan = _decoder_of(vqgan)
    _require_fit(vqgan, pipe)
    if hole_only:
        parts_of(vqgan.decoder)  # refuses what it cannot decode before the costly part
    photo = read_photo(image, "image")
    hole, coarse = _hole(mask, photo, vqgan.factor)
    side = _trained_side(pipe, vqgan)
    rows, columns = window_around(hole, padding_mask_crop, side)
    whole = photo.tensor
    known, edited = whole[..., rows, columns].clone(), (hole > 0).float()[..., rows, columns]
    taken = inspect.signature(pipe.__call__).parameters
    size = fitted(known.shape[-2:], side, 2 * vqgan.factor)
    size = call.get("height") or size[0], call.get("width") or size[1]
    cells = tuple(extent // vqgan.factor for extent in size)
    given = {
        "image": to_picture(resized(known, size)),
        "mask_image": _picture(shrunk(edited, cells if coarse else size)),
    }
    given |= {"height": size[0], "width": size[1]}
    latent = _latent(pipe, vqgan, {name: value for name, value in given.items() if name in taken} | call, size)
    size = tuple(vqgan.factor * cells for cells in latent.shape[-2:])
    latent = vqgan.unscale(latent.to(vqgan.device))
    given = resized(known, size), shrunk(edited, size)
    if hole_only:
        given = [part.expand(len(latent), -1, -1, -1) for part in given]
        finisher = torch.lerp if last_word is None else partial(_finished_where_it_is, last_word)
        image_hat, last_word = decode_hole(vqgan, latent, *given, finisher), None
    else:
        image_hat = vqgan.decode(latent, *given)
    results = []
    for one in image_hat.float().cpu().split(1):
        made = resized(one, known.shape[-2:])
        whole[..., rows, columns] = made if last_word is None else last_word(known, made, edited)
        results.append(photo.edited(whole, hole))
    return results


def _decoder_of(autoencoder) -> AsymmetricVQGAN:
    """What decodes as an autoencoder of diffusers does, where it lies and in its type."""
    if isinstance(autoencoder, AsymmetricVQGAN):
        return autoencoder
    if isinstance(autoencoder, AsymmetricAutoencoderKL):
        same = AsymmetricVQGAN.from_diffusers(autoencoder)
    elif isinstance(autoencoder, (AutoencoderKL, VQModel)):
        same = asymmetric_vqgan(autoencoder, branch=False)
    else:
        kinds = ", ".join(kind.__name__ for kind in (AsymmetricVQGAN, AsymmetricAutoencoderKL, AutoencoderKL, VQModel))
        raise ValueError(f"vqgan: got {type(autoencoder).__name__}, expected one of {kinds}")
    return same.to(autoencoder.device, autoencoder.dtype)


def _finished_where_it_is(last_word: LastWord, *pictures: torch.Tensor) -> torch.Tensor:
    return last_word(*(picture.to(last_word.device, torch.float32) for picture in pictures)).to(pictures[0])


def _hole(mask, photo: Photo, factor: int) -> tuple[torch.Tensor, bool]:
    """(1, 1, H, W) of the photo's size, and whether it came in the latent's and was enlarged cell by cell."""
    values = read_mask(mask) if isinstance(mask, Image.Image) else mask
    size = tuple(getattr(values, "shape", ()))[-2:]
    cells = tuple(side // factor for side in photo.size)
    if len(size) == 2 and size not in (photo.size, cells):
        came, whole, coarse = ("{1} x {0}".format(*sides) for sides in (size, photo.size, cells))
        raise ValueError(f"mask: got {came}, expected the upright image's {whole} or its latent's {coarse}")
    hole = normalise_mask(values, *(size if len(size) == 2 else photo.size))
    if len(hole) != 1:
        raise ValueError(f"mask: got {len(hole)}, expected one")
    return interpolate(hole.cpu(), photo.size, mode="nearest"), size != photo.size


def _trained_side(pipe: DiffusionPipeline, vqgan: AsymmetricVQGAN) -> int | None:
    """Side in pixels of the squares that the diffusion model was trained on, where the pipeline knows it."""
    config = getattr(getattr(pipe, "unet", None), "config", {})
    cells = getattr(pipe, "default_sample_size", None) or config.get("sample_size")
    cells = max(cells) if isinstance(cells, (list, tuple)) else cells
    return cells * vqgan.factor if cells else None


def _picture(hole: torch.Tensor) -> Image.Image:
    return to_pil_image(hole[0].float())


def _latent(
    pipe: DiffusionPipeline, vqgan: AsymmetricVQGAN, call: dict[str, Any], size: tuple[int, int]
) -> torch.Tensor:
    """(N, C, h, w), as the diffusion model scales it."""
    channels = vqgan.latent_channels
    latent = pipe(**call, output_type="latent")[0]
    if isinstance(latent, torch.Tensor) and latent.ndim == 3 and latent.shape[-1] == 4 * channels:
        rows, columns = (extent // (2 * vqgan.factor) for extent in size)
        if rows * columns != latent.shape[1]:
            came = latent.shape[1]
            raise ValueError(f"latent: got {came} patches, expected {rows} x {columns}; give height and width")
        latent = pixel_shuffle(latent.transpose(1, 2).unflatten(2, (rows, columns)), 2)
    if not isinstance(latent, torch.Tensor) or latent.ndim != 4 or latent.shape[1] != channels:
        came = tuple(latent.shape) if isinstance(latent, torch.Tensor) else type(latent).__name__
        raise ValueError(f"pipe: got {came} from {type(pipe).__name__}, expected latents (N, {channels}, h, w)")
    return latent


def _require_fit(vqgan: AsymmetricVQGAN, pipe: DiffusionPipeline) -> None:
    """Before the costly part: the pipeline has latents to give, and they are of the decoder's first stage."""
    if "output_type" not in inspect.signature(pipe.__call__).parameters or getattr(pipe, "vae", None) is None:
        raise ValueError(f"pipe: got {type(pipe).__name__}, expected a pipeline with a vae that can return latents")
    ours = vqgan.config | (vqgan.config.first_stage or {})
    for key in SPACE:
        came, expected = ours.get(key), pipe.vae.config.get(key)
        if not np.array_equal(came, expected):
            raise ValueError(f"vqgan: got {key} {came}, expected {expected} as in the vae of {type(pipe).__name__}")

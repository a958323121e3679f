"""Decode what any latent inpainting or editing pipeline of diffusers makes, keeping the known pixels.

Only `StableDiffusionInpaintPipeline` hands image and mask to its autoencoder (`vae=vqgan.to_diffusers()` serves it);
every other pipeline would decode without a condition, and without a warning. Here the pipeline stops at the latents.
"""

import inspect
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch.nn.functional import pixel_shuffle

from asymlib.masks import normalise_mask
from asymlib.models.decoder import AsymmetricVQGAN

# what makes a latent one first stage's and not another's: Stable Diffusion 1.5 and XL have the same shape
SPACE = ("latent_channels", "scaling_factor", "shift_factor", "latents_mean", "latents_std")


@torch.no_grad()
def decode_with(
    vqgan: AsymmetricVQGAN, pipe: DiffusionPipeline, image: Image.Image, mask, **call: Any
) -> list[Image.Image]:
    """Run a pipeline up to its latents, and decode them with the known pixels of the image.

    The pipeline gets `image` and `mask_image` where its call takes them, and everything in `call`. Image and mask are
    then brought to the size that it worked at as the pipelines do it: Lanczos, the mask thresholded at half. A mask
    of the latent's size, such as `StableDiffusionDiffEditPipeline.generate_mask` returns, is enlarged cell by cell.

    Args:
        vqgan: A decoder for the first stage of the pipeline.
        pipe: Any pipeline whose call can return latents, (N, C, h, w) or in FLUX's packed form (N, h/2 w/2, 4C).
        image: The photo, any size and mode.
        mask: A PIL image (white = hole), or what `normalise_mask` takes (1 = hole); of the photo's or the latent's
            size (DiffEdit takes only the latter).
        call: Further arguments of the pipeline: `prompt`, `num_images_per_prompt`, `height`, `generator`;
            `control_image` for ControlNet, `example_image` for Paint by Example, `image_latents` for DiffEdit.

    Returns:
        As many RGB images as the pipeline made latents, of the size that it works at, rounded to 8 bits.

    Raises:
        ValueError: A pipeline that cannot return latents, a decoder for another latent space, a photo that is no PIL
            image, or a mask of another size.

    Example:
        >>> decode_with(vqgan, pipe, photo, mask, prompt="a cat", num_images_per_prompt=2)  # doctest: +SKIP
    """
    _require_fit(vqgan, pipe)
    if not isinstance(image, Image.Image):
        raise ValueError(f"image: got {type(image).__name__}, expected a PIL image")
    image, mask = image.convert("RGB"), _picture(mask)
    cells = tuple(side // vqgan.factor for side in image.size)
    if mask.size not in (image.size, cells):
        came, photo, coarse = ("{} x {}".format(*size) for size in (mask.size, image.size, cells))
        raise ValueError(f"mask: got {came}, expected the image's {photo} or its latent's {coarse}")

    taken = inspect.signature(pipe.__call__).parameters
    pictures = {name: value for name, value in (("image", image), ("mask_image", mask)) if name in taken}
    latent = _latent(pipe, vqgan, pictures | call)
    height, width = (vqgan.factor * side for side in latent.shape[-2:])
    if mask.size == cells:
        mask = mask.resize((width, height), Image.Resampling.NEAREST)
    known = VaeImageProcessor().preprocess(image, height, width)
    hole = VaeImageProcessor(do_normalize=False, do_binarize=True).preprocess(mask, height, width)
    latent, known, hole = (tensor.to(vqgan.device) for tensor in (latent, known, hole))
    image_hat = vqgan.decode(vqgan.unscale(latent), known, hole)
    return VaeImageProcessor().postprocess(image_hat.float(), output_type="pil")


def _latent(pipe: DiffusionPipeline, vqgan: AsymmetricVQGAN, call: dict[str, Any]) -> torch.Tensor:
    """(N, C, h, w), as the diffusion model scales it."""
    channels = vqgan.latent_channels
    latent = pipe(**call, output_type="latent")[0]
    if isinstance(latent, torch.Tensor) and latent.ndim == 3 and latent.shape[-1] == 4 * channels:
        default = getattr(pipe, "default_sample_size", 0) * vqgan.factor
        rows, columns = ((call.get(side) or default) // (2 * vqgan.factor) for side in ("height", "width"))
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


def _picture(mask) -> Image.Image:
    """One mask as an 8-bit image, white = hole."""
    if isinstance(mask, Image.Image):
        return mask.convert("L")
    shape = tuple(getattr(mask, "shape", ()))
    hole = normalise_mask(mask, *(shape[-2:] if len(shape) > 1 else (0, 0)))
    if len(hole) != 1:
        raise ValueError(f"mask: got {len(hole)}, expected one")
    return Image.fromarray((hole[0, 0].cpu() * 255).round().byte().numpy())

"""Local editing with the small latent diffusion model: by a prompt, with a mask that the model finds itself, and by an
example. As in the paper's tasks the result is a latent and a mask, which a decoder turns into pixels."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from PIL import Image
from torch.nn.functional import interpolate, pad

from asymlib.editing.inpainting import decoded, inpaint
from asymlib.editing.windows import NEAR, Window, fitted
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.inpainter import SIDE, LatentInpainter, noise
from asymlib.pictures import read_photo
from asymlib.pixels import pad_to_multiple

BORDER = 8  # cells of margin around a latent: convolutions see the picture's edge, and prompts disagree there most

Encode = Callable[[torch.Tensor], torch.Tensor]


class Editor(Protocol):
    """A diffusion model with ways of its own to edit, such as Stable Diffusion's pipelines (`asymlib.study.hub`)."""

    def edit_by_prompt(self, image, source, target, steps, seed, guidance_scale, mask=None): ...

    def edit_by_example(self, image, mask, example, steps, seed, guidance_scale): ...


class Edit(NamedTuple):
    """What a decoder is given: latent (N, C, h, w), not scaled, and mask (N, 1, 8h, 8w), 1 = was edited."""

    latent: torch.Tensor
    mask: torch.Tensor


def edit_by_prompt(
    encode: Encode,
    model: LatentInpainter | Editor,
    image: torch.Tensor,
    source: list[str | None] | str | None,
    target: list[str] | str,
    steps: int,
    seed: int,
    guidance_scale: float = 3.0,
    mask: torch.Tensor | None = None,
) -> Edit:
    """Change what a prompt says: find the region that it is about, and fill it anew.

    The model was trained with prompts that describe the hole, so the hole is asked for the words that the target adds
    to the source, and for the whole target where it adds none.

    Args:
        encode: (N, 3, H, W) in [-1, 1] -> latent (N, C, h, w), not scaled; the frozen encoder's mean.
        model: The small latent diffusion model, or pipelines of the hub.
        image: (N, 3, H, W) in [-1, 1], sides multiples of 8.
        source: What the image shows, such as "red dark", for all or for each image; None says nothing.
        target: What it should show, such as "blue dark".
        steps: DDIM steps.
        seed: Seed of the noise, of the mask's and of the sample's.
        guidance_scale: See `LatentInpainter.predict`.
        mask: (N, 1, H, W), 1 = edit here; by default `edit_mask` finds it.
    """
    if not isinstance(model, LatentInpainter):
        return Edit(*model.edit_by_prompt(image, source, target, steps, seed, guidance_scale, mask))
    if mask is None:
        mask = edit_mask(model, encode(image), source, target, seed)
    known = encode((1 - mask.to(image)) * image)
    return Edit(model.sample(known, mask, steps, seed, added_words(source, target), None, guidance_scale), mask)


def edit_by_example(
    encode: Encode,
    model: LatentInpainter | Editor,
    image: torch.Tensor,
    mask: torch.Tensor,
    example: torch.Tensor,
    steps: int,
    seed: int,
    guidance_scale: float = 3.0,
) -> Edit:
    """Fill the hole with something like another image: Paint by Example's task.

    Args:
        encode: (N, 3, H, W) in [-1, 1] -> latent (N, C, h, w), not scaled; the frozen encoder's mean.
        model: The small latent diffusion model, or pipelines of the hub.
        image: (N, 3, H, W) in [-1, 1], sides multiples of 8.
        mask: (N, 1, H, W), 1 = hole.
        example: (N or 1, 3, H', W') in [-1, 1], of any size. Its latent goes through a
            bottleneck, mean and deviation, so that it cannot be copied; Paint by Example's is one CLIP token.
        steps: DDIM steps.
        seed: Seed of the noise.
        guidance_scale: See `LatentInpainter.predict`.
    """
    if not isinstance(model, LatentInpainter):
        return Edit(model.edit_by_example(image, mask, example, steps, seed, guidance_scale), mask)
    known = encode((1 - mask.to(image)) * image)
    reference = encode(example)
    return Edit(model.sample(known, mask, steps, seed, None, reference, guidance_scale), mask)


def added_words(source: list[str | None] | str | None, target: list[str] | str) -> list[str] | str:
    """The words of the target that the source lacks, or the target where there are none."""
    if isinstance(target, list):
        sources = source if isinstance(source, list) else [source] * len(target)
        return [added_words(before, after) for before, after in zip(sources, target, strict=True)]
    return " ".join(word for word in target.split() if word not in (source or "").split()) or target


@torch.no_grad()
def edit_mask(
    model: LatentInpainter,
    latent: torch.Tensor,
    source: list[str | None] | str | None,
    target: list[str] | str,
    seed: int,
    maps: int = 10,
    strength: float = 0.5,
    ratio: float = 3.0,
) -> torch.Tensor:
    """Where two prompts disagree about a noisy latent: the region that has to change.

    Args:
        model: The latent diffusion model; it is shown the noisy latent alone, nothing as known.
        latent: (N, C, h, w), the image's, not scaled.
        source: What the image shows.
        target: What it should show.
        seed: Seed of the noise; both prompts see the same.
        maps: Over how many draws of noise the disagreement is averaged.
        strength: How far the latent is noised, as a share of the timesteps.
        ratio: The disagreement is clipped at `ratio` times its mean, and cut half-way between its extremes.

    Returns:
        (N, 1, 8h, 8w), 1 = edit; all zeros where the prompts do not disagree at all.

    Source: DiffEdit, Couairon et al. 2022, section 3.2 (clip, rescale to [0, 1], cut at 0.5); the defaults are those of
        diffusers' `StableDiffusionDiffEditPipeline`. Velocities differ as noises do, times a constant of the timestep.
    """
    latent = latent.to(model.device, model.dtype)
    height, width = latent.shape[-2:]
    bottom, right = BORDER + -height % BORDER, BORDER + -width % BORDER
    clean = pad(latent * model.scaling_factor, (BORDER, right, BORDER, bottom), mode="replicate")
    t = torch.tensor(int(strength * model.scheduler.config.num_train_timesteps), device=latent.device)
    known = model.known(torch.zeros_like(clean), torch.ones_like(clean[:, :1]))
    wishes = [model.wish(len(latent), prompt) for prompt in (source, target)]
    difference = torch.zeros_like(clean[:, 0])
    for draw in range(maps):
        drawn = noise(len(clean), clean.shape[1:], seed * maps + draw).to(clean)
        noisy = model.scheduler.add_noise(clean, drawn, t)
        before, after = (model.predict(noisy, t, known, wish) for wish in wishes)
        difference += (after - before).abs().sum(1)
    difference = difference[:, BORDER : BORDER + height, BORDER : BORDER + width]
    clipped = difference.minimum(ratio * difference.mean((1, 2), keepdim=True))
    low, high = clipped.amin((1, 2), keepdim=True), clipped.amax((1, 2), keepdim=True)
    small = (clipped > (low + high) / 2).float()[:, None]
    return interpolate(small, scale_factor=8, mode="nearest")


def edit_photo(
    photo: Image.Image,
    source: str | None,
    target: str,
    model: LatentInpainter,
    decoder: AsymmetricVQGAN,
    steps: int = 20,
    seed: int = 0,
    guidance_scale: float = 5.0,
) -> Image.Image:
    """`edit_by_prompt` for a photo as `read_photo` takes it; size, metadata and what was not edited are its own.

    Raises:
        ValueError: `photo` is no picture, or a prompt has an unknown word.
    """
    read = read_photo(photo, "photo")
    size = read.size
    everywhere = Window(slice(None), slice(None), size)
    if size[0] * size[1] > NEAR * (side := SIDE * decoder.factor) ** 2:
        everywhere = everywhere._replace(size=fitted(size, side, decoder.factor))
    padded = pad_to_multiple(everywhere.shrunk(read.tensor), decoder.factor)
    edit = edit_by_prompt(decoder.encode, model, padded, source, target, steps, seed, guidance_scale)
    mask = edit.mask[..., : everywhere.size[0], : everywhere.size[1]].cpu()
    return decoded(edit.latent, mask, read, interpolate(mask, size), everywhere, decoder)


def paint_by_example(
    photo: Image.Image,
    mask: Image.Image,
    example: Image.Image,
    model: LatentInpainter,
    decoder: AsymmetricVQGAN,
    steps: int = 20,
    seed: int = 0,
    guidance_scale: float = 3.0,
) -> Image.Image:
    """`inpaint` with an example; kept as the name of the paper's task."""
    return inpaint(photo, mask, model, decoder, steps, seed, None, example, guidance_scale)

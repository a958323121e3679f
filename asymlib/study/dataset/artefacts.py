"""Edits as latent editors leave them, simulated so that the right answer is known: what the last word learns from.

A photo gets other content in a hole; the whole picture goes through some autoencoder, its latent perhaps drifting as a
diffusion model lets it drift; what comes out is perhaps under a change of colours. Right is the content as it was
meant, before all that.
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch.nn.functional import interpolate, pad
from torchvision.transforms.functional import gaussian_blur
from tqdm import tqdm

from asymlib.masks import KINDS, evaluation_mask, grow
from asymlib.models.first_stage import FirstStage
from asymlib.models.last_word import carried, distances
from asymlib.pixels import to_picture, to_pixels, to_tensor
from asymlib.study.edits import TINTS, change_colours, recoloured, removed
from asymlib.study.training.pca import PatchPCA

CONTENTS = {"own": 0.25, "swapped": 0.2, "removed": 0.15, "recoloured": 0.2, "continued": 0.2}  # and how often
MASKS = (*KINDS, "frame", "outpainting")
SOFT = 0.3  # share of the edits whose edge is not quite the mask's
DRIFTING = 0.5  # share of the latents that drift; of a continued content all do, or there is nothing to learn from it
IN_THE_HOLE = 0.5  # of them in the hole alone, as where known cells are put back
TINTED = {0: 0.4, 1: 0.4, 2: 0.2}  # how many changes of colours lie over a picture, and how often
SLOWEST = 256  # pixels; to remove something from larger pictures takes too long


class Codec(NamedTuple):
    """Something that damages a picture: (1, 3, H, W) in [-1, 1] -> latent -> picture. `unit` is the latents' deviation;
    0 where the latent is a picture, which does not drift."""

    encode: Callable[[torch.Tensor], torch.Tensor]
    decode: Callable[[torch.Tensor], torch.Tensor]
    unit: float


class Artefacts(NamedTuple):
    """Edits of one size, uint8: photo, edited and meant (N, 3, S, S), equal in photo and meant outside the mask
    (N, 1, S, S), which is 1 in the hole; and for each edit (codec, content, colour changes)."""

    photo: torch.Tensor
    edited: torch.Tensor
    meant: torch.Tensor
    mask: torch.Tensor
    kinds: list[tuple[str, str, str]]

    def without(self, kind: str) -> "Artefacts":
        """Those that have no codec, content or change of colours of that name."""
        left = [
            i for i, (codec, content, tints) in enumerate(self.kinds) if kind not in (codec, content, *tints.split("+"))
        ]
        return Artefacts(*(plane[left] for plane in self[:4]), [self.kinds[i] for i in left])


def simulate(
    codecs: dict[str, Codec],
    images: torch.Tensor,
    counts: dict[int, int],
    seed: int,
) -> dict[int, Artefacts]:
    """Simulated edits, size in pixels -> edits.

    Args:
        codecs: By name; each is used as often as the others.
        images: (N, 3, S, S) uint8, photographs.
        counts: Size -> how many.
        seed: Seed of all choices; one edit does not depend on how many there are.
    """
    sizes = {}
    for size, count in counts.items():
        edits = [
            _one(codecs, images, size, np.random.default_rng([seed, 50, size, i]))
            for i in tqdm(range(count), desc=f"edits of {size} px", mininterval=5)
        ]
        *planes, kinds = zip(*edits, strict=True)
        sizes[size] = Artefacts(*(torch.cat(plane) for plane in planes), list(kinds))
    return sizes


@torch.no_grad()
def _one(codecs, images: torch.Tensor, size: int, rng: np.random.Generator) -> tuple:
    photo, other = (_picture(images, size, rng) for _ in range(2))
    mask = draw_mask(_choice({kind: 1 for kind in MASKS}, rng), size, rng)
    contents = {name: share for name, share in CONTENTS.items() if name != "removed" or size <= SLOWEST}
    content = _choice(contents, rng)
    name = _choice({codec: 1 for codec in codecs}, rng)
    codec, region = codecs[name], _edge(mask, rng)
    if content == "swapped" and codec.unit and rng.random() < 0.5:  # as cells are exchanged, not pixels
        meant, region = torch.where(mask > 0, other, photo), mask
        own, foreign = codec.encode(photo), codec.encode(other)
        latent = torch.where(interpolate(mask, own.shape[-2:]) > 0, foreign, own)
    else:
        meant = photo + region * (_content(content, photo, other, mask, rng) - photo)
        latent = codec.encode(meant)
    if codec.unit and (content == "continued" or rng.random() < DRIFTING):
        latent = latent + codec.unit * _drift(latent, mask, rng)
    edited = codec.decode(latent).clamp(-1, 1)
    tints = [_choice({kind: 1 for kind in TINTS}, rng) for _ in range(_choice(TINTED, rng))]
    for kind in tints:
        edited = change_colours((edited[0] + 1) / 2, kind, rng).clamp(0, 1)[None] * 2 - 1
    pictures = photo, edited, torch.where(mask > 0, meant, photo)
    return *(_stored(picture) for picture in pictures), mask.byte(), (name, content, "+".join(tints))


def draw_mask(kind: str, size: int, rng: np.random.Generator) -> torch.Tensor:
    """(1, 1, size, size), 1 = hole: one of KINDS; `frame`, of which only 1 to 8 pixels at the border are known; or
    `outpainting`, of which one side is, 20 to 70 % of the picture."""
    if kind in KINDS:
        return torch.from_numpy(evaluation_mask(kind, size, rng))[None, None].float()
    mask = torch.ones(1, 1, size, size)
    if kind == "frame":
        width = int(rng.integers(1, 9))
        mask[..., :width, :] = mask[..., -width:, :] = mask[..., :width] = mask[..., -width:] = 0
        return mask
    mask[..., : round(rng.uniform(0.2, 0.7) * size)] = 0
    return torch.rot90(mask, int(rng.integers(4)), (2, 3)).contiguous()


def fixed_codecs(first_stages: dict[str, FirstStage], images: torch.Tensor) -> dict[str, Codec]:
    """What needs no training: autoencoders that are there, linear codes, JPEG, and a lower resolution.

    Args:
        first_stages: Name -> autoencoder.
        images: (N, 3, S, S) uint8, to fit the linear codes to.
    """
    codecs = {name: autoencoder_codec(model, images) for name, model in first_stages.items()}
    for factor, channels in ((4, 8), (8, 12)):
        pca = PatchPCA(to_tensor(images[:512]), channels, factor)
        codecs[f"pca_f{factor}"] = Codec(pca.encode, pca.decode, 1.0)
    return codecs | {"jpeg": Codec(_jpeg, lambda picture: picture, 0.0), "resampled": Codec(_coarse, _fine, 0.0)}


def autoencoder_codec(model: FirstStage, images: torch.Tensor) -> Codec:
    """An autoencoder of diffusers as a codec; its unit from the latents of some of the images."""
    with torch.no_grad():
        unit = float(_mean(model, to_tensor(images[:16])).std())
    return Codec(lambda picture: _mean(model, picture), lambda latent: model.decode(latent).sample, unit)


def small_autoencoder(factor: int, channels: int, width: int, seed: int) -> AutoencoderKL:
    """A small autoencoder with random weights.

    Args:
        factor: Pixels a side of a latent's cell, a power of two.
        channels: Of a latent.
        width: Channels at full resolution, a multiple of 8; twice as many below.
        seed: Seed of the weights.
    """
    levels = factor.bit_length()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=(width, *[2 * width] * (levels - 1)),
            latent_channels=channels,
            norm_num_groups=8,
            mid_block_add_attention=False,
        ).eval()


def _mean(model: FirstStage, picture: torch.Tensor) -> torch.Tensor:
    made = model.encode(picture)
    return made.latent_dist.mean if hasattr(made, "latent_dist") else made[0]


def _picture(images: torch.Tensor, size: int, rng: np.random.Generator) -> torch.Tensor:
    """(1, 3, size, size) in [-1, 1]: a place in one of the images, at its own scale or half of it, or enlarged."""
    image = to_tensor(images[int(rng.integers(len(images)))][None])
    side = image.shape[-1]
    if side < size:
        return interpolate(image, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)
    if side >= 2 * size and rng.random() < 0.5:
        image = interpolate(image, (side // 2, side // 2), mode="area")
    y, x = rng.integers(0, image.shape[-1] - size + 1, 2)
    crop = image[..., y : y + size, x : x + size]
    return crop.flip(-1) if rng.random() < 0.5 else crop


def _content(name: str, photo, other, mask, rng: np.random.Generator) -> torch.Tensor:
    """What the hole shall show, as a whole picture."""
    if name == "removed":
        return removed(photo, mask)
    if name == "recoloured":
        return recoloured(photo, torch.ones_like(mask), int(rng.integers(2**31)))
    if name == "continued":
        return _continued(photo, other, mask, rng)
    return other if name == "swapped" else photo


def _continued(photo, other, mask, rng: np.random.Generator) -> torch.Tensor:
    """What is around the hole carried smoothly into it, as a diffusion model's vague holes continue a picture, and some
    pixels behind the rim, perhaps, another picture's detail. No step along the rim is meant."""
    known = (mask == 0).float()
    smooth = gaussian_blur(carried(known * photo, known), 25, float(rng.uniform(0.5, 4)))
    detail = other - gaussian_blur(other, 25, float(rng.uniform(1, 4)))
    behind = (distances(known)[0] / rng.uniform(2, 16) - rng.uniform(0, 1)).clamp(0, 1)
    return smooth + rng.uniform(0, 1) * behind * detail


def _edge(mask: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Where the edit is: the mask, or not quite; moved, larger or smaller by up to 3 px, or soft."""
    if rng.random() >= SOFT:
        return mask
    how = rng.integers(3)
    if how == 0:
        y, x = rng.integers(0, 7, 2)
        return pad(mask, (3, 3, 3, 3), mode="replicate")[..., y : y + mask.shape[-2], x : x + mask.shape[-1]]
    if how == 1:
        return grow(mask, int(rng.integers(-3, 4)))
    return gaussian_blur(mask, 13, float(rng.uniform(0.5, 3)))


def _drift(latent: torch.Tensor, mask: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """By how much a diffusion model misses a latent, in units of its deviation: smoothly, and a little everywhere; or
    in the hole alone."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    cells = int(rng.integers(1, 5))
    slow = torch.randn(1, latent.shape[1], cells, cells, generator=generator)
    slow = interpolate(slow, latent.shape[-2:], mode="bilinear") if cells > 1 else slow
    fast = torch.randn(latent.shape, generator=generator)
    drift = rng.uniform(0.02, 0.4) * slow + rng.uniform(0, 0.15) * fast
    return drift * interpolate(mask, latent.shape[-2:]) if rng.random() < IN_THE_HOLE else drift


def _jpeg(picture: torch.Tensor) -> torch.Tensor:
    # its quality follows from the picture, so that the same one gives the same file
    quality = 8 + int(to_pixels(picture[0]).astype(np.int64).sum() % 50)
    file = io.BytesIO()
    to_picture(picture).save(file, "JPEG", quality=quality)
    return to_tensor(np.asarray(Image.open(file))[None])


def _coarse(picture: torch.Tensor) -> torch.Tensor:
    size = [extent // 3 for extent in picture.shape[-2:]]
    return interpolate(picture, size, mode="bicubic", antialias=True)


def _fine(picture: torch.Tensor) -> torch.Tensor:
    # sides that three does not divide lose a pixel; enlarged by a little more
    size = [-(-3 * extent // 8) * 8 for extent in picture.shape[-2:]]
    return interpolate(picture, size, mode="bicubic")


def _choice(shares: dict, rng: np.random.Generator):
    total = sum(shares.values())
    return list(shares)[int(rng.choice(len(shares), p=[share / total for share in shares.values()]))]


def _stored(picture: torch.Tensor) -> torch.Tensor:
    return ((picture.clamp(-1, 1) + 1) * 127.5).round().byte()

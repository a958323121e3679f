"""Edits of pixels: what an ideal editor would have done, so that the hole has a right answer; and colour changes of a
decoded picture, which what comes after the decoder has to undo.

Images are (N, 3, H, W) in [-1, 1], masks (N, 1, H, W) with 1 = hole. Outside the hole every pixel of `removed` and
`recoloured` is the photograph's.
"""

import cv2
import numpy as np
import torch
from torchvision.transforms import functional

from asymlib.pixels import to_pixels

TINTS = ("uniform", "gradient", "tint", "saturation", "contrast", "gamma")


def removed(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The hole filled with other parts of the same picture, sharp and of its own texture; where the mask covers an
    object, it is gone.

    Args:
        image: (N, 3, H, W).
        mask: (N, 1, H, W); something of each picture has to be known.

    Raises:
        ValueError: A mask that leaves nothing to fill from.

    Source: OpenCV's `xphoto.inpaint` with INPAINT_SHIFTMAP, of the kind of He and Sun 2012, "Statistics of Patch
        Offsets for Image Completion"; colours in CIE Lab, as its documentation asks.
    """
    if bool((mask > 0).flatten(1).all(1).any()):
        raise ValueError("mask: got one that covers its whole picture, expected known pixels to fill the hole from")
    filled = []
    for picture, hole in zip(image, mask, strict=True):
        lab = cv2.cvtColor(to_pixels(picture), cv2.COLOR_RGB2Lab)
        known, result = np.where(hole[0].numpy() > 0, 0, 255).astype(np.uint8), np.zeros_like(lab)
        cv2.xphoto.inpaint(lab, known, result, cv2.xphoto.INPAINT_SHIFTMAP)
        rgb = cv2.cvtColor(result, cv2.COLOR_Lab2RGB)
        filled.append(torch.from_numpy(rgb).permute(2, 0, 1) / 127.5 - 1)
    return torch.where(mask > 0, torch.stack(filled).to(image), image)


def recoloured(image: torch.Tensor, mask: torch.Tensor, seed: int) -> torch.Tensor:
    """Another colour in the hole: every hue turned by 90 to 270 degrees, and lighter or darker by 20 to 40 %, so that
    grey things change as well.

    Args:
        image: (N, 3, H, W).
        mask: (N, 1, H, W).
        seed: Seed of the colours; image i has its own whatever the others are.
    """
    changed = []
    for i, picture in enumerate(image.split(1)):
        rng = np.random.default_rng([seed, 30, i])
        hue, light = rng.uniform(0.25, 0.5) * rng.choice([-1, 1]), 1 + rng.uniform(0.2, 0.4) * rng.choice([-1, 1])
        changed.append(recoloured_by(picture, mask[i : i + 1], hue, light))
    return torch.cat(changed)


def recoloured_by(image: torch.Tensor, mask: torch.Tensor, hue: float, light: float = 1.0) -> torch.Tensor:
    """The hole's hue turned by a share of the circle, in [-0.5, 0.5], and its brightness times `light`."""
    changed = functional.adjust_brightness(functional.adjust_hue((image + 1) / 2, hue), light)
    return torch.where(mask > 0, changed * 2 - 1, image)


def tinted(image_hat: torch.Tensor, seed: int) -> tuple[torch.Tensor, list[str]]:
    """A decoded picture under a change of its colours, as editors and autoencoders leave them.

    The pictures take the TINTS in turn: `uniform`, an offset of each channel of up to 0.06 of the range; `gradient`,
    the same from one side of the picture to the other; `tint`, a gain of each channel of up to 12 %; `saturation`,
    `contrast` and `gamma`, up to 25 % more or less.

    Args:
        image_hat: (N, 3, H, W).
        seed: Seed of the changes; image i has its own whatever the others are.

    Returns:
        The pictures, clamped, and the kind of each.
    """
    kinds = [TINTS[i % len(TINTS)] for i in range(len(image_hat))]
    pictures = [
        change_colours((picture + 1) / 2, kind, np.random.default_rng([seed, 31, i]))
        for i, (picture, kind) in enumerate(zip(image_hat, kinds, strict=True))
    ]
    return torch.stack(pictures).clamp(0, 1) * 2 - 1, kinds


def change_colours(picture: torch.Tensor, kind: str, rng: np.random.Generator) -> torch.Tensor:
    """One picture (3, H, W) in [0, 1] under a change of one of TINTS, not clamped."""
    of_channels = torch.from_numpy(rng.uniform(-1, 1, (3, 1, 1))).to(picture)
    factor = 1 + rng.uniform(0.1, 0.25) * rng.choice([-1, 1])
    if kind == "uniform":
        return picture + 0.06 * of_channels
    if kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        y, x = (torch.linspace(-1, 1, extent, device=picture.device) for extent in picture.shape[1:])
        return picture + 0.06 * of_channels * (np.sin(angle) * y[:, None] + np.cos(angle) * x[None])
    if kind == "tint":
        return picture * (1 + 0.12 * of_channels)
    if kind == "gamma":
        return picture.clamp(0, 1) ** factor
    change = functional.adjust_saturation if kind == "saturation" else functional.adjust_contrast
    return change(picture.clamp(0, 1), factor)

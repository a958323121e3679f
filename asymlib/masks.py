"""Masks: 1 = hole, 0 = keep, everywhere; between the two the result fades to the photo.

The one place that normalises and changes them, the official training distribution (LaMa's `random_thick_256.yaml`), and
the five kinds that evaluation uses.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import max_pool2d

from asymlib.pictures import open_picture, read_mask

KINDS = ("box", "thick", "thin", "object", "border")
OFFICIAL_SIZE = 256  # the official generator's numbers are pixels of a 256-px image


def normalise_mask(mask, height: int, width: int) -> torch.Tensor:
    """Bring a mask to float32 (N, 1, H, W) with 1 = hole.

    Args:
        mask: bool, integer or float tensor or array of shape (H, W), (N, H, W) or (N, 1, H, W) with values in [0, 1],
            or a PIL image or its file, see `pictures.read_mask`. Known is where it is 0; between 0 and 1 the result
            fades.
        height: Height of the image that the mask belongs to, in pixels.
        width: Its width.

    Raises:
        ValueError: Another type, shape or range, or a value that is not finite.
    """
    if isinstance(mask, (str, Path)):
        mask = open_picture(mask, "mask")
    if isinstance(mask, Image.Image):
        mask = read_mask(mask)
        if mask.shape != (height, width):
            came = f"{mask.shape[1]} x {mask.shape[0]}"
            raise ValueError(f"mask: got {came}, expected the picture's {width} x {height}")
    if isinstance(mask, np.ndarray):
        mask = torch.from_numpy(_native(mask))
    if not isinstance(mask, torch.Tensor):
        raise ValueError(
            f"mask: got {type(mask).__name__}, expected a tensor, an array, a PIL image or its file, 1 = hole"
        )
    shape = tuple(mask.shape)
    if mask.ndim == 2:
        mask = mask[None, None]
    elif mask.ndim == 3:
        mask = mask[:, None]
    if mask.ndim != 4 or mask.shape[1] != 1 or tuple(mask.shape[-2:]) != (height, width):
        raise ValueError(
            f"mask: got shape {shape}, expected (H, W), (N, H, W) or (N, 1, H, W) with H x W = {height} x {width}"
        )
    mask = mask.float()
    low, high = mask.min().item(), mask.max().item()
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise ValueError(
            f"mask: got values from {low:g} to {high:g}, expected 0 (keep) to 1 (hole); divide a 0..255 mask by 255"
        )
    return mask


def grow(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """Move the edge of a hole (N, 1, H, W) outwards by `pixels` to every side, or inwards by as many below 0.

    >>> grow(torch.tensor([[[[0.0, 0.0, 1.0, 1.0, 1.0]]]]), 1)
    tensor([[[[0., 1., 1., 1., 1.]]]])
    >>> grow(torch.tensor([[[[0.0, 0.0, 1.0, 1.0, 1.0]]]]), -1)  # the border of the picture is no edge
    tensor([[[[0., 0., 0., 1., 1.]]]])
    """
    return dilate(mask, pixels) if pixels >= 0 else 1 - dilate(1 - mask, -pixels)


def invert(mask: torch.Tensor) -> torch.Tensor:
    """The hole known and the known pixels the hole."""
    return 1 - mask


def feather(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """Let a hole (N, 1, H, W) fade over `pixels` outside of its edge; what was hole stays so entirely.

    >>> feather(torch.tensor([[[[0.0, 0.0, 0.0, 1.0]]]]), 1)
    tensor([[[[0.0000, 0.0000, 0.5000, 1.0000]]]])

    Raises:
        ValueError: `pixels` is below 0.
    """
    if pixels < 0:
        raise ValueError(f"pixels: got {pixels}, expected 0 or more")
    return sum(dilate(mask, distance) for distance in range(pixels + 1)) / (pixels + 1)


def dilate(region: torch.Tensor, pixels: int) -> torch.Tensor:
    """Grow what is 1 in (N, 1, H, W) by a square of `pixels` to every side; beyond the border there is nothing."""
    side = 2 * pixels + 1
    rows = max_pool2d(region, (side, 1), stride=1, padding=(pixels, 0))
    return max_pool2d(rows, (1, side), stride=1, padding=(0, pixels))


def _native(array: np.ndarray) -> np.ndarray:
    """As torch takes it: contiguous, in the machine's byte order, of a type that torch has."""
    array = np.ascontiguousarray(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"mask: got an array of {array.dtype}, expected numbers or booleans")
    return array.astype(array.dtype.newbyteorder("=")) if array.dtype.itemsize <= 8 else array.astype(np.float64)


def training_masks(count: int, size: int, full_share: float, rng: np.random.Generator) -> torch.Tensor:
    """Masks as the official training draws them: all ones with probability `full_share`, else strokes or boxes.

    Returns:
        (count, 1, size, size) float, 1 = hole.

    Source: official `ImageNetSR` (Cf_r = 0.5) and `random_thick_256.yaml`.
    """
    masks = [
        np.ones((size, size), np.uint8) if rng.random() < full_share else thick_mask(size, rng) for _ in range(count)
    ]
    return torch.from_numpy(np.stack(masks))[:, None].float()


def thick_mask(size: int, rng: np.random.Generator) -> np.ndarray:
    """One draw of the official mixture, scaled to the image: strokes with probability 1 / 1.3, boxes otherwise.

    Returns:
        (size, size) uint8, 1 = hole.

    Source: LaMa's `MixedMaskGenerator` with irregular 1 and box 0.3, written anew.
    """
    return stroke_mask(size, rng) if rng.random() < 1 / 1.3 else box_mask(size, rng)


def stroke_mask(size: int, rng: np.random.Generator, widths: tuple[int, int] = (5, 104)) -> np.ndarray:
    """1 to 6 polylines of 1 to 5 segments; lengths 10 to 209 and `widths` are pixels of a 256-px image."""
    import cv2  # here, since who decodes draws no masks

    scale = size / OFFICIAL_SIZE
    mask = np.zeros((size, size), np.uint8)
    for stroke in range(rng.integers(1, 7)):
        point = rng.integers(0, size, 2).astype(float)
        for _ in range(rng.integers(1, 6)):
            angle = 0.01 + rng.integers(4)
            angle = -angle if stroke % 2 == 0 else angle  # every other stroke is mirrored
            length, width = rng.integers(10, 210) * scale, rng.integers(widths[0], widths[1] + 1) * scale
            end = np.clip(point + length * np.array([np.sin(angle), np.cos(angle)]), 0, size)
            cv2.line(mask, point.astype(int).tolist(), end.astype(int).tolist(), 1, max(1, round(width)))
            point = end
    return mask


def box_mask(size: int, rng: np.random.Generator) -> np.ndarray:
    """1 to 3 rectangles of sides 30 to 149, at least 10 from the border; pixels of a 256-px image."""
    scale = size / OFFICIAL_SIZE
    mask = np.zeros((size, size), np.uint8)
    margin = round(10 * scale)
    for _ in range(rng.integers(1, 4)):
        height, width = (max(1, round(side * scale)) for side in rng.integers(30, 150, 2))
        y, x = rng.integers(margin, size - margin - height + 1), rng.integers(margin, size - margin - width + 1)
        mask[y : y + height, x : x + width] = 1
    return mask


def evaluation_mask(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """A mask of one kind, hole and known pixels both present.

    Args:
        kind: `box` (one to three rectangles), `thick` (official strokes), `thin` (strokes of 4 to 12 px at 256),
            `object` (a smooth closed outline) or `border` (a rectangle that touches the border).
        size: Side of the square image in pixels.
        rng: Source of randomness.

    Returns:
        (size, size) uint8, 1 = hole, with 2 to 75 % hole.

    Raises:
        ValueError: An unknown kind.
    """
    draw = {"box": box_mask, "thick": stroke_mask, "thin": _thin, "object": _object, "border": _border}
    if kind not in draw:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    while True:
        mask = draw[kind](size, rng)
        if 0.02 <= mask.mean() <= 0.75:
            return mask


def _thin(size: int, rng: np.random.Generator) -> np.ndarray:
    return stroke_mask(size, rng, widths=(4, 12))


def _object(size: int, rng: np.random.Generator) -> np.ndarray:
    """A blob: a circle whose radius varies with a few random harmonics."""
    import cv2

    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    radius = size * rng.uniform(0.15, 0.3) * np.ones_like(angle)
    for harmonic in range(2, 6):
        radius *= 1 + rng.uniform(0, 0.5 / harmonic) * np.sin(harmonic * angle + rng.uniform(0, 2 * np.pi))
    centre = rng.uniform(0.3, 0.7, 2) * size
    outline = centre + radius[:, None] * np.stack([np.cos(angle), rng.uniform(0.6, 1.2) * np.sin(angle)], 1)
    return cv2.fillPoly(np.zeros((size, size), np.uint8), [outline.round().astype(np.int32)], 1)


def _border(size: int, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    depth, length = rng.uniform(0.2, 0.5) * size, rng.uniform(0.4, 1.0) * size
    start = rng.uniform(0, size - length)
    mask[: round(depth), round(start) : round(start + length)] = 1
    return np.ascontiguousarray(np.rot90(mask, rng.integers(4)))

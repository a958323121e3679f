"""Pictures in and out: files, PIL images and tensors, and the few operations on pixels that everything shares.

A tensor of pictures is (N, 3, H, W) in [-1, 1]; an array of pixels (H, W, 3) uint8 RGB.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.nn.functional import pad

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
UNREADABLE = (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def to_tensor(pixels: np.ndarray | torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) uint8 array, or (N, 3, H, W) uint8 tensor, -> (N, 3, H, W) float in [-1, 1]."""
    if isinstance(pixels, np.ndarray):
        pixels = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2)
    return pixels.float() / 127.5 - 1


def to_pixels(image: torch.Tensor) -> np.ndarray:
    """(3, H, W) in [-1, 1] -> (H, W, 3) uint8, rounded; the inverse of `to_tensor` for one picture."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def to_picture(image: torch.Tensor) -> Image.Image:
    """RGB image of (1, 3, H, W) in [-1, 1], rounded to 8 bits."""
    return Image.fromarray(to_pixels(image[0]))


def to_uint8(image: torch.Tensor) -> torch.Tensor:
    """[0, 1], the metrics' range, -> uint8, rounded, not truncated (truncation alone costs 0.77e-5 of pre_error)."""
    return (image.clamp(0, 1) * 255).round().byte()


def read_photo(photo: Image.Image, name: str) -> torch.Tensor:
    """(1, 3, H, W) in [-1, 1] of a PIL image of any mode; `name` is the argument that an error is about.

    Raises:
        ValueError: It is not a PIL image.
    """
    if not isinstance(photo, Image.Image):
        raise ValueError(f"{name}: got {type(photo).__name__}, expected a PIL image")
    return to_tensor(np.asarray(photo.convert("RGB"))[None])


def read_photograph(file: Path | BinaryIO, smallest: int = 1) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file: EXIF orientation applied, greyscale made RGB, transparency laid on white.

    Raises:
        UNREADABLE: The file is broken, no image, or has a side of fewer than `smallest` pixels.
    """
    with Image.open(file) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        pixels = np.asarray(image.convert("RGB"))
    _require_side(pixels.shape[:2], smallest)
    return pixels


def photograph_size(file: Path | BinaryIO, smallest: int = 1) -> tuple[int, int]:
    """Height and width that `read_photograph` will give, from the file's header alone: nothing is decoded, save a PNG,
    whose orientation may stand behind its pixels.

    Raises:
        UNREADABLE: As `read_photograph`, but for what only decoding shows.
    """
    with Image.open(file) as image:
        turned = image.getexif().get(0x0112) in (5, 6, 7, 8)  # orientations that exchange height and width
        turned = turned and image.format != "TIFF"  # whose size Pillow has exchanged already
        size = image.size if turned else image.size[::-1]
    _require_side(size, smallest)
    return size


def centre_square(pixels: np.ndarray) -> np.ndarray:
    """The largest square in the middle of (H, W, 3)."""
    side = min(pixels.shape[:2])
    y, x = ((extent - side) // 2 for extent in pixels.shape[:2])
    return pixels[y : y + side, x : x + side]


def shrink(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (height, width, 3), each pixel the mean of those it stands for."""
    import cv2  # on first use: decoding needs none of it

    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def pad_to_multiple(tensor: torch.Tensor, factor: int) -> torch.Tensor:
    """Pad (N, C, H, W) by replication, below and to the right, to sides that are multiples of `factor`."""
    height, width = tensor.shape[-2:]
    return pad(tensor, (0, -width % factor, 0, -height % factor), mode="replicate")


def _require_side(size: tuple[int, ...], smallest: int) -> None:
    if min(size) < smallest:
        raise ValueError(f"{size[1]} x {size[0]} pixels, expected at least {smallest} on each side")

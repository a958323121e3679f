"""Pixels as arrays and tensors, and the few operations on them that everything shares; `pictures` reads and writes.

A tensor of pictures is (N, 3, H, W) in [-1, 1]; an array of pixels (H, W, 3) uint8 RGB.
"""

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate, pad


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


def centre_square(pixels: np.ndarray) -> np.ndarray:
    """The largest square in the middle of (H, W, 3)."""
    side = min(pixels.shape[:2])
    y, x = ((extent - side) // 2 for extent in pixels.shape[:2])
    return pixels[y : y + side, x : x + side]


def shrink(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (height, width, 3), each pixel the mean of those it stands for."""
    import cv2  # on first use: decoding needs none of it

    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def resized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N, 3, H, W) in [-1, 1] brought to a height and width, smoothly."""
    if image.shape[-2:] == size:
        return image
    return interpolate(image, size, mode="bicubic", antialias=True).clamp(-1, 1)


def pad_to_multiple(tensor: torch.Tensor, factor: int) -> torch.Tensor:
    """Pad (N, C, H, W) by replication, below and to the right, to sides that are multiples of `factor`."""
    height, width = tensor.shape[-2:]
    return pad(tensor, (0, -width % factor, 0, -height % factor), mode="replicate")

"""Paste-back: what most users do today, and the comparator that the paper lacks.

Every function of `PASTES` takes image and image_hat, (N, 3, H, W) in [-1, 1], and mask, (N, 1, H, W) with 1 = hole, and
returns (N, 3, H, W) in [-1, 1]. `paste_hard`, `paste_poisson` and `paste_colour_matched` keep every known pixel, and
`paste_overlay` up to rounding to 8 bits; `paste_feathered` and `paste_laplacian` trade known pixels near the rim for a
softer seam. A hole may touch the border or be the whole image; where a mask is between 0 and 1, the result fades. Image
and mask are brought to the device and type of image_hat.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from torchvision.transforms.functional import gaussian_blur

from asymlib.masks import dilate
from asymlib.pixels import to_picture, to_tensor

Paste = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _alike(paste: Paste) -> Paste:
    """With image and mask on the device of image_hat and of its type."""

    @wraps(paste)
    def moved(image: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor, *options, **named) -> torch.Tensor:
        return paste(image.to(image_hat), image_hat, mask.to(image_hat), *options, **named)

    return moved


@_alike
def paste_hard(image: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The edit inside the hole, the original outside: image_hat m + image (1 - m), so pre_error is 0 by construction.

    Args:
        image: (N, 3, H, W).
        image_hat: (N, 3, H, W).
        mask: (N, 1, H, W), 1 = hole.
    """
    return torch.lerp(image, image_hat, mask)  # exact at 0 and at 1


@_alike
def paste_feathered(
    image: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor, sigma: float = 2.0
) -> torch.Tensor:
    """Cross-fade with a blurred mask, as the "mask blur" of user interfaces does.

    The blur goes across the rim, as users have it, so known pixels within 3 `sigma` of the hole change. (Feathering
    inside the hole only would keep them, and show the original's content in the hole.)

    Args:
        image: (N, 3, H, W).
        image_hat: (N, 3, H, W).
        mask: (N, 1, H, W), 1 = hole.
        sigma: Deviation of the Gaussian in pixels.

    Source: diffusers' `VaeImageProcessor.blur`, which blurs the mask before `apply_overlay`.
    """
    soft = gaussian_blur(mask, 2 * round(3 * sigma) + 1, sigma)
    return image + soft * (image_hat - image)


@_alike
def paste_laplacian(image: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor, levels: int = 4) -> torch.Tensor:
    """Blend coarse detail over a wide band and fine detail over a narrow one; known pixels near the rim change.

    Args:
        image: (N, 3, H, W).
        image_hat: (N, 3, H, W).
        mask: (N, 1, H, W), 1 = hole.
        levels: How often the pyramid halves the image, at most until its shorter side has two pixels.

    Source: Burt and Adelson, A Multiresolution Spline With Application to Image Mosaics, 1983.
    """
    levels = min(levels, int(np.log2(min(image.shape[-2:]))) - 1)
    blended = [_blend_pyramids(x, y, m, levels) for x, y, m in _arrays(image, image_hat, mask)]
    return _tensor(blended, image).clamp(-1, 1)


@_alike
def paste_poisson(image: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Keep the gradients of the edit and meet the original at the rim: Poisson image editing; known pixels are exact.

    The correction image_hat gets is harmonic in the hole: equal to image - image_hat at the known pixels around it, and
    without flux where the hole touches the border (OpenCV's `seamlessClone` fails there). A hole without any known
    pixel is not corrected.

    Source: Perez et al., Poisson Image Editing, 2003, equations 4 and 7, with the source's gradients as guidance.
    """
    return paste_screened(image, image_hat, mask, float("inf"))


@_alike
def paste_screened(
    image: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor, length: float = 8.0
) -> torch.Tensor:
    """`paste_poisson` whose correction dies out inside the hole: an edit that is meant to differ survives. Between hard
    pasting (length 0) and Poisson (infinite).

    Args:
        image: (N, 3, H, W).
        image_hat: (N, 3, H, W).
        mask: (N, 1, H, W), 1 = hole.
        length: Pixels over which the correction falls to 1 / e behind a straight edge; above 0.

    Source: Bhat et al., Fourier Analysis of the 2D Screened Poisson Equation for Gradient Domain Problems, 2008, eq. 5
        (there the screening is by the data, here the correction's by 0).
    """
    solved = [_solve_poisson(x, y, m > 0, length) for x, y, m in _arrays(image, image_hat, mask)]
    return torch.lerp(image, _tensor(solved, image).clamp(-1, 1), mask)


@_alike
def paste_colour_matched(
    image: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor, width: int = 4
) -> torch.Tensor:
    """Shift the hole's colours so that, just outside of it, the edit has the original's mean; then `paste_hard`.

    Args:
        image: (N, 3, H, W).
        image_hat: (N, 3, H, W).
        mask: (N, 1, H, W), 1 = hole.
        width: Of the ring of known pixels around the hole on which the means are taken, in pixels.

    Source: the mean of Reinhard et al., Color Transfer between Images, 2001. Their deviation is left out: a decoder
    blurs, and matching it would raise the contrast of the hole.
    """
    hole = (mask > 0).float()
    ring = dilate(hole, width) - hole
    shift = ((image - image_hat) * ring).sum((2, 3), keepdim=True) / ring.sum((2, 3), keepdim=True).clamp(min=1)
    return paste_hard(image, (image_hat + shift).clamp(-1, 1), mask)


@_alike
def paste_overlay(image: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """diffusers' `VaeImageProcessor.apply_overlay` as it is: the original, cut out by the mask, is laid over the edit.

    It works on 8-bit pictures. With a mask of 0 and 1 it is `paste_hard` after rounding; known pixels are exact where
    the image is on the 8-bit grid. A soft mask, on which it cross-fades, is rounded to 8 bits as well.
    """
    holes = (mask * 2 - 1).expand_as(image)
    parts = (map(to_picture, tensor.split(1)) for tensor in (holes, image, image_hat))
    pasted = [VaeImageProcessor().apply_overlay(*pictures) for pictures in zip(*parts, strict=True)]
    return to_tensor(np.stack([np.asarray(picture) for picture in pasted])).to(image)


PASTES: dict[str, Paste] = {
    paste.__name__: paste
    for paste in (paste_hard, paste_feathered, paste_laplacian, paste_poisson, paste_colour_matched, paste_overlay)
}


def _arrays(*tensors: torch.Tensor) -> Iterator[list[np.ndarray]]:
    """One list of (H, W, C) float arrays for each image."""
    for parts in zip(*tensors, strict=True):
        yield [part.movedim(0, -1).float().cpu().numpy() for part in parts]


def _tensor(arrays: list[np.ndarray], like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays)).movedim(-1, 1).to(like)


def _blend_pyramids(image: np.ndarray, image_hat: np.ndarray, mask: np.ndarray, levels: int) -> np.ndarray:
    """The Laplacian pyramids of two (H, W, 3) images, mixed by the Gaussian pyramid of the mask and put together."""
    import cv2  # here, since who decodes blends no pyramids

    mask = mask[..., 0]
    if levels <= 0:
        return image + mask[..., None] * (image_hat - image)
    small, small_hat, small_mask = (cv2.pyrDown(array) for array in (image, image_hat, mask))
    size = image.shape[1::-1]
    detail, detail_hat = image - cv2.pyrUp(small, dstsize=size), image_hat - cv2.pyrUp(small_hat, dstsize=size)
    coarse = _blend_pyramids(small, small_hat, small_mask[..., None], levels - 1)
    return detail + mask[..., None] * (detail_hat - detail) + cv2.pyrUp(coarse, dstsize=size)


def _solve_poisson(image: np.ndarray, image_hat: np.ndarray, mask: np.ndarray, length: float) -> np.ndarray:
    """`paste_screened` of (H, W, 3) images with a boolean (H, W, 1) mask."""
    hole = mask[..., 0]
    if hole.all() or not hole.any():
        return np.where(mask, image_hat, image)
    solve, known_part = _poisson_system(hole.tobytes(), hole.shape, length)
    known = (image - image_hat).reshape(-1, 3)[np.flatnonzero(~hole)].astype(np.float64)
    result = image.copy()
    result[hole] = image_hat[hole] + solve(-(known_part @ known)).astype(np.float32)
    return result


@lru_cache(maxsize=8)
def _poisson_system(hole: bytes, shape: tuple[int, int], length: float) -> tuple[Callable, Any]:
    """A solver for the hole's correction, and the matrix that says what known pixels contribute; once for each mask:
    several edits of one photo, and several ways of finishing them, have it in common."""
    from scipy import sparse  # here, since who decodes solves no equations
    from scipy.sparse.linalg import splu

    hole = np.frombuffer(hole, bool).reshape(shape)
    pixels = np.arange(hole.size).reshape(shape)
    pairs = [(pixels[1:], pixels[:-1]), (pixels[:, 1:], pixels[:, :-1])]
    a, b = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    graph = sparse.coo_matrix((np.ones(len(a)), (a, b)), shape=(hole.size, hole.size)).tocsr()
    rows = sparse.csgraph.laplacian(graph + graph.T).tocsr()[np.flatnonzero(hole)]
    system = rows[:, np.flatnonzero(hole)] + length**-2 * sparse.eye(int(hole.sum()))
    return splu(system.tocsc(), permc_spec="MMD_AT_PLUS_A").solve, rows[:, np.flatnonzero(~hole)]

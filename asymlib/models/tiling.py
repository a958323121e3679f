"""Decode a large latent tile by tile, in the memory of one tile.

A GroupNorm takes its statistics from all that it sees. With a tile's own, every tile would have its own contrast, and
so one pass over the whole picture, shrunk to the size of a tile, fixes them for all.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate

from asymlib.models.normalisation import recorded_statistics, told_statistics


def decode_tiles(
    decode: nn.Module | Callable,
    latent: torch.Tensor,
    condition: Sequence[torch.Tensor],
    factor: int,
    size: int,
    overlap: int,
) -> torch.Tensor:
    """Decode tiles of one size and add them up with weights that fade linearly over the overlap.

    Args:
        decode: (latent, *condition) of a tile -> its pixels; the GroupNorms of a module are shared by all tiles.
        latent: (N, C, h, w).
        condition: Nothing, or image and mask, (N, ., factor h, factor w).
        factor: Pixels per latent cell along a side.
        size: Side of a tile in pixels, a multiple of `factor`; the last of a row is moved back, so none is smaller.
        overlap: Pixels that neighbours share at least.

    Returns:
        (N, ., factor h, factor w); exactly `decode(latent, *condition)` where one tile is enough.

    Raises:
        ValueError: `size` does not fit.
    """
    if size % factor or not 0 < overlap < size:
        raise ValueError(f"size: got {size} with overlap {overlap}, expected a multiple of {factor} above the overlap")
    cells = size // factor
    height, width = latent.shape[-2:]
    if max(height, width) <= cells:
        return decode(latent, *condition)
    weights, total = latent.new_zeros(factor * height, factor * width), None
    norms = [m for m in decode.modules() if isinstance(m, nn.GroupNorm)] if isinstance(decode, nn.Module) else []
    with recorded_statistics(norms) as of_whole:
        decode(*_thumbnail(latent, condition, factor, cells))
    with told_statistics(of_whole):
        for top in starts(height, cells, overlap // factor):
            for left in starts(width, cells, overlap // factor):
                part = latent[..., top : top + cells, left : left + cells]
                y, x = factor * top, factor * left
                tile = decode(part, *(c[..., y : y + size, x : x + size] for c in condition))
                if total is None:
                    total = tile.new_zeros(*tile.shape[:2], *weights.shape)
                weight = _ramp(tile.shape[-2], overlap).to(tile)[:, None] * _ramp(tile.shape[-1], overlap).to(tile)
                total[..., y : y + size, x : x + size] += weight * tile
                weights[y : y + size, x : x + size] += weight
    return total / weights


def starts(side: int, cells: int, overlap: int) -> list[int]:
    """Where tiles of `cells` begin on a side, at least `overlap` shared.

    >>> starts(20, 8, 2)
    [0, 6, 12]
    >>> starts(6, 8, 2)
    [0]
    """
    if side <= cells:
        return [0]
    return [*range(0, side - cells, cells - overlap), side - cells]


def _thumbnail(latent: torch.Tensor, condition: Sequence[torch.Tensor], factor: int, cells: int) -> list[torch.Tensor]:
    """Latent, image and mask of the whole picture, its longer side that of a tile."""
    longer = max(latent.shape[-2:])
    height, width = (max(1, round(side * cells / longer)) for side in latent.shape[-2:])
    small = [interpolate(latent, size=(height, width), mode="area")]
    for i, c in enumerate(condition):
        mode = "nearest" if i else "area"  # the mask stays 0 or 1
        small.append(interpolate(c, size=(factor * height, factor * width), mode=mode))
    return small


def _ramp(side: int, overlap: int) -> torch.Tensor:
    """A tile's weight along a side: up over `overlap` pixels, down again at the other end, never 0."""
    up = torch.arange(1, side + 1).clamp(max=overlap)
    return torch.minimum(up, up.flip(0)) / overlap

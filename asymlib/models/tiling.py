"""Decode a large latent tile by tile, in the memory of one tile.

GroupNorm's statistics are a tile's own, so neighbouring tiles differ a little; they overlap and fade into each other.
"""

from collections.abc import Callable, Sequence

import torch


def decode_tiles(
    decode: Callable,
    latent: torch.Tensor,
    condition: Sequence[torch.Tensor],
    factor: int,
    size: int,
    overlap: int,
) -> torch.Tensor:
    """Decode tiles of one size and add them up with weights that fade linearly over the overlap.

    Args:
        decode: (latent, *condition) of a tile -> its pixels.
        latent: (N, C, h, w).
        condition: Nothing, or image and mask, (N, ., factor h, factor w).
        factor: Pixels per latent cell along a side.
        size: Side of a tile in pixels, a multiple of `factor`; the last of a row is moved back, so none is smaller.
        overlap: Pixels that neighbours share at least.

    Returns:
        (N, 3, factor h, factor w); exactly `decode(latent, *condition)` where one tile is enough.

    Raises:
        ValueError: `size` does not fit.
    """
    if size % factor or not 0 < overlap < size:
        raise ValueError(f"size: got {size} with overlap {overlap}, expected a multiple of {factor} above the overlap")
    cells = size // factor
    rows, columns = (starts(side, cells, overlap // factor) for side in latent.shape[-2:])
    total = weights = 0
    for top in rows:
        for left in columns:
            part = latent[..., top : top + cells, left : left + cells]
            y, x = factor * top, factor * left
            tile = decode(part, *(c[..., y : y + size, x : x + size] for c in condition))
            if len(rows) == len(columns) == 1:
                return tile
            if isinstance(total, int):
                full = [factor * side for side in latent.shape[-2:]]
                total, weights = tile.new_zeros(*tile.shape[:2], *full), tile.new_zeros(*full)
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


def _ramp(side: int, overlap: int) -> torch.Tensor:
    """A tile's weight along a side: up over `overlap` pixels, down again at the other end, never 0."""
    up = torch.arange(1, side + 1).clamp(max=overlap)
    return torch.minimum(up, up.flip(0)) / overlap

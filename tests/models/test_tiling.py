"""Decoding in tiles: the same where nothing crosses a tile, close where something does."""

import pytest
import torch
from torch.nn.functional import interpolate

from asymlib.evaluation.cost import tiling_error
from asymlib.models.tiling import decode_tiles, starts


def enlarge(latent, *condition):
    """A decoder without memory of its surroundings."""
    return interpolate(latent[:, :3], scale_factor=8, mode="nearest") + sum(c[:, :1] for c in condition)


@pytest.mark.parametrize("height, width", [(16, 16), (19, 33), (8, 8), (5, 40)])
def test_a_decoder_that_looks_at_one_cell_is_unchanged_by_tiling(height, width):
    """Breaks when a tile is put in the wrong place, left out, or weighted wrongly."""
    latent, image = torch.randn(2, 4, height, width), torch.randn(2, 3, 8 * height, 8 * width)
    tiled = decode_tiles(enlarge, latent, (image, image), 8, 64, 16)
    assert (tiled - enlarge(latent, image, image)).abs().max() < 1e-5


def test_tiles_cover_a_side_and_share_the_overlap():
    for side in range(8, 60):
        begins = starts(side, 8, 3)
        assert begins[0] == 0 and begins[-1] + 8 == max(side, 8)
        assert all(b - a <= 5 for a, b in zip(begins, begins[1:], strict=False))


def test_a_tile_that_does_not_fit_the_factor_is_refused():
    with pytest.raises(ValueError, match="size: got 60 with overlap 16, expected a multiple of 8"):
        decode_tiles(enlarge, torch.zeros(1, 4, 16, 16), (), 8, 60, 16)


@torch.no_grad()
def test_a_picture_of_one_tile_is_decoded_exactly(base):
    image, mask = torch.rand(1, 3, 32, 32), torch.ones(32, 32)
    mask[:16] = 0
    assert tiling_error(base, base.encode(image), image, mask)["tiling_max"] == 0

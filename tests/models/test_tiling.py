"""Decoding in tiles: the same where nothing crosses a tile, close where something does."""

from contextlib import nullcontext

import pytest
import torch
from skimage import data
from torch.nn.functional import interpolate

from asymlib.models import tiling
from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.models.first_stage import load_first_stage
from asymlib.models.tiling import decode_tiles, starts
from asymlib.pixels import to_tensor
from asymlib.study.evaluation import cost
from asymlib.study.evaluation.cost import decode_memory, tiling_error


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
def test_tiles_of_a_trained_decoder_are_close_and_need_less_memory(monkeypatch):
    """The bound on seams; breaks when every tile is normalised by statistics of its own."""
    first_stage = load_first_stage()
    vqgan = asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), branch=True, inherit=True, seed=0)
    vqgan.tile_size, vqgan.tile_overlap = 256, 32
    image, mask = to_tensor(data.astronaut()[None]), torch.zeros(1, 1, 512, 512)
    mask[..., 40:240, 40:240] = 1  # all of it in one tile: the others' own statistics would know nothing of the hole
    latent = vqgan.encode(image)
    shared = tiling_error(vqgan, latent, image, mask)
    assert shared["tiling_mean"] < 1 and abs(shared["tiling_seam"]) < 0.5
    monkeypatch.setattr(tiling, "told_statistics", lambda statistics: nullcontext())
    assert tiling_error(vqgan, latent, image, mask)["tiling_mean"] > 10
    assert decode_memory(vqgan, 512, tiled=True) < 0.5 * decode_memory(vqgan, 512, tiled=False)


@torch.no_grad()
def test_a_picture_of_one_tile_is_decoded_exactly(base):
    image, mask = torch.rand(1, 3, 32, 32), torch.ones(32, 32)
    mask[:16] = 0
    assert tiling_error(base, base.encode(image), image, mask)["tiling_max"] == 0


def test_how_far_a_hole_decoded_alone_is_off_is_measured(monkeypatch):
    """A hole two levels too bright everywhere; breaks when what is measured is another's, or of another place."""
    first_stage = load_first_stage()
    image = to_tensor(data.astronaut()[None, 100:228, 100:228]) * 0.5

    def brighter(first_stage, latent, image, mask):
        return torch.lerp(image, first_stage.decode(latent).sample.clamp(-0.9, 0.9) + 2 / 127.5, mask)

    monkeypatch.setattr(cost, "decode_hole", brighter)
    off = cost.window_error(first_stage, torch.cat([image, image.flip(-1)]), 0.25)
    assert all(value == pytest.approx(2, abs=0.05) for value in off.values())
    assert list(off) == ["mean", "rim", "seam", "worst"]

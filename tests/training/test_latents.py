"""Cached crops, and holes that hold another image."""

import torch

from asymlib.models.first_stage import encode_moments
from asymlib.pixels import to_tensor
from asymlib.training.latents import cache_crops, swap_holes


def test_a_swapped_hole_has_the_next_image_in_pixels_and_in_latent_cells():
    """Breaks when only one of the two is swapped, or known pixels are."""
    image, latent = (torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, s, s) for s in (16, 2))
    mask = torch.zeros(3, 1, 16, 16)
    mask[..., 8:] = 1
    swapped, moved = swap_holes(image, latent, mask * torch.tensor([1.0, 0, 1]).view(3, 1, 1, 1), [1, 2, 0])
    assert swapped[:, 0, 0, 0].tolist() == moved[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert swapped[:, 0, 0, -1].tolist() == moved[:, 0, 0, -1].tolist() == [1, 1, 0]


def test_a_crop_is_cut_from_its_image_and_its_moments_are_the_first_stage_s(first_stage):
    """Breaks when a crop lies beyond its image, or image and moments belong to different crops."""
    images = torch.arange(3 * 40 * 40).remainder(251).byte().view(1, 3, 40, 40).repeat(2, 1, 1, 1)
    images[1] += 1
    crops = cache_crops(first_stage, images, crop=32, crops_per_image=3, seed=5)
    assert crops.image.shape == (6, 3, 32, 32) and crops.edits is None
    for i, crop in enumerate(crops.image):
        windows = images[i // 3].unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)
        assert (windows == crop).all((2, 3, 4)).any()
    assert torch.allclose(crops.moments, encode_moments(first_stage, to_tensor(crops.image)), atol=1e-5)
    again, other = (cache_crops(first_stage, images, 32, 3, seed) for seed in (5, 6))
    assert torch.equal(again.image, crops.image) and not torch.equal(other.image, crops.image)

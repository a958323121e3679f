"""Small models of the real classes, and torch on two threads as in the profiles."""

import pytest
import torch

from asymlib.data.latents import cache_crops
from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.models.first_stage import build_first_stage

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def first_stage():
    return build_first_stage(8, 1, 4).eval().requires_grad_(False)


@pytest.fixture
def base(first_stage):
    """An untrained base decoder on the small first stage."""
    return asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), branch=True, inherit=True, seed=0)


@pytest.fixture(scope="session")
def crops(first_stage):
    images = torch.randint(0, 256, (6, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return cache_crops(first_stage, images, crop=32, crops_per_image=2, seed=0)

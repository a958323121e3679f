"""The official losses, on numbers small enough to work out by hand."""

import pytest
import torch
from torch import nn

from asymlib.training.losses import (
    PatchDiscriminator,
    adaptive_weight,
    generator_loss,
    hinge_loss,
    reconstruction_loss,
    ring_weights,
)


def test_reconstruction_sums_over_pixels_and_averages_over_the_batch():
    """Breaks when the sum becomes a mean, or the distance is added once instead of to every pixel."""
    image, image_hat = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)

    def distance(a, b):
        return torch.full((len(a),), 0.25)

    assert reconstruction_loss(image_hat, image, distance, 0.0).item() == pytest.approx(48 * 0.5)
    assert reconstruction_loss(image_hat, image, distance, 2.0).item() == pytest.approx(48 * (0.5 + 2 * 0.25))


def test_ring_weights_count_the_rim_inside_the_hole():
    """Breaks when the ring lies outside the hole, or the hole's middle or the known pixels are weighted."""
    mask = torch.zeros(1, 1, 1, 16)
    mask[..., 4:] = 1
    assert ring_weights(mask, 5.0).flatten().tolist() == [1] * 4 + [5] * 4 + [1] * 8
    assert ring_weights(torch.ones(1, 1, 8, 8), 5.0).eq(1).all()
    image, image_hat = torch.zeros(1, 3, 1, 16), torch.ones(1, 3, 1, 16)
    assert reconstruction_loss(image_hat, image, None, 0.0, ring_weights(mask, 5.0)).item() == 3 * (16 + 4 * 4)


def test_hinge_and_generator_losses():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 1.0])
    assert hinge_loss(real, fake).item() == pytest.approx(0.5 * (0.5 + 1.0))
    assert generator_loss(fake).item() == pytest.approx(0.5)


def test_the_adaptive_weight_is_the_ratio_of_gradient_norms_and_has_no_gradient():
    w = nn.Parameter(torch.tensor([1.0, 2.0]))
    weight = adaptive_weight((3 * w).sum(), (w * torch.tensor([0.0, 2.0])).sum(), w)
    assert weight.item() == pytest.approx(3 * 2**0.5 / 2, rel=1e-3) and not weight.requires_grad
    assert adaptive_weight((1e9 * w).sum(), (1e-9 * w).sum(), w).item() == 1e4


def test_the_discriminator_is_the_official_one():
    """PatchGAN of width 64: 4x4 convolutions 3-64-128-256-512-1, biases where no norm follows."""
    discriminator = PatchDiscriminator(64)
    assert (
        sum(p.numel() for p in discriminator.parameters())
        == 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 65 + 2 * 896
    )
    assert discriminator(torch.zeros(2, 3, 64, 64)).shape == (2, 1, 6, 6)

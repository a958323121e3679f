"""KID grows with damage and is about zero for equal sets; FID refuses to be computed from too few."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg

from asymlib.pixels import to_uint8
from asymlib.study.evaluation import distribution
from asymlib.study.evaluation.distribution import PooledEffNet, fid, kid


@pytest.fixture(scope="module")
def network():
    return PooledEffNet()


@pytest.fixture(scope="module")
def images():
    """Smooth random pictures."""
    coarse = torch.rand(24, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(-1, 1)


def test_kid_is_zero_for_a_set_with_itself_and_grows_with_noise(network, images):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    ladder = [kid(images + scale * noise, images, network, 10, 12, 0)[0] for scale in (0.0, 0.05, 0.15, 0.4)]
    assert abs(ladder[0]) < 0.3 * ladder[1] and ladder == sorted(ladder)


def test_kid_repeats_and_says_how_far_subsets_differ(network, images):
    state = torch.random.get_rng_state()
    one, two = (kid(images[:12], images[12:], network, 10, 8, 0) for _ in range(2))
    assert one == two and 0 < one[1]
    assert kid(images[:12], images[12:], network, 10, 12, 0)[1] == pytest.approx(
        0, abs=1e-6
    )  # each subset is everything
    assert torch.equal(state, torch.random.get_rng_state())


def test_kid_and_fid_are_their_formulas_on_the_same_features(network, images, monkeypatch):
    """Written again with numpy and SciPy: the unbiased polynomial kernel, and the matrix root of two covariances."""
    worse = (images + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(2))).clamp(-1, 1)
    x, y = (network(to_uint8((i + 1) / 2)).double().numpy() for i in (worse, images))
    n = len(x)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    within = sum((kernel(a, a).sum() - np.trace(kernel(a, a))) / (n * (n - 1)) for a in (x, y))
    found = kid(worse, images, network, 1, n, 0)[0]  # one subset: everything
    assert found == pytest.approx(within - 2 * kernel(x, y).mean(), rel=1e-4)

    monkeypatch.setattr(distribution, "FID_IMAGES", 20)
    covariances = [np.cov(a, rowvar=False) for a in (x, y)]
    root = np.trace(linalg.sqrtm(covariances[0] @ covariances[1]).real)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + sum(map(np.trace, covariances)) - 2 * root
    assert fid(worse, images, network) == pytest.approx(expected, rel=1e-2)


def test_kid_of_too_few_images_is_refused(network, images):
    with pytest.raises(ValueError, match="reference: got 3, expected at least the 12 of a subset"):
        kid(images, images[:3], network, 10, 12, 0)


def test_fid_of_few_images_is_empty_and_of_enough_is_a_distance(network, images, monkeypatch):
    assert math.isnan(fid(images, images, network))
    monkeypatch.setattr(distribution, "FID_IMAGES", 20)
    assert abs(fid(images, images, network)) < 1e-3 < fid(images.flip(1) * 0.5, images, network)


def test_features_weigh_every_stage_alike(network, images):
    features = network(((images[:2] + 1) * 127.5).round().byte())
    assert features.shape == (2, network.num_features)
    for stage in features.split([16, 24, 40, 112], dim=1):
        assert torch.allclose(stage.square().mean(1), torch.ones(2), atol=1e-4)

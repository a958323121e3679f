"""GroupNorms that are told their statistics: their own change nothing, others do, and afterwards all is as before."""

import pytest
import torch
from torch import nn

from asymlib.models.normalisation import group_statistics, normalise_with, recorded_statistics, told_statistics


@pytest.fixture
def norm():
    norm = nn.GroupNorm(2, 6)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 6))
        norm.bias.copy_(torch.linspace(-1, 1, 6))
    return norm.requires_grad_(False)


def picture(*shape):
    return 3 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (2, 6, 9)])
def test_with_its_own_statistics_it_is_the_group_norm_itself(norm, shape):
    """Breaks when a variance is corrected, eps left out, or a statistic lands on another group's channels."""
    h = picture(*shape)
    statistics = group_statistics(norm, h)
    assert [s.shape for s in statistics] == [(2, 2), (2, 2)]
    assert torch.allclose(normalise_with(norm, h, statistics), norm(h), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_it_rounds_once(norm, dtype):
    """Breaks when what is added and what is subtracted are rounded apart: far from 0 they nearly cancel."""
    norm, h = norm.to(dtype), (30 + picture(2, 6, 8, 8)).to(dtype)
    made = normalise_with(norm, h, group_statistics(norm, h))
    assert made.dtype == dtype
    torch.testing.assert_close(made, norm.float()(h.float()).to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_the_statistics_are_those_of_each_group(norm):
    h = picture(2, 6, 4, 4)
    variance, mean = group_statistics(norm, h)
    assert mean[1, 0].item() == pytest.approx(h[1, :3].mean().item(), rel=1e-5)
    assert variance[1, 1].item() == pytest.approx(h[1, 3:].var(correction=0).item(), rel=1e-5)


def test_told_another_picture_s_statistics_it_gives_what_that_picture_s_pixels_would_get(norm):
    """Breaks when the statistics are not used: a tile then has a contrast of its own."""
    whole = picture(1, 6, 8, 8)
    with recorded_statistics([norm]) as met:
        expected = norm(whole)
    with told_statistics(met):
        assert torch.allclose(norm(whole[..., :4]), expected[..., :4], atol=1e-5)
    assert (norm(whole[..., :4]) - expected[..., :4]).abs().max() > 1e-2


def test_the_last_call_is_recorded_and_nothing_stays_behind(norm):
    """Breaks when a hook outlives its block, also where an error ends it."""
    first, last = picture(1, 6, 8, 8), picture(1, 6, 8, 8) + 5
    before = norm(first)
    with recorded_statistics([norm]) as met:
        assert torch.equal(norm(first), before)
        norm(last)
    norm(first)
    assert all(torch.equal(a, b) for a, b in zip(met[norm], group_statistics(norm, last), strict=True))
    with pytest.raises(KeyError), told_statistics(met):
        raise KeyError
    assert not norm._forward_hooks and torch.equal(norm(first), before)


def test_a_decoder_s_norm_that_is_told_its_own_statistics_changes_nothing(base):
    """Breaks when they are not used, or are not those of the forward pass."""
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(2, 1, 32, 32)
    mask[..., 8:20, 8:20] = 1
    latent = base.encode(image)
    with torch.no_grad():
        before = base.decode(latent, image, mask)
        with recorded_statistics([base.decoder.conv_norm_out]) as met:
            assert (base.decode(latent, image, mask) - before).abs().max() < 1e-5
        with told_statistics(met):
            assert (base.decode(latent, image, mask) - before).abs().max() < 1e-5
        with told_statistics({norm: tuple(2 * part for part in own) for norm, own in met.items()}):
            assert (base.decode(latent, image, mask) - before).abs().max() > 1e-2

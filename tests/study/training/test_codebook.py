"""The codebook: gradients go where they should, averages are the closed form, and no code stays dead."""

import pytest
import torch
from diffusers.models.autoencoders.vae import VectorQuantizer

from asymlib.study.training.codebook import Codebook, code_shares, nearest_code, perplexity, quantise


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def latent():
    return torch.randn(2, 4, 3, 5, generator=generator(), requires_grad=True)


@pytest.fixture
def codes():
    return torch.nn.Parameter(torch.randn(16, 4, generator=torch.Generator().manual_seed(1)))


def test_the_nearest_code_is_the_one_that_diffusers_decodes(latent, codes):
    """Breaks when channels are flattened in another order: then training and the stored model disagree."""
    stored = VectorQuantizer(16, 4, beta=0.25)
    stored.embedding.weight.data.copy_(codes)
    expected, _, (_, _, index) = stored(latent)
    ours = quantise(latent, codes)
    assert torch.equal(ours.index.flatten(), index)
    assert torch.equal(ours.latent, expected)
    assert torch.allclose(ours.latent[1, :, 2, 4], codes[ours.index[1, 2, 4]], atol=1e-6)


def test_the_gradient_passes_straight_through_and_none_goes_to_the_codes(latent, codes):
    gradient = torch.randn(latent.shape, generator=generator())
    quantise(latent, codes).latent.backward(gradient)
    assert torch.equal(latent.grad, gradient)
    assert codes.grad is None


def test_each_loss_draws_its_own_side_only(latent, codes):
    """Breaks with the weights of `VectorQuantizer`'s legacy loss: its beta stands at the codebook's term."""
    ours = quantise(latent, codes)
    nearest = codes[ours.index].movedim(-1, 1).detach()
    ours.commitment.backward(retain_graph=True)
    assert codes.grad is None
    assert torch.allclose(latent.grad, 2 * (latent - nearest).detach() / latent.numel())
    latent.grad = None
    ours.codebook.backward()
    assert latent.grad is None and codes.grad.abs().sum() > 0
    assert ours.commitment.item() == ours.codebook.item()
    fixed = VectorQuantizer(16, 4, beta=0.25, legacy=False)
    fixed.embedding.weight.data.copy_(codes)
    assert (0.25 * ours.commitment + ours.codebook).item() == pytest.approx(fixed(latent)[1].item(), rel=1e-6)


def test_the_moving_average_is_the_closed_form():
    """Two codes 0 and 10, each with half of the cells; the batch has 1, 2, 3 near the first and 8 near the second."""
    codes = torch.nn.Parameter(torch.tensor([[0.0], [10.0]]))
    codebook = Codebook(codes, decay=0.9, dead_below=0.0)
    batch = torch.tensor([1.0, 2.0, 3.0, 8.0]).view(1, 1, 2, 2)
    codebook.follow(batch, nearest_code(batch, codes), average=True)
    share = [0.9 * 0.5 + 0.1 * 3 / 4, 0.9 * 0.5 + 0.1 * 1 / 4]
    total = [0.9 * 0.0 + 0.1 * 6 / 4, 0.9 * 5.0 + 0.1 * 8 / 4]
    assert codebook.share.tolist() == pytest.approx(share)
    assert codes.flatten().tolist() == pytest.approx([total[0] / share[0], total[1] / share[1]])


def test_without_averaging_the_codes_stay_and_their_use_is_still_counted():
    codes = torch.nn.Parameter(torch.tensor([[0.0], [10.0]]))
    codebook = Codebook(codes, decay=0.9, dead_below=0.0)
    batch = torch.ones(1, 1, 2, 2)
    codebook.follow(batch, nearest_code(batch, codes), average=False)
    assert codes.flatten().tolist() == [0, 10]
    assert codebook.share.tolist() == pytest.approx([0.55, 0.45])


def test_a_dead_code_is_revived_after_a_pause_and_then_used(latent):
    codes = torch.nn.Parameter(torch.tensor([[0.0], [1.0], [1000.0]]).expand(3, 4).clone())
    codebook = Codebook(codes, decay=0.5, dead_below=0.1)
    revived = []
    for _ in range(4):
        codebook.follow(latent, nearest_code(latent, codes), average=True)
        revived.append(codebook.revive(latent, generator()))
    assert revived == [0, 0, 0, 1]  # 0.5 ^ 3 of the even share is above a tenth of it, 0.5 ^ 4 is not
    assert codebook.share[2].item() == pytest.approx(1 / 3)
    assert (nearest_code(latent, codes) == 2).any()


def test_k_means_leaves_no_code_idle_and_beats_a_random_draw():
    latent = torch.randn(8, 4, 16, 16, generator=generator())
    codes = torch.nn.Parameter(torch.full((64, 4), 50.0))
    codebook = Codebook(codes, decay=0.99, dead_below=0.1)
    codebook.fit(latent, generator(), rounds=0)
    drawn = quantise(latent, codes).commitment.item()
    codebook.fit(latent, generator())
    assert quantise(latent, codes).commitment.item() < 0.9 * drawn
    assert (code_shares(nearest_code(latent, codes), 64) > 0).all()


@pytest.mark.parametrize("used, expected", [(512, 512), (2, 2), (1, 1)])
def test_perplexity_is_the_number_of_codes_where_they_are_used_equally(used, expected):
    assert perplexity(code_shares(torch.arange(512) % used, 512)) == pytest.approx(expected)

"""A wider or deeper decoder starts as the vanilla one."""

import pytest
import torch

from asymlib.models.construction import asymmetric_vqgan
from asymlib.models.widening import copied_channels, widen_decoder


def gap(first_stage, latent, width, blocks):
    vqgan = asymmetric_vqgan(first_stage, width, blocks, branch=True, inherit="widen", seed=0)
    with torch.no_grad():
        return (vqgan.decode(latent) - first_stage.decode(latent).sample).abs().max().item(), vqgan


@pytest.fixture
def latent():
    return torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))


def test_twice_as_wide_or_deeper_computes_the_same(first_stage, latent):
    """Breaks when a copy's weights do not add up, attention's scale is forgotten, or a new block changes its input."""
    width, blocks = first_stage.config.block_out_channels[0], first_stage.config.layers_per_block + 1
    assert gap(first_stage, latent, width, blocks + 2)[0] == 0
    assert gap(first_stage, latent, 2 * width, blocks)[0] < 1e-5
    assert gap(first_stage, latent, 2 * width, blocks + 1)[0] < 1e-5


def test_where_groups_do_not_allow_it_the_start_is_near(first_stage, latent):
    width, blocks = first_stage.config.block_out_channels[0], first_stage.config.layers_per_block + 1
    found, _ = gap(first_stage, latent, width * 3 // 2, blocks)
    with torch.no_grad():
        vanilla = first_stage.decode(latent).sample
        scratch = asymmetric_vqgan(first_stage, width * 3 // 2, blocks, True, False, 0).decode(latent)
    assert 1e-5 < found < (scratch - vanilla).abs().max()


def test_copies_learn_different_things(first_stage, latent):
    """Breaks when copies share the outgoing weights evenly: their gradients would be equal for ever."""
    width, blocks = first_stage.config.block_out_channels[0], first_stage.config.layers_per_block + 1
    _, vqgan = gap(first_stage, latent, 2 * width, blocks)
    vqgan.train()
    vqgan.decode(latent).square().sum().backward()
    gradient = vqgan.decoder.up_blocks[0].resnets[0].conv1.weight.grad
    assert not torch.allclose(gradient[0], gradient[1], rtol=1e-3)
    assert torch.equal(*vqgan.decoder.up_blocks[0].resnets[0].conv1.weight[:2, 0, 0, 0].detach().sign())


def test_copies_stay_in_their_group():
    assert copied_channels(4, 6, 2).tolist() == [0, 0, 1, 2, 2, 3]
    assert copied_channels(4, 8, 2).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_what_cannot_be_widened_is_one_sentence(first_stage):
    with pytest.raises(ValueError, match="width: got 4 channels for 8, expected at least as many"):
        copied_channels(8, 4, 2)
    width, blocks = first_stage.config.block_out_channels[0], first_stage.config.layers_per_block + 1
    shallow = asymmetric_vqgan(first_stage, width, blocks - 1, True, False, 0)
    with pytest.raises(ValueError, match=r"decoder: got no up_blocks\S+, expected at least the depth"):
        widen_decoder(shallow.decoder, first_stage.decoder, shallow.config.norm_num_groups, 0)

"""Other ways for the known pixels than the paper's: each does what its name says, and starts where it should."""

import pytest
import torch
from torch.nn.functional import pad

from asymlib.models.condition import BLENDS, Condition, ConditionBranch, Replace, shrink_mask
from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.models.decoder import load_vqgan
from asymlib.training.decoder import decode_macs

OURS = {"blend": "add", "layers": 3, "mask_input": True, "copy_known": True}


def on(first_stage, **condition):
    return asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), True, True, 0, condition)


@pytest.fixture
def pictures(first_stage):
    torch.manual_seed(2)
    image, mask = torch.rand(2, 3, 32, 32) * 2 - 1, torch.zeros(2, 1, 32, 32)
    mask[..., 9:20, 6:21] = 1
    with torch.no_grad():
        return first_stage.encode(image).latent_dist.mean, image, mask


@pytest.mark.parametrize("blend", ["add", "concatenate"])
def test_training_starts_from_the_vanilla_decoder(first_stage, pictures, blend):
    """Breaks when a new convolution does not start at zero."""
    latent, image, mask = pictures
    with torch.no_grad():
        vanilla = first_stage.decode(latent).sample
        assert (on(first_stage, blend=blend).decode(latent, image, mask) - vanilla).abs().max() < 1e-5
        gated, replaced = (on(first_stage, blend=b).decode(latent, image, mask) for b in ("gate", "replace"))
    assert 0 < (gated - vanilla).abs().mean() < 0.2 * (replaced - vanilla).abs().mean()


def test_copied_pixels_are_exact_and_the_hole_is_the_trunks(first_stage, pictures):
    """Breaks when the copy is left out or its mask inverted."""
    latent, image, mask = pictures
    with torch.no_grad():
        image_hat, vanilla = on(first_stage, **OURS).decode(latent, image, mask), first_stage.decode(latent).sample
    known = (1 - mask).bool().expand_as(image)
    assert torch.equal(image_hat[known], image[known])
    assert (image_hat - vanilla)[~known].abs().max() < 1e-5


@pytest.mark.parametrize("blend", BLENDS)
def test_the_mask_as_input_tells_a_hole_from_grey(blend):
    """Breaks when the mask is not concatenated; officially a hole and grey pixels are the same."""
    grey, hole = torch.zeros(1, 3, 16, 16), pad(torch.ones(1, 1, 4, 4), (6, 6, 6, 6))
    for mask_input in (False, True):
        branch = ConditionBranch((8, 16, 16), Condition(blend=blend, mask_input=mask_input))
        same = all(torch.equal(a, b) for a, b in zip(branch(grey, hole), branch(grey, 0 * hole), strict=True))
        assert same != mask_input


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_fewer_layers_are_those_of_full_resolution(first_stage, pictures, layers):
    """Breaks when the coarse end is kept, or a level without a feature still blends."""
    latent, image, mask = pictures
    vqgan = on(first_stage, layers=layers)
    met = []
    for i, blend in enumerate(vqgan.decoder.condition_encoder.blends):
        blend.register_forward_hook(lambda _, inputs, out, i=i: met.append((i, out.shape[-1])))
    with torch.no_grad():
        vqgan.decode(latent, image, mask)
    assert met[::-1] == [(0, 32), (1, 32), (2, 16), (3, 8), (4, 4)][:layers]
    assert decode_macs(vqgan, 64) < decode_macs(on(first_stage), 64)


def test_coarse_masks_count_a_cell_by_one_pixel_by_all_or_by_its_share():
    mask = torch.zeros(1, 1, 2, 4)
    mask[..., 1, 1] = mask[..., :, 2:] = 1
    shrunk = {how: shrink_mask(mask, (1, 2), how).flatten().tolist() for how in ("nearest", "any", "area")}
    assert shrunk == {"nearest": [0, 1], "any": [1, 1], "area": [0.25, 1]}


def test_replace_keeps_the_trunk_in_the_hole():
    trunk, feature, mask = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 0], [0, 1]]]])
    assert torch.equal(Replace(1, 1)(trunk, feature, mask), mask)


def test_without_the_last_norm_known_pixels_do_not_see_the_latent(first_stage, pictures):
    """What preservation is made of: with the official norm they change with the latent, beyond a rim of one pixel."""
    latent, image, mask = pictures
    known = pad(1 - mask, (1, 1, 1, 1), value=1).unfold(2, 3, 1).unfold(3, 3, 1).amin((-2, -1)).bool().expand_as(image)
    moved = {}
    for norm in (True, False):
        vqgan = on(first_stage, output_norm=norm)
        with torch.no_grad():
            moved[norm] = (vqgan.decode(latent, image, mask) - vqgan.decode(latent + 1, image, mask))[known].abs().max()
    assert moved[False] == 0 < moved[True]


def test_a_saved_decoder_comes_back_as_it_was_and_diffusers_refuses_it(first_stage, pictures, tmp_path):
    latent, image, mask = pictures
    vqgan = on(first_stage, **OURS)
    torch.nn.init.normal_(vqgan.decoder.condition_encoder.blends[0].project.weight)
    vqgan.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_vqgan(tmp_path).decode(latent, image, mask), vqgan.decode(latent, image, mask))
    with pytest.raises(ValueError, match="condition: got"):
        vqgan.to_diffusers()


@pytest.mark.parametrize("wrong, name", [({"blend": "sum"}, "blend"), ({"coarse_mask": "max"}, "coarse_mask")])
def test_an_unknown_option_is_named(wrong, name):
    with pytest.raises(ValueError, match=f"^{name}: got"):
        Condition(**wrong)

"""Known pixels are fitted before the decoder is trained: by the last layers alone, at any scale of the trunk."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

from asymlib.masks import dilate
from asymlib.metrics import pre_error
from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.pixels import to_tensor
from asymlib.training.decoder import batches, decode_macs
from asymlib.training.fitting import FittingSettings, _pictures_and_features, fit_known_pixels, fitting_macs
from asymlib.training.settings import TrainingSettings

FITTED = {
    "condition_encoder.layers.0.weight",
    "condition_encoder.layers.0.bias",
    "conv_norm_out.weight",
    "conv_norm_out.bias",
    "conv_out.weight",
    "conv_out.bias",
}


def fit(vqgan, crops, **changes):
    settings = FittingSettings(**{"pictures": 12, "steps": 400, "batch": 4} | changes)
    fit_known_pixels(vqgan, batches(crops, TrainingSettings(batch=4), 0, 0), settings)


@torch.no_grad()
def error(vqgan, crops):
    """Of known pixels beyond the rim, which the deeper layers cannot reach but through the statistics."""
    image, mask = to_tensor(crops.image[:4]), torch.zeros(4, 1, 32, 32)
    mask[..., 8:20, 8:20] = 1
    image_hat = vqgan.decode(vqgan.posterior(image).mode(), image, mask)
    return pre_error((image + 1) / 2, (image_hat + 1) / 2, dilate(mask, 1)).mean().item()


def test_only_the_layers_that_make_known_pixels_change_and_their_error_falls(base, crops):
    before = {name: weight.clone() for name, weight in base.decoder.state_dict().items()}
    learns = {name: p.requires_grad for name, p in base.named_parameters()}
    start = error(base, crops)
    fit(base, crops)
    assert {
        name for name, weight in base.decoder.state_dict().items() if not torch.equal(weight, before[name])
    } == FITTED
    assert {name: p.requires_grad for name, p in base.named_parameters()} == learns
    assert error(base, crops) < start / 10


def test_a_trunk_with_a_signal_of_hundreds_is_no_harder(first_stage, crops):
    """Breaks when the branch has to grow by Adam's small steps to be heard against the trunk."""
    found = []
    for scale in (1, 300):
        vqgan = asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), True, True, 0)
        vqgan.decoder.up_blocks[-1].resnets[-1].output_scale_factor = 1 / scale
        fit(vqgan, crops, steps=150)
        found.append(error(vqgan, crops))
    assert found[1] == pytest.approx(found[0], rel=0.2)


@pytest.mark.parametrize("condition", [{"mask_input": True}, {"blend": "gate"}, {"output_norm": False}])
def test_other_conditions_are_fitted_too(first_stage, crops, condition):
    vqgan = asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), True, True, 0, condition)
    start = error(vqgan, crops)
    fit(vqgan, crops, steps=100)
    assert error(vqgan, crops) < start


def test_large_pictures_are_cut_to_windows_and_their_latents_to_the_same(base):
    """Breaks when rows and columns change places, or a window's picture is not of its latent's place."""
    cells = torch.arange(24 * 24.0).view(1, 1, 24, 24)
    latent = cells.expand(2, 4, 24, 24)
    image = interpolate(cells, scale_factor=8).expand(2, 3, 192, 192)
    seen = []
    base.decoder.conv_in.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    base.post_quant_conv = None
    pictures, features = _pictures_and_features(base, iter([(image, latent)]), 2, np.random.default_rng(5))
    assert pictures.shape == (2, 3, 64, 64) and features.shape[-2:] == (64, 64)
    assert torch.equal(pictures[0, 0, ::8, ::8], seen[0][0, 0]) and seen[0][0, 0, 0, 0] % 25


@pytest.mark.parametrize("side", [32, 96])
def test_the_formula_counts_what_is_computed(base, side):
    settings = FittingSettings(pictures=4, steps=20, batch=4)
    given = torch.rand(4, 3, side, side), torch.randn(4, 4, side // 8, side // 8)
    with FlopCounterMode(display=False) as counter:
        fit_known_pixels(base, iter([given]), settings)
    counted, branch = counter.get_total_flops() / 2, base.decoder.condition_encoder
    decode = settings.pictures * decode_macs(base, min(side, 64))
    with FlopCounterMode(display=False) as counter:
        branch(given[0][..., :64, :64], torch.zeros(4, 1, min(side, 64), min(side, 64)))
    not_run = counter.get_total_flops() / 2  # of a decode with a condition
    picture = settings.steps * 4 * branch.layers[0].weight.numel() * min(side, 64) ** 2  # has no gradient
    assert (
        fitting_macs(base, settings, side) == pytest.approx(counted + not_run + picture, rel=0.01)
        and decode < counted + not_run
    )


def test_a_fit_that_was_kept_is_taken_again_and_one_of_other_data_is_not(first_stage, crops, tmp_path):
    kept, made = tmp_path / "fitted.safetensors", []
    for data in ("a", "a", "b"):
        vqgan = asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), True, True, 0)
        drawn = batches(crops, TrainingSettings(batch=4), len(made), 0)  # others each time
        fit_known_pixels(vqgan, drawn, FittingSettings(pictures=4, steps=5, batch=4), kept=kept, data_hash=data)
        made.append({name: weight.clone() for name, weight in vqgan.decoder.state_dict().items()})
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert {name for name in made[0] if not torch.equal(made[0][name], made[2][name])} == FITTED


def test_what_cannot_be_fitted_is_refused_in_one_sentence(first_stage, base, crops):
    vqgan = asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), True, True, 0, {"blend": "add"})
    with pytest.raises(ValueError, match="blend: got 'add', expected 'replace' or 'gate'"):
        fit(vqgan, crops)
    with pytest.raises(ValueError, match="image: got 50 x 50, expected 48 x 48, the size of its latent"):
        fit_known_pixels(base, iter([(torch.zeros(1, 3, 50, 50), torch.zeros(1, 4, 6, 6))]))


def test_there_has_to_be_a_branch(first_stage, crops):
    vqgan = asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), branch=False)
    with pytest.raises(ValueError, match="vqgan: got a decoder without a condition branch"):
        fit(vqgan, crops)

"""Known pixels are fitted before the decoder is trained: by the last layers alone, at any scale of the trunk."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from asymlib.masks import dilate
from asymlib.metrics import pre_error
from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.models.first_stage import encode_means
from asymlib.pixels import to_tensor
from asymlib.training.decoder import batches, decode_macs
from asymlib.training.fitting import FittingSettings, fit_known_pixels, fitting_macs
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


def test_large_pictures_are_cut_to_windows(base, first_stage):
    image = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    latent = encode_means(first_stage, to_tensor(image))
    seen = []
    base.decoder.conv_norm_out.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[-2:])))
    settings = FittingSettings(pictures=2, steps=1, batch=2)
    fit_known_pixels(base, iter([(to_tensor(image), latent)]), settings)
    assert set(seen) == {(64, 64)}


def test_the_formula_counts_what_is_computed(base, crops):
    settings = FittingSettings(pictures=4, steps=20, batch=4)
    with FlopCounterMode(display=False) as counter:
        fit_known_pixels(base, batches(crops, TrainingSettings(batch=4), 0, 0), settings)
    counted = counter.get_total_flops() / 2
    # a decode is one without the branch there, and no gradient goes into the picture
    assert 0.6 < counted / fitting_macs(base, settings, 32, decode_macs(base, 32)) <= 1


def test_there_has_to_be_a_branch(first_stage, crops):
    vqgan = asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), branch=False)
    with pytest.raises(ValueError, match="vqgan: got a decoder without a condition branch"):
        fit(vqgan, crops)

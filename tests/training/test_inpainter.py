"""The latent diffusion model: nine channels, a loss that falls, and a first stage that is not touched."""

import pytest
import torch

from asymlib.models.inpainter import LatentInpainter
from asymlib.params import load_params
from asymlib.training.inpainter import masked_latents, train_inpainter


@pytest.fixture(scope="module")
def pairs(first_stage):
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return masked_latents(first_stage, images, 2, 0)


def test_it_has_the_channels_of_stable_diffusion_s(first_stage):
    inpainter = LatentInpainter.build((16, 32), 1.0, 0)
    assert inpainter.unet.config.in_channels == 9 and inpainter.unet.config.out_channels == 4


def test_training_lowers_the_loss_and_leaves_the_first_stage_alone(first_stage, pairs, tmp_path):
    before = {k: v.numpy().tobytes() for k, v in first_stage.state_dict().items()}
    settings = load_params("smoke").inpainter.model_copy(update={"steps": 100, "batch": 8, "lr": 3e-3})
    inpainter = LatentInpainter.build(settings.widths, 1.0, 0)
    curve = train_inpainter(inpainter, *pairs, settings, 0)
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert {k: v.numpy().tobytes() for k, v in first_stage.state_dict().items()} == before
    inpainter.save(tmp_path)
    again = LatentInpainter.load(tmp_path)
    latent, masked, mask = pairs
    assert torch.equal(again.sample(masked[:2], mask[:2], 2, 0), inpainter.sample(masked[:2], mask[:2], 2, 0))


def test_an_image_s_sample_does_not_depend_on_its_batch(pairs):
    inpainter = LatentInpainter.build((16, 32), 1.0, 0)
    _, masked, mask = pairs
    alone, together = inpainter.sample(masked[:1], mask[:1], 2, 7), inpainter.sample(masked[:3], mask[:3], 2, 7)
    assert torch.allclose(alone, together[:1], atol=1e-5)
    assert not torch.allclose(alone, inpainter.sample(masked[:1], mask[:1], 2, 8))


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="inpainter .* is missing; .*stage inpainter makes it"):
        LatentInpainter.load(tmp_path)

"""The numbers of a diffusion model's card, and the sheet for its judge."""

import json

import pytest
import torch
from PIL import Image

from asymlib.models.first_stage import encode_means
from asymlib.models.inpainter import LatentInpainter
from asymlib.study.evaluation.inpainter import hole_crops, known_ratio, numbers, validation_loss, write_sheet
from asymlib.study.training.inpainter import make_examples


@pytest.fixture(scope="module")
def image():
    return torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def inpainter():
    return LatentInpainter.build((16, 32), 1.0, 0)


def test_a_model_that_knows_the_velocity_has_no_loss(first_stage, inpainter, image, monkeypatch):
    """Breaks when noise, timestep and velocity of an example do not belong together."""
    examples = make_examples(first_stage, ((image[:4] + 1) * 127.5).byte(), 1, 0.0, 0)
    assert validation_loss(inpainter, examples, 0) == validation_loss(inpainter, examples, 0) > 0.1

    def knowing(noisy, t, known, wish):
        """v = (sqrt(a) x - z) / sqrt(1 - a) from the noisy latent x and the clean one z."""
        a = inpainter.scheduler.alphas_cumprod[t][:, None, None, None].double()
        clean = examples.latent.double()
        return ((a.sqrt() * noisy - clean) / (1 - a).sqrt()).float()

    monkeypatch.setattr(inpainter, "predict", knowing)
    assert validation_loss(inpainter, examples, 0) < 1e-4


def test_the_known_ratio_counts_known_pixels_alone():
    image, mask = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    mask[..., :2, :] = 1
    own, filled = image + 0.1, image + 0.2
    filled[..., :2, :] = 1
    assert known_ratio(image, filled, own, mask) == pytest.approx(4, rel=1e-4)


def test_a_hole_s_crop_is_the_square_around_it_inside_the_picture():
    image, mask = torch.zeros(2, 3, 128, 128), torch.zeros(2, 1, 128, 128)
    mask[0, :, 20:84, 60:70] = 1  # 64 px high: cut at 20:84, 33:97
    image[0, :, 20:84, 33:97] = 1
    mask[1, :, :2, 126:] = 1  # in a corner, and smaller than half of a crop's side
    image[1, :, :32, 96:] = 1
    crops = hole_crops(image, mask)
    assert crops.shape == (2, 3, 64, 64) and crops.min() > 0.999


def test_a_model_s_numbers_are_those_of_its_card(first_stage, inpainter, image):
    values = numbers(inpainter, first_stage, image, 1, 0)
    assert list(values) == ["pictures", "loss", "known_ratio", "kid", "kid_deviation"] and values["pictures"] == 64
    assert values["known_ratio"] > 0 and values == numbers(inpainter, first_stage, image, 1, 0)


def test_the_sheet_hides_which_model_is_which_and_keeps_the_known_pixels(first_stage, inpainter, image, tmp_path):
    models = {"old": inpainter, "new": LatentInpainter.build((16, 32), 1.0, 1)}
    write_sheet(models, first_stage, image, 8, 0, tmp_path)
    key = json.loads((tmp_path / "key.json").read_text())
    assert len(key) == 8 and {tuple(order) for order in key.values()} == {("old", "new"), ("new", "old")}
    with Image.open(tmp_path / "hole_00.png") as sheet:
        assert sheet.size == (3 * 32 * 3, 32 * 3)


def test_encoding_in_parts_changes_no_example(first_stage, image):
    """300 pictures are more than a part."""
    images = ((image.repeat(5, 1, 1, 1)[:300] + 1) * 127.5).byte()
    examples = make_examples(first_stage, images, 2, 0.2, 0)
    assert len(examples.latent) == 600 and torch.equal(examples.latent[:300], examples.latent[300:])
    hidden = (1 - examples.mask[290:300].float()) * (images[290:300].float() / 127.5 - 1)
    torch.testing.assert_close(examples.masked_latent[290:300], encode_means(first_stage, hidden), atol=1e-4, rtol=0)

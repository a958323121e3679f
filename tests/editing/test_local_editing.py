"""Local editing: a region is found where two prompts disagree and nowhere else, and only there is anything edited."""

import numpy as np
import pytest
import torch
from PIL import Image

from asymlib.editing.generation import generate
from asymlib.editing.local_editing import (
    added_words,
    edit_by_example,
    edit_by_prompt,
    edit_mask,
    edit_photo,
    paint_by_example,
)
from asymlib.models.first_stage import encode_means
from asymlib.models.inpainter import LatentInpainter


class Disagreeing(LatentInpainter):
    """Its answer depends on the prompt in the left half of the latent only."""

    def predict(self, latent, t, known, wish, guidance_scale=1.0):
        answer = torch.zeros_like(latent)
        left = latent.shape[-1] // 2
        answer[..., :left] = wish.argmax(1)[:, None, None, None].float()
        return answer


@pytest.fixture(scope="module")
def model():
    return LatentInpainter.build((16, 32), 1.0, 0)


@pytest.fixture
def encode(first_stage):
    return lambda image: encode_means(first_stage, image)


def test_the_mask_is_where_two_prompts_disagree(model):
    stub = Disagreeing(model.denoiser, model.scheduler, 1.0)
    mask = edit_mask(stub, torch.randn(2, 4, 8, 16), "red", ["blue", "dark"], 0)
    assert mask.shape == (2, 1, 64, 128)
    assert (mask[..., :64] == 1).all() and (mask[..., 64:] == 0).all()


def test_where_no_prompt_disagrees_nothing_is_found(model):
    """Neither NaN nor everything: the same prompt twice, for one image of two."""
    mask = edit_mask(model, torch.randn(2, 4, 5, 7), "red", ["red", "blue"], 0)
    assert mask.shape == (2, 1, 40, 56)
    assert not mask[0].any() and mask[1].any() and not mask[1].all()


def test_an_edit_with_an_empty_mask_is_still_decodable(encode, model):
    edit = edit_by_prompt(encode, model, torch.zeros(1, 3, 64, 64), "red", "red", 2, 0)
    assert not edit.mask.any() and torch.isfinite(edit.latent).all() and edit.latent.shape == (1, 4, 8, 8)


def test_the_hole_is_asked_for_what_the_target_adds():
    assert added_words("red dark", "blue dark") == "blue"
    assert added_words(None, "blue dark") == "blue dark"
    assert added_words("red dark", "dark") == "dark"
    assert added_words(["red", None], ["red blue", "red"]) == ["blue", "red"]


def test_an_example_is_seen_through_its_statistics_alone(encode, model):
    """Breaks when the example could be copied: the same latent with its positions in another order is the same."""
    image, mask = torch.zeros(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    mask[..., :16] = 0
    latent = torch.randn(1, 4, 4, 4)
    shuffled = latent.flatten(2)[..., torch.randperm(16)].reshape(1, 4, 4, 4)

    def edit(reference):
        return edit_by_example(
            lambda x: reference if x is example else encode(x), model, image, mask, example, 2, 0
        ).latent

    example = torch.ones(1, 3, 32, 32)
    assert torch.allclose(edit(latent), edit(shuffled), atol=1e-4)
    assert not torch.allclose(edit(latent), edit(latent + 1), atol=1e-3)


def test_generation_is_repeatable_and_refuses_a_size_between_cells(model):
    one, two = generate(model, 2, 64, 2, 0), generate(model, 2, 64, 2, 0)
    assert one.shape == (2, 4, 8, 8) and torch.equal(one, two)
    assert not torch.equal(one, generate(model, 2, 64, 2, 1))
    with pytest.raises(ValueError, match="size: got 60, expected a positive multiple of 8"):
        generate(model, 1, 60, 2, 0)


def test_photographs_of_any_size_and_mode_keep_their_size(model, base):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 67), np.uint8))
    example, mask = Image.new("RGB", (45, 41), "red"), Image.new("L", (67, 50))
    mask.paste(255, (20, 10, 40, 30))
    assert edit_photo(photo, "grey", "red", model, base, steps=2).size == (67, 50)
    assert paint_by_example(photo, mask, example, model, base, steps=2).size == (67, 50)
    with pytest.raises(FileNotFoundError, match="example: got example.png, expected an existing picture"):
        paint_by_example(photo, mask, "example.png", model, base)

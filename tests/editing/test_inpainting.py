"""Pictures in, picture out; and paste-back."""

import numpy as np
import pytest
import torch
from PIL import Image

from asymlib.editing.compositing import paste_hard
from asymlib.editing.inpainting import inpaint
from asymlib.models.inpainter import LatentInpainter


@pytest.fixture(scope="module")
def model():
    return LatentInpainter.build((16, 32), 1.0, 0)


def test_any_size_and_mode_goes_in_and_the_same_size_comes_out(base, model):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 50), np.uint8))  # greyscale, odd sides
    mask = Image.new("L", (50, 37))
    mask.paste(255, (10, 10, 30, 20))
    result = inpaint(photo, mask, model, base, steps=2)
    assert result.size == (50, 37) and result.mode == "RGB"
    known = np.asarray(mask) == 0
    assert (np.asarray(result)[known] == np.asarray(photo.convert("RGB"))[known]).all()
    assert np.array_equal(np.asarray(result), np.asarray(inpaint(photo, mask, model, base, steps=2)))


@pytest.mark.parametrize("photo, mask, message", [
    (None, Image.new("L", (32, 32)), "photo: got NoneType, expected a PIL image"),
    (Image.new("RGB", (32, 32)), Image.new("L", (16, 32)), "mask: got 16 x 32, expected the picture's 32 x 32"),
    (Image.new("RGB", (32, 32)), None, "mask: got NoneType"),
])  # fmt: skip
def test_bad_input_is_one_clear_sentence(base, model, photo, mask, message):
    with pytest.raises(ValueError, match=message):
        inpaint(photo, mask, model, base, steps=2)


def test_paste_hard_keeps_every_known_pixel():
    """Breaks when the mask is inverted."""
    image, edit, mask = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2), torch.tensor([[[[1.0, 0], [0, 0]]]])
    assert paste_hard(image, edit, mask).sum().item() == 3 and paste_hard(image, edit, mask)[0, 0, 0, 0] == 1

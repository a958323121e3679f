"""Widgets where a person is, pictures where none is, and the painted mask."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from asymlib.pixels import to_picture, to_pixels
from asymlib.study.widgets import before_and_after, mask_painter, painted


@pytest.fixture
def image():
    return torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Canvas:
    """What of wigglystuff's `Paint` is used."""

    def __init__(self, picture):
        self.picture = picture

    def get_pil(self):
        return self.picture


def test_nobody_paints_where_a_notebook_is_only_run(image, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    given = torch.ones(1, 1, 24, 32)
    assert mask_painter(image) is None and painted(None, image, given) is given
    assert before_and_after(image, -image).__class__.__name__ == "Figure"


def test_what_was_painted_is_the_hole_and_nothing_painted_is_the_given_mask(image):
    picture, given = to_picture(image), torch.ones(1, 1, 24, 32)
    assert painted(Canvas(picture), image, given) is given
    strokes = picture.copy()
    strokes.paste((255, 45, 45), (5, 6, 15, 20))
    hole = painted(Canvas(strokes), image, given)
    assert hole.sum() == 10 * 14 and (hole[..., 6:20, 5:15] == 1).all()


def test_the_slider_shows_one_picture_on_each_side(image, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "00.ipynb")
    box = before_and_after(image, -image)
    shown, slider = box.children[0], box.children[1].children[0]
    first = shown.value
    slider.value = 4
    assert shown.value != first
    pixels = np.asarray(Image.open(io.BytesIO(shown.value)))
    np.testing.assert_array_equal(pixels[:, :3], to_pixels(image[0])[:, :3])
    np.testing.assert_array_equal(pixels[:, 5:], to_pixels(-image[0])[:, 5:])

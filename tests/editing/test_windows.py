"""Where a photo is edited, and at which size."""

import numpy as np
import pytest
import torch
from PIL import Image

from asymlib.editing.inpainting import inpaint
from asymlib.editing.windows import Window, fitted, hole_window
from asymlib.models.inpainter import LatentInpainter


def hole(height, width, rows, columns):
    mask = torch.zeros(1, 1, height, width)
    mask[..., rows, columns] = 1
    return mask


def test_a_photo_of_about_the_trained_size_is_edited_as_a_whole_at_its_own():
    everywhere = Window(slice(None), slice(None), (150, 131))
    assert hole_window(hole(150, 131, slice(5, 20), slice(9, 30)), 128, 8) == everywhere


def test_a_large_one_is_edited_around_the_hole():
    """Breaks when the window misses a part of the hole, or is not brought to the trained size."""
    mask = hole(1000, 1500, slice(100, 500), slice(1200, 1420))
    window = hole_window(mask, 128, 8)
    inside = window.taken(mask)
    assert inside.sum() == mask.sum() and inside.shape[-1] < 1500
    assert window.size[0] % 8 == window.size[1] % 8 == 0 and 0.5 < window.size[0] * window.size[1] / 128**2 < 2
    assert window.shrunk_hole(mask).shape[-2:] == window.size


def test_a_large_one_with_a_small_hole_is_edited_at_its_own_resolution():
    window = hole_window(hole(1000, 1500, slice(500, 540), slice(700, 760)), 128, 8)
    assert window.shrunk(torch.zeros(1, 3, 1000, 1500)).shape[-2:] == window.size
    assert window.taken(torch.zeros(1, 1, 1000, 1500)).shape[-2:] == window.size


def test_a_large_one_without_a_hole_is_brought_to_the_trained_size():
    window = hole_window(torch.zeros(1, 1, 1024, 1024), 128, 8)
    assert window.size == (128, 128) and window.rows == slice(None)


@pytest.mark.parametrize("size, expected", [((512, 512), (512, 512)), ((64, 64), (512, 512)), ((500, 520), (496, 520))])
def test_a_size_is_fitted_in_steps(size, expected):
    assert fitted(size, 512, 8) == expected
    assert fitted(size, None, 8) == tuple(round(side / 8) * 8 for side in size)


def test_what_is_put_back_changes_the_window_alone():
    image = torch.rand(1, 3, 40, 60)
    window = Window(slice(10, 30), slice(20, 50), (10, 15))
    result = window.put_back(torch.zeros(1, 3, 10, 15), image)
    assert (result[..., 10:30, 20:50] == 0).all() and torch.equal(result[..., :10, :], image[..., :10, :])


def test_inpainting_a_large_photo_changes_its_hole_alone(base):
    """Breaks when a window's edit lands elsewhere, or known pixels go through a change of size."""
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (260, 300, 3), np.uint8))
    mask = Image.new("L", photo.size)
    mask.paste(255, (200, 40, 280, 100))
    model = LatentInpainter.build((16, 32), 1.0, 0)
    result = np.asarray(inpaint(photo, mask, model, base, steps=2, word="red"))
    outside = np.asarray(mask) == 0
    np.testing.assert_array_equal(result[outside], np.asarray(photo)[outside])
    assert (result[~outside] != np.asarray(photo)[~outside]).mean() > 0.9

"""Pixels as arrays and tensors: ranges, rounding, squares and padding."""

import numpy as np
import pytest
import torch

from asymlib.pixels import (
    centre_square,
    pad_to_multiple,
    shrink,
    to_picture,
    to_pixels,
    to_tensor,
    to_uint8,
)


def test_to_tensor_takes_both_layouts():
    pixels = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    assert torch.equal(to_tensor(pixels), to_tensor(tensor))
    assert to_tensor(np.array([[[[0, 255, 51]]]], np.uint8)).flatten().tolist() == pytest.approx([-1, 1, -0.6])


def test_every_level_survives_the_way_to_a_tensor_and_back():
    """Breaks when pixels are truncated, not rounded, or rows and columns are exchanged."""
    pixels = np.arange(256 * 3, dtype=np.uint16).astype(np.uint8).reshape(32, 8, 3)
    tensor = to_tensor(pixels[None])
    assert np.array_equal(to_pixels(tensor[0]), pixels) and to_pixels(tensor[0]).dtype == np.uint8
    assert np.array_equal(np.asarray(to_picture(tensor)), pixels)
    assert to_pixels(torch.tensor([-2.0, 0.999, 2.0]).view(3, 1, 1)).flatten().tolist() == [0, 255, 255]


def test_images_are_rounded_not_truncated():
    assert to_uint8(torch.tensor([0.999 / 255, 1.5 / 255 + 1e-4, 2.0, -1.0])).tolist() == [1, 2, 255, 0]


def test_the_middle_square_and_a_mean_over_what_a_pixel_stands_for():
    pixels = np.zeros((4, 10, 3), np.uint8)
    pixels[:, 3:7] = np.arange(4)[None, :, None]
    square = centre_square(pixels)
    assert np.array_equal(square[0, :, 0], [0, 1, 2, 3]) and square.shape == (4, 4, 3)
    halves = np.repeat(np.array([[0, 100], [20, 40]], np.uint8), 3, 1).reshape(2, 2, 3)
    assert shrink(halves, 1, 1).tolist() == [[[40, 40, 40]]]
    assert shrink(pixels, 2, 5).shape == (2, 5, 3)


def test_padding_repeats_the_border_below_and_to_the_right():
    image = torch.arange(6.0).view(1, 1, 2, 3)
    padded = pad_to_multiple(image, 4)
    assert padded.shape == (1, 1, 4, 4) and torch.equal(padded[..., :2, :3], image)
    assert (padded[..., 2:, :3] == image[..., -1:, :]).all() and (padded[..., 3] == padded[..., 2]).all()
    assert torch.equal(pad_to_multiple(padded, 4), padded)

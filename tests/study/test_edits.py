"""Edits of pixels: the hole changes as it says, and nothing else does."""

import numpy as np
import pytest
import torch

from asymlib.pixels import to_tensor
from asymlib.study.edits import TINTS, recoloured, removed, tinted


@pytest.fixture
def stripes():
    """Grey with a red square on vertical stripes, and a mask around the square."""
    pixels = np.full((64, 64, 3), 110, np.uint8)
    pixels[:, ::8] = 160
    pixels[24:40, 24:40] = (200, 20, 20)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 22:42, 22:42] = 1
    return to_tensor(pixels[None]), mask


def test_what_is_removed_is_filled_from_elsewhere_in_the_picture(stripes):
    """Breaks when the mask is turned round (the picture would vanish), or colours are not brought back from Lab."""
    image, mask = stripes
    filled = removed(image, mask)
    hole = mask.expand_as(image) > 0
    assert torch.equal(filled[~hole], image[~hole])
    red = (filled[:, 0] - filled[:, 1])[mask[:, 0] > 0]
    assert red.abs().max() < 0.1 and torch.equal(removed(image, mask), filled)
    assert filled[hole].std() > 0.1  # the stripes go on


def test_a_mask_that_leaves_nothing_is_refused(stripes):
    with pytest.raises(ValueError, match="mask: got one that covers its whole picture"):
        removed(stripes[0], torch.ones_like(stripes[1]))


def test_another_colour_in_the_hole_alone(stripes):
    image, mask = stripes
    changed = recoloured(image, mask, 0)
    hole = mask.expand_as(image) > 0
    assert torch.equal(changed[~hole], image[~hole]) and changed.abs().max() <= 1
    square = changed[0, :, 30, 30]
    assert square[0] < square[1:].max()  # red no more
    assert (changed[0, :, 22, 22] - image[0, :, 22, 22]).abs().mean() > 0.05  # grey changes as well
    two = recoloured(image.repeat(2, 1, 1, 1), mask.repeat(2, 1, 1, 1), 0)
    assert torch.equal(two[0], changed[0]) and not torch.equal(two[1], changed[0])


def test_tints_take_turns_and_change_the_whole_picture_a_little(stripes):
    image = stripes[0].repeat(12, 1, 1, 1) * 0.8
    pictures, kinds = tinted(image, 0)
    assert kinds == [*TINTS, *TINTS] and pictures.abs().max() <= 1
    change = (pictures - image).abs().flatten(1).mean(1) / 2
    assert (change > 0.001).all() and (change < 0.15).all()
    uniform = (pictures - image)[0]
    assert uniform.flatten(1).std(1).max() < 1e-5 and uniform.flatten(1).mean(1).abs().max() > 0.01
    gradient = (pictures - image)[1]
    torch.testing.assert_close(gradient.mean((1, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    assert torch.equal(tinted(image[:6], 0)[0], pictures[:6])

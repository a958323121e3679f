"""Every way to paste back: known answers, exact known pixels, holes at the border, and what a wrong one would give."""

import pytest
import torch
from torch.nn.functional import conv2d

from asymlib.editing.compositing import (
    PASTES,
    paste_colour_matched,
    paste_feathered,
    paste_hard,
    paste_laplacian,
    paste_overlay,
    paste_poisson,
)
from asymlib.pixels import to_tensor

EXACT = ("paste_hard", "paste_poisson", "paste_colour_matched", "paste_overlay")


def box(top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    mask = torch.zeros(1, 1, 32, 40)
    mask[..., top:bottom, left:right] = 1
    return mask


INNER, BORDER, CORNER = box(10, 22, 12, 28), box(0, 12, 8, 40), box(20, 32, 0, 15)


@pytest.fixture
def image():
    pixels = torch.randint(0, 256, (1, 3, 32, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return to_tensor(pixels)


@pytest.fixture
def edit():
    return torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8


@pytest.mark.parametrize("mask", [INNER, BORDER, CORNER], ids=["inner", "border", "corner"])
@pytest.mark.parametrize("name", PASTES)
def test_known_pixels_are_exact_or_change_near_the_rim_only(name, mask, image, edit):
    """Breaks when a mask is inverted or read from the wrong corner; feathering and pyramids do change the rim."""
    pasted = PASTES[name](image, edit, mask)
    assert pasted.shape == image.shape and pasted.abs().max() <= 1
    known = (mask == 0).expand_as(image)
    if name in EXACT:
        assert torch.equal(pasted[known], image[known])
    else:
        assert not torch.equal(pasted[known], image[known])
    assert (pasted - image)[~known].abs().mean() > 0.2


@pytest.mark.parametrize("name", PASTES)
def test_an_edit_that_changes_nothing_is_the_image_and_a_hole_that_is_all_is_the_edit(name, image, edit):
    """Breaks when a weight does not sum to one, or a hole without known pixels divides by zero."""
    tolerance = 1e-5 if name != "paste_overlay" else 1 / 255
    assert torch.allclose(PASTES[name](image, image, INNER), image, atol=tolerance)
    assert torch.allclose(PASTES[name](image, edit, torch.ones_like(INNER)), edit, atol=tolerance)
    assert torch.allclose(PASTES[name](image, edit, torch.zeros_like(INNER)), image, atol=tolerance)


@pytest.mark.parametrize("name", PASTES)
def test_each_image_of_a_batch_gets_its_own_mask(name, image, edit):
    masks = torch.cat([INNER, CORNER])
    both = PASTES[name](image.expand(2, -1, -1, -1), edit.expand(2, -1, -1, -1), masks)
    alone = torch.cat([PASTES[name](image, edit, mask[None]) for mask in masks])
    assert torch.allclose(both, alone, atol=1e-6)


@pytest.mark.parametrize("mask", [INNER, BORDER, CORNER], ids=["inner", "border", "corner"])
def test_an_offset_of_the_edit_is_undone_by_poisson_and_by_matched_colours_alone(mask, image):
    """The edit is the image, brighter by 0.1: both must give the image back, up to the border; the others must not."""
    image = 0.5 * image
    edit = image + 0.1
    for paste in (paste_poisson, paste_colour_matched):
        assert torch.allclose(paste(image, edit, mask), image, atol=1e-5)
    for paste in (paste_hard, paste_feathered, paste_overlay):
        assert (paste(image, edit, mask) - image).amax() > 0.09
    assert (paste_laplacian(image, edit, mask) - image).amax() > 0.02  # less, since its coarse levels cross the hole


def test_poisson_keeps_the_gradients_of_the_edit(image, edit):
    """Inside the hole the Laplacian is the edit's; a hard paste has that too, but jumps at the rim."""
    image, edit = 0.3 * image, 0.3 * edit
    stencil = torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]]).expand(3, 1, 3, 3)
    inside = INNER[..., 1:-1, 1:-1].bool().expand(1, 3, -1, -1)
    of = {
        n: conv2d(t, stencil, groups=3)[inside]
        for n, t in (("edit", edit), ("poisson", paste_poisson(image, edit, INNER)))
    }
    assert torch.allclose(of["edit"], of["poisson"], atol=1e-4)
    hard = paste_hard(image, edit, INNER)
    assert not torch.allclose(paste_poisson(image, edit, INNER)[..., 10, 12:28], hard[..., 10, 12:28], atol=1e-2)


def test_poisson_fills_a_flat_edit_with_the_ramp_between_two_known_columns():
    """A flat edit between columns of 0 and 0.5 becomes a straight line; the border has no flux, so rows are alike."""
    image = torch.zeros(1, 3, 6, 6)
    image[..., 5] = 0.5
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., 1:5] = 1
    line = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert torch.allclose(paste_poisson(image, torch.zeros_like(image), mask), line.expand(1, 3, 6, 6), atol=1e-6)


def test_matched_colours_look_at_the_ring_only():
    """The edit is off by 0.2 at the ring and by something else far away and in the hole: the hole moves by 0.2."""
    image, edit = torch.zeros(1, 3, 32, 40), torch.full((1, 3, 32, 40), 0.7)
    edit[..., 6:26, 8:32] = 0.2
    edit[..., 10:22, 12:28] = 0.5
    pasted = paste_colour_matched(image, edit, INNER, width=4)
    assert torch.allclose(pasted[..., 10:22, 12:28], torch.tensor(0.3))


def test_feathering_is_half_at_a_straight_rim_and_hard_far_from_it():
    image, edit = torch.zeros(1, 3, 32, 40), torch.ones(1, 3, 32, 40)
    profile = paste_feathered(image, edit, box(0, 32, 20, 40), sigma=2.0)[0, 0, 0]
    assert profile[19:21].mean().item() == pytest.approx(0.5, abs=1e-5)
    assert torch.equal(profile[:14], torch.zeros(14)) and torch.allclose(profile[26:], torch.ones(14), atol=1e-6)
    assert (profile.diff() >= -1e-6).all()


def test_a_pyramid_mixes_coarse_detail_wider_than_fine_detail():
    """A brightness step crosses the rim over many pixels, a chequerboard over few: breaks with one blurred mask."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    mask = (x >= 32).float()[None, None]
    image = torch.zeros(1, 3, 64, 64)
    chequers = ((x + y) % 2 * 1.0 - 0.5).expand(1, 3, -1, -1)
    smooth = paste_laplacian(image, torch.ones_like(image), mask)[0, 0, 32]
    fine = paste_laplacian(image, chequers, mask)[0, 0, 32].abs()
    assert ((smooth > 0.05) & (smooth < 0.95)).sum() > 12
    assert fine[:28].max() < 0.05 and fine[36:60].min() > 0.4


def test_the_overlay_is_a_hard_paste_rounded_to_eight_bits(image, edit):
    rounded = to_tensor(((edit + 1) * 127.5).round().byte())
    assert torch.equal(paste_overlay(image, edit, BORDER), paste_hard(image, rounded, BORDER))
    assert not torch.equal(paste_overlay(image, edit, BORDER), paste_hard(image, edit, BORDER))


@pytest.mark.parametrize("name", PASTES)
def test_a_soft_mask_fades_and_any_type_will_do(name):
    """Breaks when a mask between 0 and 1 is taken for hole, or a bool mask or a double image for an error."""
    torch.manual_seed(0)
    image, image_hat, hole = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    hole[..., 8:24, 8:24] = 1
    paste = PASTES[name]
    whole = paste(image.double(), image_hat, hole.bool())
    assert whole.dtype == image_hat.dtype and torch.allclose(whole, paste(image, image_hat, hole), atol=1e-6)
    if name != "paste_laplacian":  # which mixes each octave by a mask of its own
        faded = paste(image, image_hat, hole / 4)
        middle = (..., slice(15, 17), slice(15, 17))
        assert torch.allclose(faded[middle], (0.75 * image + 0.25 * whole)[middle], atol=0.02)

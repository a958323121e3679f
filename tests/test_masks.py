"""Masks: 1 = hole everywhere, the official distribution, and the kinds of the test."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from asymlib.masks import KINDS, evaluation_mask, normalise_mask, thick_mask, training_masks

HOLE = np.array([[0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    "mask",
    [
        HOLE.astype(bool),
        HOLE.astype(np.uint8),
        torch.from_numpy(HOLE),
        torch.from_numpy(HOLE).float()[None],
        torch.from_numpy(HOLE).double()[None, None],
        Image.fromarray((HOLE * 255).astype(np.uint8)),
    ],
)
def test_every_usual_form_becomes_the_same_mask(mask):
    """Breaks when a type or a shape is read in another way than the rest."""
    normal = normalise_mask(mask, 2, 3)
    assert normal.shape == (1, 1, 2, 3) and normal.dtype == torch.float32
    assert normal[0, 0].tolist() == HOLE.tolist()


@pytest.mark.parametrize(
    "mask, message",
    [
        (torch.full((2, 3), 255), "values from 255 to 255, expected 0"),
        (torch.full((2, 3), float("nan")), "values from nan"),
        (torch.full((2, 3), -0.5), "values from -0.5"),
        (torch.zeros(3, 2), r"got shape \(3, 2\).*2 x 3"),
        (torch.zeros(1, 3, 2, 3), r"got shape \(1, 3, 2, 3\)"),
        (7, "got int, expected a tensor, an array, a PIL image or its file"),
        (Image.new("L", (2, 4)), "got 2 x 4, expected the picture's 3 x 2"),
    ],
)
def test_a_bad_mask_is_one_clear_sentence(mask, message):
    with pytest.raises(ValueError, match=f"^mask: .*{message}"):
        normalise_mask(mask, 2, 3)


def test_hole_area_is_the_official_one():
    """Official generator, 4,000 draws at 256 px: mean 0.402, median 0.378, 5 % below 0.078, 35 % above one half."""
    rng = np.random.default_rng(0)
    area = np.array([thick_mask(256, rng).mean() for _ in range(4000)])
    assert area.mean() == pytest.approx(0.402, abs=0.015)
    assert np.median(area) == pytest.approx(0.378, abs=0.02)
    assert np.quantile(area, 0.05) == pytest.approx(0.078, abs=0.015)
    assert (area > 0.5).mean() == pytest.approx(0.35, abs=0.03)


def test_masks_scale_with_the_image():
    """Breaks when strokes keep their pixels at another size, as officially (0.160 at 512 px)."""
    rng = np.random.default_rng(0)
    assert np.mean([thick_mask(64, rng).mean() for _ in range(2000)]) == pytest.approx(0.402, abs=0.03)


def test_half_of_the_training_masks_are_full():
    masks = training_masks(2000, 32, 0.5, np.random.default_rng(0))
    full = masks.flatten(1).min(1).values == 1
    assert masks.shape == (2000, 1, 32, 32) and set(masks.unique().tolist()) == {0.0, 1.0}
    assert full.float().mean().item() == pytest.approx(0.5, abs=0.05)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.sampled_from([32, 64, 100, 256]), st.integers(0, 2**32))
def test_every_kind_has_a_hole_and_known_pixels(kind, size, seed):
    mask = evaluation_mask(kind, size, np.random.default_rng(seed))
    assert mask.shape == (size, size) and mask.dtype == np.uint8
    assert 0.02 <= mask.mean() <= 0.75 and set(np.unique(mask)) == {0, 1}
    assert np.array_equal(mask, evaluation_mask(kind, size, np.random.default_rng(seed)))


def test_border_masks_touch_the_border_and_boxes_do_not():
    rng = np.random.default_rng(0)
    frame = np.ones((64, 64), bool)
    frame[1:-1, 1:-1] = False
    assert all(evaluation_mask("border", 64, rng)[frame].any() for _ in range(50))
    assert not any(evaluation_mask("box", 64, rng)[frame].any() for _ in range(50))


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="kind: got 'star', expected one of box, thick"):
        evaluation_mask("star", 64, np.random.default_rng(0))

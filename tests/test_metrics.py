"""Each metric: a worked example, a known answer, and an input that a wrong definition would get wrong."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

from asymlib import metrics
from asymlib.masks import thick_mask
from asymlib.models.features import EffNetFeatures
from asymlib.models.first_stage import load_first_stage
from asymlib.pixels import to_tensor

BOX = torch.zeros(1, 1, 32, 32)
BOX[..., 8:16, 10:24] = 1


@pytest.fixture(scope="module")
def features():
    return EffNetFeatures()


@pytest.fixture
def images():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 32, 32)
    return x, (x + 0.1 * torch.randn_like(x)).clamp(0, 1)


def test_pre_error_counts_known_pixels_only(images):
    """Breaks when the mask is dropped or inverted, or the three channels are not divided out."""
    x, _ = images
    assert metrics.pre_error(x, x + 0.5 * BOX, BOX).item() == 0
    assert metrics.pre_error(x, x + 0.2 * (1 - BOX), BOX).item() == pytest.approx(0.04, rel=1e-5)


def test_psnr_kept_is_scikit_image_s_on_the_known_pixels(images):
    x, y = images
    known = (BOX == 0).expand_as(x)
    expected = peak_signal_noise_ratio(x[known].numpy(), y[known].numpy(), data_range=1)
    assert metrics.psnr_kept(x, y, BOX).item() == pytest.approx(expected, rel=1e-5)
    assert metrics.psnr_kept(x, x, BOX).item() == math.inf


def test_hole_psnr_is_scikit_image_s_on_the_crop(images):
    """Breaks when known pixels count, or the crop is another one."""
    x, y = images
    pasted = torch.where(BOX > 0, y, x)
    expected = peak_signal_noise_ratio(x[0, :, 8:16, 10:24].numpy(), pasted[0, :, 8:16, 10:24].numpy(), data_range=1)
    assert metrics.hole_psnr(x, y, BOX).item() == pytest.approx(expected, rel=1e-5)
    assert metrics.hole_psnr(x, y + (1 - BOX), BOX).item() == pytest.approx(expected, rel=1e-5)


def test_seam_grad_sees_a_step_at_the_rim_and_no_constant(images):
    """A step of 0.1 along a straight rim has the Sobel magnitude 4 x 25.5 there; a constant offset has none."""
    x, _ = images
    half = torch.zeros(1, 1, 32, 32)
    half[..., 16:] = 1
    assert metrics.seam_grad(x, x + 0.1, half).item() == pytest.approx(0, abs=1e-3)
    assert metrics.seam_grad(x, x + 0.1 * half, half).item() == pytest.approx(102, rel=1e-3)
    inside = torch.zeros(1, 1, 32, 32)
    inside[..., 24:28] = 1
    assert metrics.seam_grad(x, x + 0.1 * inside, half).item() == pytest.approx(0, abs=1e-3)


def test_ring_l1_is_the_mean_error_near_the_rim_on_both_sides(images):
    x, _ = images
    half = torch.zeros(1, 1, 32, 32)
    half[..., 16:] = 1
    near = torch.zeros(1, 1, 32, 32)
    near[..., 14:18] = 1
    assert metrics.ring_l1(x, x + near / 255, half, 2).item() == pytest.approx(1, rel=1e-3)
    assert metrics.ring_l1(x, x + near / 255, half, 4).item() == pytest.approx(0.5, rel=1e-3)
    assert metrics.ring_l1(x, x + (1 - near) / 255, half, 2).item() == pytest.approx(0, abs=1e-6)


def test_rounding_floor_is_what_rounding_alone_costs():
    x = torch.full((1, 3, 32, 32), 100.25 / 255)
    assert metrics.rounding_floor(x, BOX).item() == pytest.approx((0.25 / 255) ** 2, rel=1e-3)


def test_changed_pixels_and_max_abs_look_outside_the_hole(images):
    x, _ = images
    y = x.clone()
    y[..., 0, 0] = (metrics.to_uint8(x[..., 0, 0]) + 7 - 14 * (x[..., 0, 0] > 0.5)).float() / 255
    y = y + 0.3 * BOX
    assert metrics.max_abs_uint8(x, y, BOX).item() == 7
    assert metrics.changed_pixels(x, y, BOX).item() == pytest.approx(1 / (32 * 32 - 8 * 14), rel=1e-4)


def test_feature_distance_is_zero_for_equal_images_and_grows_with_noise(images, features):
    x, _ = images
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    ladder = [metrics.effnet_distance(x, (x + s * noise).clamp(0, 1), features).item() for s in (0, 0.02, 0.1, 0.3)]
    assert ladder[0] == 0 and ladder == sorted(ladder) and ladder[-1] < 4


def test_hole_distance_ignores_the_known_pixels(images, features):
    x, y = images
    outside = torch.where(BOX > 0, y, 1 - y)
    expected = metrics.hole_effnet_distance(x, y, BOX, features)
    assert torch.equal(metrics.hole_effnet_distance(x, outside, BOX, features), expected) and expected > 0


@pytest.fixture(scope="module")
def real():
    """A photograph, its real reconstruction by the bundled first stage, and a hole of strokes."""
    picture = to_tensor(data.chelsea()[None, 20:148, 100:228])
    with torch.no_grad():
        result = load_first_stage()(picture).sample.clamp(-1, 1)
    mask = torch.from_numpy(thick_mask(128, np.random.default_rng(3)))[None, None].float()
    return (picture + 1) / 2, (result + 1) / 2, mask


def test_rim_and_seam_are_scipy_s_on_a_real_result(real):
    """Written again with SciPy's filters and distances, pixel by pixel, and not with max-pooling and convolutions."""
    x, y, mask = real
    hole, error = mask[0, 0].numpy() > 0, 255 * (y - x)[0].double().numpy()
    across = ndimage.distance_transform_cdt(hole), ndimage.distance_transform_cdt(~hole)
    for width in (2, 4, 8):
        near = np.where(hole, *across) <= width
        assert metrics.ring_l1(x, y, mask, width).item() == pytest.approx(np.abs(error)[:, near].mean(), rel=1e-5)
    sobel = [np.hypot(ndimage.sobel(e, 0, mode="nearest"), ndimage.sobel(e, 1, mode="nearest")) for e in error]
    edge = hole & (across[0] == 1)
    assert metrics.seam_grad(x, y, mask).item() == pytest.approx(np.mean(sobel, axis=0)[edge].mean(), rel=1e-5)


def test_known_pixels_and_hole_are_numpy_s_and_scikit_image_s_on_a_real_result(real):
    x, y, mask = real
    known = (mask == 0).expand_as(x).numpy()
    squared = (y - x).double().numpy() ** 2
    assert metrics.pre_error(x, y, mask).item() == pytest.approx(squared[known].mean(), rel=1e-5)
    assert metrics.pre_error_all(x, y, mask).item() == pytest.approx((squared * known).mean(), rel=1e-5)
    rows, columns = (slice(a.min(), a.max() + 1) for a in np.nonzero(mask[0, 0].numpy()))
    pasted = torch.where(mask > 0, y, x)[0, :, rows, columns].double().numpy()
    crop = x[0, :, rows, columns].double().numpy()
    expected = peak_signal_noise_ratio(crop, pasted, data_range=1)
    assert metrics.hole_psnr(x, y, mask).item() == pytest.approx(expected, rel=1e-5)
    saved = [np.round(255 * np.float32(image[0].numpy())).astype(int) for image in (x, y)]
    changed = (saved[0] != saved[1]).any(0)[known[0, 0]]
    assert metrics.changed_pixels(x, y, mask).item() == pytest.approx(changed.mean(), rel=1e-6)


def test_pre_error_has_two_denominators():
    """Half of the picture is known: over all pixels the same error is half as large."""
    x, mask = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    mask[..., 2:] = 1
    y = x + 0.2
    assert metrics.pre_error(x, y, mask).item() == pytest.approx(0.04)
    assert metrics.pre_error_all(x, y, mask).item() == pytest.approx(0.02)


def test_several_results_at_once_are_the_same_as_one_by_one(images, features):
    """Breaks when a result is compared with another's reference."""
    x, y = (torch.cat([image, image.flip(-1)]) for image in images)
    mask, results = torch.cat([BOX, BOX.flip(-1)]), torch.stack([y, x, 1 - y])
    for together, one in (
        (metrics.effnet_distance(x, results, features), lambda r: metrics.effnet_distance(x, r, features)),
        (
            metrics.hole_effnet_distance(x, results, mask, features),
            lambda r: metrics.hole_effnet_distance(x, r, mask, features),
        ),
    ):
        assert together.shape == (3, 2)
        assert torch.allclose(together, torch.stack([one(result) for result in results]), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 19), st.integers(0, 19), st.integers(1, 20), st.integers(1, 20), st.integers(1, 24))
def test_the_bounding_crop_contains_the_hole_and_has_the_least_size(top, left, height, width, smallest):
    mask = torch.zeros(1, 20, 20)
    mask[0, top : top + height, left : left + width] = 1
    rows, columns = metrics.bounding_crop(mask, smallest)
    assert mask[0, rows, columns].sum() == mask.sum()
    for span, extent in ((rows, min(height, 20 - top)), (columns, min(width, 20 - left))):
        assert 0 <= span.start and span.stop <= 20 and span.stop - span.start == max(extent, min(smallest, 20))


def test_a_mask_without_a_hole_has_no_crop():
    with pytest.raises(ValueError, match="mask: got no hole"):
        metrics.bounding_crop(torch.zeros(1, 4, 4))

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


HALF = torch.zeros(1, 1, 16, 64)
HALF[..., 20:] = 1  # its edge is straight, and so are those of the eroded hole: means over a window are over columns


def correction(*inside, outside=-8.0):
    """A correction in levels: `outside` at the known columns, then these values, and 0 deeper in the hole."""
    columns = torch.zeros(64)
    columns[:20] = outside
    columns[20 : 20 + len(inside)] = torch.tensor(inside)
    return columns.expand(1, 3, 16, 64) / 255


@pytest.mark.parametrize(
    "inside, seam, changed",
    [
        ([], 8, 0),  # hard pasting: the decoder was 8 levels too bright, and its hole still is
        ([-8] * 44, 0, 8),  # the whole picture 8 darker: no seam, and the hole's decoded picture is gone
        ([-8] * 5, 8, 40 / 44),  # the same seam, moved inwards by 5 px
        ([-8] * 16, 8, 128 / 44),  # and as far as it is followed
        ([-8, -7, -6], 7, 21 / 44),  # over 3 px, then a cliff: 3 px inside, the mean of 8, 7 and 6
        ([-6, -4, -2], 16 / 3, 12 / 44),  # over 3 px down to nothing: 1 px inside, 2 against (8 + 8 + 6) / 3
        ([-8 + 0.2 * i for i in range(1, 41)], 0.6, 156 / 44),  # over 40 px: 3 px of its slope, paid in the hole
    ],
)
def test_no_trick_hides_a_seam_that_is_not_paid_for_in_the_hole(inside, seam, changed):
    """Breaks when the edge alone is looked at, or one side of it, or signs are lost before the means."""
    v = torch.rand(1, 3, 16, 64)
    y = v + correction(*inside)
    assert metrics.seam_added(v, y, HALF).item() == pytest.approx(seam, rel=1e-4, abs=1e-4)
    assert metrics.hole_changed(v, y, HALF).item() == pytest.approx(changed, rel=1e-4)


def test_undoing_an_edit_leaves_no_seam_and_changes_the_hole(images):
    """The edit, a hole 100 levels brighter, as the decoder shows it; a result that shows the photograph instead."""
    photograph, _ = images
    v = photograph + 100 / 255 * BOX
    assert metrics.hole_changed(v, photograph, BOX).item() == pytest.approx(100, rel=1e-4)
    assert metrics.seam_added(v, v, BOX).item() == metrics.hole_changed(v, v, BOX).item() == 0
    assert metrics.hole_changed(v, v + (1 - BOX), BOX).item() == 0


def test_what_is_lost_of_texture_outside_is_no_seam_and_a_common_offset_changes_nothing(real):
    """Stripes that the decoder lost are pasted back: a third of them is left in the mean of 3 px, all in Sobel's."""
    stripes = 30 / 255 * (torch.arange(64) % 2 * 2 - 1.0).expand(1, 3, 16, 64) * (1 - HALF)
    assert metrics.seam_added(torch.zeros_like(stripes), stripes, HALF).item() == pytest.approx(10, rel=1e-4)
    assert metrics.seam_grad(torch.zeros_like(stripes), stripes, HALF).item() == pytest.approx(120, rel=1e-4)
    x, v, mask = real
    y = torch.where(mask > 0, v, x)
    for metric in (metrics.seam_added, metrics.hole_changed):
        assert metric(v + 0.25, y + 0.25, mask).item() == pytest.approx(metric(v, y, mask).item(), rel=1e-4)


def test_a_picture_without_an_edge_has_no_seam_to_measure_and_the_border_is_none():
    """Half of the batch has an edge: the others are not a number, and not 0."""
    v, mask = torch.zeros(3, 3, 16, 64), torch.cat([HALF, torch.ones_like(HALF), torch.zeros_like(HALF)])
    y = v + correction(-8, -8)
    assert metrics.seam_added(v, y, mask).tolist() == pytest.approx([8, math.nan, math.nan], nan_ok=True)
    assert metrics.hole_changed(v, y, mask)[1:].tolist() == pytest.approx([(20 + 2) / 8, math.nan], nan_ok=True)


def test_the_seam_is_scipy_s_on_a_real_result(real):
    """Written again with SciPy's morphology and sums over the whole picture, for each depth."""
    x, v, mask = real
    y, square = torch.where(mask > 0, 0.7 * v + 0.3 * v.flip(-1), x), np.ones((3, 3))
    error, region, found = 255 * (y - v)[0].double().numpy(), mask[0, 0].numpy() > 0, []

    def eroded(region, pixels):
        return ndimage.binary_erosion(region, square, iterations=pixels, border_value=1)

    def window_means(band):
        sums = [ndimage.convolve(plane, np.ones((9, 9)), mode="constant") for plane in (*(error * band), 1.0 * band)]
        return np.stack(sums[:3]) / np.maximum(sums[3], 1)

    while region.any() and len(found) < 17:
        inside = region & ~eroded(region, 3)
        outside = ndimage.binary_dilation(region, square, iterations=3) & ~region
        step = np.abs(window_means(inside) - window_means(outside))
        found.append(step[:, region & ~eroded(region, 1)].mean())
        region = eroded(region, 1)
    assert len(found) > 8 and metrics.seam_added(v, y, mask).item() == pytest.approx(max(found), rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_seam_that_a_cpu_finds(real):
    _, v, mask = real
    y = 0.7 * v + 0.3 * v.flip(-1)
    there = metrics.seam_added(v.cuda(), y.cuda(), mask.cuda())
    assert there.is_cuda and there.item() == pytest.approx(metrics.seam_added(v, y, mask).item(), rel=1e-4)


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


@pytest.mark.parametrize(
    "name",
    "pre_error pre_error_all psnr_kept seam_grad ring_l1 seam_added hole_changed hole_psnr max_abs_uint8 "
    "changed_pixels effnet_distance hole_effnet_distance".split(),
)
def test_several_results_at_once_are_the_same_as_one_by_one(images, features, name):
    """Breaks when a result is compared with another's reference, or within another's mask."""
    x, y = (torch.cat([image, image.flip(-1)]) for image in images)
    mask, results = torch.cat([BOX, BOX.roll(5, -1)]), torch.stack([y, 0.9 * x, 1 - y])
    rest = {"effnet_distance": (features,), "hole_effnet_distance": (mask, features), "ring_l1": (mask, 4)}
    arguments = rest.get(name, (mask,))

    def measured(x, y, i):
        chosen = slice(i, i + 1) if i is not None else slice(None)
        own = (part[chosen] if part is mask else part for part in arguments)
        return getattr(metrics, name)(x[chosen], y[..., chosen, :, :, :], *own)

    together, alone = measured(x, results, None), [[measured(x, r, i).item() for i in (0, 1)] for r in results]
    assert together.shape == (3, 2) and torch.allclose(together, torch.tensor(alone), atol=1e-5)


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

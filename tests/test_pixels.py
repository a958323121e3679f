"""Pictures in and out: ranges, rounding, orientation, and sizes that a header tells."""

import numpy as np
import pytest
import torch
from PIL import Image

from asymlib.pixels import (
    UNREADABLE,
    centre_square,
    pad_to_multiple,
    photograph_size,
    read_photo,
    read_photograph,
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


def test_a_photo_of_any_mode_is_read_and_anything_else_is_named():
    assert read_photo(Image.new("L", (5, 4), 255), "photo").eq(1).all()
    assert read_photo(Image.new("RGBA", (5, 4)), "photo").shape == (1, 3, 4, 5)
    with pytest.raises(ValueError, match="^example: got str, expected a PIL image$"):
        read_photo("photo.jpg", "example")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_header_tells_the_size_that_reading_gives(tmp_path, orientation, suffix):
    """Breaks when an orientation that turns a picture by a quarter is taken for another, in any format."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    Image.new("RGB", (120, 70), (200, 10, 10)).save(path, exif=exif)
    size = photograph_size(path)
    assert size == read_photograph(path).shape[:2] == ((120, 70) if orientation > 4 else (70, 120))
    with path.open("rb") as file:
        assert photograph_size(file) == size


def test_a_picture_without_an_orientation_has_the_size_that_it_is_stored_in(tmp_path):
    Image.new("L", (120, 70)).save(tmp_path / "photo.png")
    assert photograph_size(tmp_path / "photo.png") == read_photograph(tmp_path / "photo.png").shape[:2] == (70, 120)


@pytest.mark.parametrize("read", [photograph_size, read_photograph])
def test_what_is_too_small_or_no_picture_is_refused_alike(tmp_path, read):
    """Breaks when the header lets through what reading refuses, or the other way round."""
    Image.new("RGB", (64, 20)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture")
    read(tmp_path / "small.png", 20)
    with pytest.raises(ValueError, match="64 x 20 pixels, expected at least 21 on each side"):
        read(tmp_path / "small.png", 21)
    with pytest.raises(UNREADABLE):
        read(tmp_path / "text.png")


def test_a_size_needs_the_header_alone(tmp_path):
    """Breaks when a photograph is decoded only to learn how large it is."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    whole = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(whole[: len(whole) // 2])
    assert photograph_size(tmp_path / "photo.jpg") == (200, 300)
    with pytest.raises(UNREADABLE):
        read_photograph(tmp_path / "photo.jpg")


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

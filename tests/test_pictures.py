"""Pictures and masks as people have them: for each kind the right pixels, alpha and metadata, or one sentence."""

import io

import numpy as np
import pillow_heif
import pytest
import torch
from PIL import Image, ImageCms, ImageDraw, PngImagePlugin
from scipy.ndimage import binary_dilation, binary_erosion

from asymlib.masks import feather, grow, invert, normalise_mask
from asymlib.pictures import is_picture_file, photo_size, read_mask, read_photo, save_picture
from asymlib.pixels import to_tensor

# height 4, width 6, every pixel another colour; grey ones of the same tones
RGB = np.stack(np.meshgrid(np.arange(6) * 40 + 20, np.arange(4) * 60 + 30), -1)
RGB = np.concatenate([RGB, 255 - RGB[..., :1]], -1).astype(np.uint8)
GREY = (np.arange(24).reshape(4, 6) * 11).astype(np.uint8)
ALPHA = np.where(np.arange(24).reshape(4, 6) % 3, 255, 100).astype(np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def three(grey):
    return np.repeat(np.asarray(grey)[..., None], 3, -1)


def sixteen(mode, values):
    order = ">u2" if mode == "I;16B" else "<u2"
    return Image.frombytes(mode, values.shape[::-1], values.astype(order).tobytes())


def palette():
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6), "P")
    image.putpalette(RGB.reshape(-1, 3).tobytes())
    return image


def transparent_palette():
    image = palette()
    image.info["transparency"] = bytes(ALPHA.ravel())
    return image


def with_key(image, **info):
    image.info.update(info)
    return image


RGBA = np.dstack([RGB, ALPHA])
ON_WHITE = np.asarray(Image.alpha_composite(Image.new("RGBA", (6, 4), "white"), Image.fromarray(RGBA)).convert("RGB"))
LAB = ImageCms.profileToProfile(
    Image.fromarray(RGB), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
)
# name -> picture, pixels, levels by which its own space may round, alpha
MODES = {
    "1": (Image.fromarray(GREY > 120), three(255 * (GREY > 120)), 0, None),
    "L": (Image.fromarray(GREY), three(GREY), 0, None),
    "P": (palette(), RGB, 0, None),
    "RGB": (Image.fromarray(RGB), RGB, 0, None),
    "RGBX": (Image.fromarray(RGB).convert("RGBX"), RGB, 0, None),
    "RGBA": (Image.fromarray(RGBA), RGB, 0, ALPHA),
    "RGBA, opaque": (Image.fromarray(RGB).convert("RGBA"), RGB, 0, None),
    "RGBa": (Image.fromarray(RGBA).convert("RGBa"), RGB, 2, ALPHA),
    "LA": (Image.fromarray(np.dstack([GREY, ALPHA])), three(GREY), 0, ALPHA),
    "La": (Image.fromarray(np.dstack([GREY, ALPHA])).convert("La"), three(GREY), 2, ALPHA),
    "PA": (Image.fromarray(RGB).quantize(24).convert("PA"), None, 0, None),
    "P with transparency": (transparent_palette(), RGB, 0, ALPHA),
    "L with one transparent grey": (
        with_key(Image.fromarray(GREY), transparency=110),
        three(GREY),
        0,
        255 * (GREY != 110),
    ),
    "CMYK": (Image.fromarray(RGB).convert("CMYK"), RGB, 1, None),
    "YCbCr": (Image.fromarray(RGB).convert("YCbCr"), RGB, 3, None),
    "HSV": (Image.fromarray(RGB).convert("HSV"), RGB, 6, None),
    "LAB": (LAB, RGB, 12, None),
    "I;16": (sixteen("I;16", GREY.astype(int) * 257), three(GREY), 0, None),
    "I;16B": (sixteen("I;16B", GREY.astype(int) * 257 + 100), three(GREY), 0, None),
    "I;16 with 8 bits": (sixteen("I;16", GREY.astype(int)), three(GREY), 0, None),
    "I with 16 bits": (Image.fromarray(GREY.astype(np.int32) * 257), three(GREY), 0, None),
    "I with 8 bits": (Image.fromarray(GREY.astype(np.int32)), three(GREY), 0, None),
    "F": (Image.fromarray(GREY.astype(np.float32) / 255), three(GREY), 0, None),
    "1 x 1": (Image.fromarray(RGB[:1, :1]), RGB[:1, :1], 0, None),
    "1 x 5000": (Image.new("RGB", (1, 5000), (1, 2, 3)), np.full((5000, 1, 3), (1, 2, 3)), 0, None),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_photo_of_any_mode_has_its_tones_and_transparency(mode):
    image, pixels, rounding, alpha = MODES[mode]
    photo = read_photo(image)
    assert photo.pixels.dtype == np.uint8 and photo.pixels.shape == (*image.size[::-1], 3)
    if pixels is None:  # a palette that Pillow chose: what it shows is right
        pixels = np.asarray(image.convert("RGB"))
    shown = slice(None) if alpha is None else np.asarray(alpha) > 0
    assert np.abs(photo.pixels.astype(int) - pixels)[shown].max() <= rounding
    assert (photo.alpha is None) == (alpha is None)
    assert alpha is None or np.array_equal(photo.alpha, alpha)


def test_what_a_model_sees_is_laid_on_white_and_in_its_range():
    photo = read_photo(Image.fromarray(RGBA))
    assert np.array_equal(photo.on_white, ON_WHITE)
    assert torch.equal(photo.tensor, to_tensor(ON_WHITE[None])) and photo.size == (4, 6)


FORMATS = {"png": 0, "webp": 0, "tif": 0, "bmp": 0, "gif": 0, "jpg": 60, "jfif": 60, "avif": 40, "heic": 60, "jp2": 0}


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_usual_format_is_read(tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    large = np.repeat(np.repeat(RGB, 16, 0), 16, 1)
    if suffix == "heic":
        pillow_heif.register_heif_opener()
    options = {"lossless": True} if suffix == "webp" else {"quality": 95} if FORMATS[suffix] else {}
    Image.fromarray(large).save(path, **options)
    assert is_picture_file(path) and photo_size(path) == (64, 96)
    for source in (path, str(path), io.BytesIO(path.read_bytes()), Image.open(path)):
        error = np.abs(read_photo(source).pixels.astype(int) - large)
        assert error.max() <= FORMATS[suffix] and error.mean() <= 4


def test_of_an_animation_the_first_frame_is_the_photo(tmp_path):
    frames = [Image.fromarray(pixels) for pixels in (RGB, 255 - RGB)]
    for suffix in ("gif", "webp", "png"):
        options = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(read_photo(tmp_path / f"a.{suffix}").pixels, RGB)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_comes_upright_and_its_tag_is_gone(tmp_path, orientation, suffix):
    """Breaks when an orientation is taken for another: a red corner has to be where a viewer shows it."""
    upright = Image.new("RGB", (96, 64), "grey")
    upright.paste("red", (0, 0, 32, 32))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what undoes the turn, as Image.transpose counts
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    stored = upright.transpose(back[orientation]) if orientation > 1 else upright
    path = tmp_path / f"photo.{suffix}"
    stored.save(path, exif=exif)
    photo = read_photo(path)
    with Image.open(path) as image:  # what was given is not changed: read twice, it is turned twice
        assert [read_photo(image).size for _ in range(2)] == [(64, 96)] * 2
    assert photo.size == photo_size(path) == (64, 96)
    assert photo.pixels[8, 8, 0] > 200 > photo.pixels[8, 8, 1] + 100 and photo.pixels[56, 88, 0] < 160
    result = photo.edited(torch.zeros(1, 3, 64, 96), torch.zeros(1, 1, 64, 96))
    save_picture(result, tmp_path / f"result.{suffix}")
    with Image.open(tmp_path / f"result.{suffix}") as saved:
        assert saved.getexif().get(0x0112, 1) == 1 and saved.getexif()[0x010F] == "maker"
        assert saved.size == (96, 64)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "avif"])
def test_profile_and_resolution_are_kept_in_the_result(tmp_path, suffix):
    """Breaks when a wide-gamut photo comes back without its profile: known pixels would look different."""
    Image.fromarray(RGB).save(tmp_path / f"photo.{suffix}", icc_profile=SRGB, dpi=(300, 300))
    photo = read_photo(tmp_path / f"photo.{suffix}")
    save_picture(photo.edited(torch.zeros(1, 3, 4, 6), torch.zeros(1, 1, 4, 6)), tmp_path / f"result.{suffix}")
    with Image.open(tmp_path / f"result.{suffix}") as saved:
        assert saved.info["icc_profile"] == SRGB
        if suffix in ("png", "jpg", "tif"):
            assert round(saved.info["dpi"][0]) == 300


def test_a_profile_that_does_not_describe_rgb_does_not_come_back():
    """A CMYK or grey profile in an RGB file would be an error, or false colours."""
    grey = with_key(Image.fromarray(GREY), icc_profile=b"\0" * 16 + b"GRAY" + b"\0" * 108)
    assert "icc_profile" not in read_photo(grey).metadata
    assert np.array_equal(read_photo(grey).pixels, three(GREY))  # a broken profile says nothing
    lab = with_key(LAB.copy(), icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())
    assert "icc_profile" not in read_photo(lab).metadata


def test_an_edit_leaves_known_pixels_byte_for_byte_and_fades_between():
    photo, mask = read_photo(Image.fromarray(RGB)), torch.zeros(1, 1, 4, 6)
    mask[..., 1, 1], mask[..., 2, 2] = 1, 0.5
    result = np.asarray(photo.edited(to_tensor(np.full((1, 4, 6, 3), 200, np.uint8)), mask))
    expected = RGB.copy()
    expected[1, 1], expected[2, 2] = 200, np.rint((RGB[2, 2].astype(float) + 200) / 2)
    assert np.array_equal(result, expected)


def test_an_edit_is_opaque_and_the_rest_keeps_its_transparency():
    alpha = np.zeros((4, 6), np.uint8)
    photo, mask = read_photo(Image.fromarray(np.dstack([RGB, alpha]))), torch.zeros(1, 1, 4, 6)
    mask[..., 1, 1], mask[..., 2, 2] = 1, 0.5
    result = np.asarray(photo.edited(to_tensor(np.full((1, 4, 6, 3), 200, np.uint8)), mask))
    assert result[1, 1].tolist() == [200, 200, 200, 255]
    assert result[2, 2].tolist() == [200, 200, 200, 128]  # nothing of a transparent pixel's colour
    assert result[0, 0].tolist() == [*RGB[0, 0], 0]


def test_a_format_without_transparency_gets_it_laid_on_white(tmp_path):
    save_picture(Image.new("RGBA", (6, 4), (0, 0, 0, 0)), tmp_path / "a.jpg")
    assert np.asarray(Image.open(tmp_path / "a.jpg")).min() > 250
    with pytest.raises(ValueError, match="^path: got the suffix '.txt', expected"):
        save_picture(Image.new("RGB", (6, 4)), tmp_path / "a.txt")


def broken(tmp_path, kind):
    path = tmp_path / f"{kind}.png"
    if kind == "truncated":
        noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:50000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no picture")
    return {
        "no pixels": Image.new("RGB", (0, 3)),
        "type": 3,
        "float": Image.fromarray(np.full((2, 2), 200, np.float32)),
        "negative": Image.fromarray(np.full((2, 2), -1, np.int32)),
        "32 bits": Image.fromarray(np.full((2, 2), 1 << 20, np.int32)),
    }.get(kind, path)


SENTENCES = {
    "truncated": "truncated.png, which is broken",
    "empty": "empty.png, which is no picture",
    "text": "text.png, which is no picture",
    "no pixels": "0 x 3 pixels, expected a picture with some",
    "type": "int, expected a PIL image or a picture's file",
    "float": r"float values from 200 to 200, expected 0 \(black\) to 1",
    "negative": "values from -1 to -1, expected those of 8 or 16 bits",
    "32 bits": "values from 1048576 to 1048576, expected those of 8 or 16 bits",
}


@pytest.mark.parametrize("kind", SENTENCES)
def test_what_is_no_picture_is_one_sentence_about_the_argument(tmp_path, kind):
    with pytest.raises(ValueError, match=f"^example: got {SENTENCES[kind]}"):
        read_photo(broken(tmp_path, kind), "example")


def test_a_missing_file_and_a_small_picture_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="^photo: got .*missing.png, expected an existing picture"):
        read_photo(tmp_path / "missing.png")
    Image.new("RGB", (64, 20)).save(tmp_path / "small.png")
    for read in (read_photo, photo_size):
        read(tmp_path / "small.png", smallest=20)
        with pytest.raises(ValueError, match="photo: got 64 x 20 pixels, expected at least 21 on each side"):
            read(tmp_path / "small.png", smallest=21)


def test_a_size_needs_the_header_alone(tmp_path):
    """Breaks when a photograph is decoded only to learn how large it is."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    whole = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(whole[: len(whole) // 2])
    assert photo_size(tmp_path / "photo.jpg") == (200, 300)
    with pytest.raises(ValueError, match="broken"):
        read_photo(tmp_path / "photo.jpg")


HOLE = np.zeros((32, 32), bool)
HOLE[8:16, 8:24] = True  # 12.5 %
FADE = np.linspace(0, 255, 32).round().astype(np.uint8)[None].repeat(32, 0)
PHOTO = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def layer(colour, under, where=HOLE):
    """Painted in one colour on a transparent layer that has another one there."""
    pixels = np.empty((32, 32, 4), np.uint8)
    pixels[:] = (*under, 0)
    pixels[where] = (*colour, 255)
    return Image.fromarray(pixels)


def black_and_white():
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[4:28, 4:28] = (0, 0, 0, 255)
    pixels[HOLE] = 255
    return Image.fromarray(pixels)


def as_palette(colours, transparency=None):
    image = Image.fromarray(HOLE.astype(np.uint8), "P")
    image.putpalette(bytes(colours))
    return image if transparency is None else with_key(image, transparency=transparency)


def as_jpeg(image):
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=60)
    return Image.open(buffer)


WHITE = (255, 255, 255)
MASKS = {
    "L, 0 and 255": Image.fromarray(HOLE.astype(np.uint8) * 255),
    "L, 0 and 1": Image.fromarray(HOLE.astype(np.uint8)),
    "1": Image.fromarray(HOLE),
    "RGB, white": Image.fromarray(three(HOLE.astype(np.uint8) * 255)),
    "RGB, red": Image.fromarray(np.dstack([HOLE.astype(np.uint8) * 255, HOLE * np.uint8(0), HOLE * np.uint8(0)])),
    "RGBA, opaque": Image.fromarray(HOLE.astype(np.uint8) * 255).convert("RGBA"),
    "RGBA, white on transparent white": layer(WHITE, WHITE),
    "RGBA, white on transparent black": layer(WHITE, (0, 0, 0)),
    "RGBA, red on transparent": layer((255, 0, 0), (0, 0, 0)),
    "RGBA, black on transparent": layer((0, 0, 0), WHITE),
    "RGBA, white and black on transparent": black_and_white(),
    "RGBA, the photo with the region erased": Image.fromarray(np.dstack([PHOTO, 255 * ~HOLE]).astype(np.uint8)),
    "LA, white on transparent": layer(WHITE, (0, 0, 0)).convert("LA"),
    "LA, opaque": Image.fromarray(HOLE.astype(np.uint8) * 255).convert("LA"),
    "P, index 1 dark red": as_palette([0, 0, 0, 128, 0, 0]),
    "P, black and white": as_palette([0, 0, 0, 255, 255, 255]),
    "P, no palette": Image.fromarray(HOLE.astype(np.uint8)).convert("P"),
    "P, transparent": as_palette([255, 255, 255, 255, 0, 0], transparency=0),
    "I, 0 and 255": Image.fromarray(HOLE.astype(np.int32) * 255),
    "I, 0 and 65535": Image.fromarray(HOLE.astype(np.int32) * 65535),
    "I;16, 0 and 65535": sixteen("I;16", HOLE * 65535),
    "I;16, 0 and 1": sixteen("I;16", HOLE * 1),
    "F, 0 and 1": Image.fromarray(HOLE.astype(np.float32)),
    "CMYK": Image.fromarray(three(HOLE.astype(np.uint8) * 255)).convert("CMYK"),
    "JPEG": as_jpeg(Image.fromarray(HOLE.astype(np.uint8) * 255)),
}


@pytest.mark.parametrize("kind", MASKS)
def test_the_hole_of_a_mask_is_what_its_painter_meant(kind):
    values = read_mask(MASKS[kind])
    assert values.dtype == np.float32
    if kind == "JPEG":
        assert (values[HOLE] > 0.5).all() and (values[~HOLE] < 0.5).all() and (values == 0).mean() > 0.7
    else:
        assert np.array_equal(values, HOLE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_mask_comes_upright_as_well(tmp_path, orientation):
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    exif = Image.Exif()
    exif[0x0112] = orientation
    mask = MASKS["L, 0 and 255"]
    (mask.transpose(back[orientation]) if orientation > 1 else mask).save(tmp_path / "mask.png", exif=exif)
    assert np.array_equal(read_mask(Image.open(tmp_path / "mask.png")), HOLE)


def test_a_soft_mask_is_the_same_as_picture_layer_and_array():
    """Breaks when a feathered mask is cut at half in one form and fades in another."""
    array = FADE / np.float32(255)
    white = Image.merge("RGBA", [Image.new("L", (32, 32), 255)] * 3 + [Image.fromarray(FADE)])
    for mask in (Image.fromarray(FADE), Image.fromarray(FADE).convert("RGB"), white, Image.fromarray(array)):
        assert torch.allclose(normalise_mask(mask, 32, 32)[0, 0], torch.from_numpy(array), atol=1e-6)


@pytest.mark.parametrize(
    "mask, sentence",
    [
        (Image.fromarray(PHOTO), "a picture of many colours"),
        (Image.fromarray(np.full((4, 4, 3), (255, 255, 0), np.uint8)), "colours and no black"),
        (Image.fromarray(HOLE.astype(np.uint8) * 3), "grey values from 0 to 3"),
        (Image.fromarray(HOLE.astype(np.float32) * 255), "grey values from 0 to 255"),
        (Image.fromarray(HOLE.astype(np.int32) * -1), "grey values from -1 to 0"),
    ],
)
def test_a_mask_of_which_nobody_can_tell_the_hole_is_refused(mask, sentence):
    with pytest.raises(ValueError, match=f"^mask: got {sentence}.*, expected"):
        read_mask(mask)


def test_a_truncated_mask_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="^mask: got .*, which is broken"):
        read_mask(Image.open(broken(tmp_path, "truncated")))


def test_masks_grow_shrink_invert_and_fade():
    hole = torch.zeros(1, 1, 9, 9)
    hole[..., 3:6, 3:6] = 1
    assert grow(hole, 1).sum() == 25 and grow(hole, -1).sum() == 1 and torch.equal(grow(hole, 0), hole)
    assert torch.equal(invert(invert(hole)), hole) and invert(hole).sum() == 72
    faded = feather(hole, 2)[0, 0, 4].tolist()
    assert faded == pytest.approx([0, 1 / 3, 2 / 3, 1, 1, 1, 2 / 3, 1 / 3, 0])
    with pytest.raises(ValueError, match="^pixels: got -1, expected 0 or more"):
        feather(hole, -1)


def test_text_in_a_png_s_metadata_does_not_disturb(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a cat")
    Image.fromarray(RGB).save(tmp_path / "a.png", pnginfo=text)
    assert np.array_equal(read_photo(tmp_path / "a.png").pixels, RGB)


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_a_lossy_mask_edits_nothing_beside_it(kind):
    """Breaks when the ringing of a painted mask's edges counts as a faint hole."""
    painted = Image.new("L", (320, 240))
    ImageDraw.Draw(painted).ellipse((80, 60, 171, 121), fill=255)
    buffer = io.BytesIO()
    painted.save(buffer, kind, quality=80)
    mask = read_mask(Image.open(buffer))
    away = ~binary_dilation(np.asarray(painted) > 0, iterations=2)
    assert not mask[away].any() and (mask[binary_erosion(np.asarray(painted) > 0, iterations=2)] == 1).all()

"""The one door for pictures and masks: every file and PIL image comes in here, and every result leaves.

People's pictures are turned (EXIF), transparent, in other colour spaces, of 1 to 32 bits. Here they become upright RGB
of 8 bits with what has to go back into the result beside it: transparency, colour profile, EXIF, resolution.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from asymlib.files import written
from asymlib.pixels import to_pixels, to_tensor

UNREADABLE = (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)
KEPT = ("icc_profile", "dpi", "xmp")  # of a photo's metadata, as Pillow's `save` names them; and its EXIF
ORIENTATION = 0x0112  # the EXIF tag
# TIFF's tags 254 to 339 say how the pixels lie in the file, but for these: what is shown, by whom, with what, when
DESCRIBING = {0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C}
LOSSY = ("JPEG", "WEBP", "HEIF", "AVIF")  # formats that change pixels, as this module writes them
LOSS = 32  # levels by which they miss the black and the white of a mask, JPEG at quality 80 and more
PAINTED = 8  # colours of 5 bits a channel; more of them are a photograph, not strokes
DARK = 32  # levels; below, a colour counts as black


@dataclass(frozen=True)
class Photo:
    """An upright photograph, and what of it goes back into an edited one.

    Args:
        pixels: (H, W, 3) uint8 RGB, the file's own numbers in its own RGB space; other spaces were brought to sRGB.
        alpha: (H, W) uint8, 255 = opaque; None where nothing is transparent.
        metadata: What the file came with of colour profile, resolution, XMP and EXIF, as Pillow's `save` takes it; its
            orientation is gone.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    metadata: dict = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[:2]

    @property
    def on_white(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, what a model is shown: transparency is laid on white."""
        if self.alpha is None:
            return self.pixels
        laid = Image.fromarray(np.dstack([self.pixels, self.alpha]))
        return np.asarray(Image.alpha_composite(Image.new("RGBA", laid.size, "white"), laid).convert("RGB"))

    @property
    def tensor(self) -> torch.Tensor:
        """`on_white` as (1, 3, H, W) in [-1, 1]."""
        return to_tensor(self.on_white[None])

    def edited(self, image_hat: torch.Tensor, mask: torch.Tensor) -> Image.Image:
        """The photo with an edit in its hole: its own pixels, byte for byte, where the mask is 0, the edit where it is
        1, and a mixture between; opaque where it was edited.

        Args:
            image_hat: (1, 3, H, W) in [-1, 1].
            mask: (1, 1, H, W) in [0, 1], 1 = hole.

        Returns:
            RGB, or RGBA where the photo has transparency, with the photo's metadata; see `save_picture`.
        """
        m = mask[0, 0].float().cpu().numpy()[..., None]
        alpha = np.float32(1) if self.alpha is None else self.alpha[..., None] / np.float32(255)
        opacity = alpha + m * (1 - alpha)
        mixed = (1 - m) * alpha * self.pixels + m * to_pixels(image_hat[0])
        with np.errstate(invalid="ignore", divide="ignore"):  # nothing of either: such a pixel is known, see below
            pixels = np.where(m > 0, np.rint(mixed / opacity), self.pixels).astype(np.uint8)
        if self.alpha is not None:
            pixels = np.dstack([pixels, np.rint(255 * opacity[..., 0]).astype(np.uint8)])
        result = Image.fromarray(pixels)
        result.info.update(self.metadata)
        return result


def read_photo(
    source: Image.Image | np.ndarray | str | Path | BinaryIO, name: str = "photo", smallest: int = 1
) -> Photo:
    """A PIL image of any mode, or a file of any format that Pillow or pillow-heif reads, upright; of an animation the
    frame that is shown.

    Grey of 16 bits is scaled to 8 (where no value is above 255 it is of 8 already); greyscale becomes RGB; CMYK, LAB
    and grey with a profile become sRGB.

    Args:
        source: PIL image, path, open file, or (H, W, 3) uint8.
        name: The argument that an error is about.
        smallest: Least side in pixels.

    Raises:
        ValueError: It is none of these, broken, empty, or has a side of fewer than `smallest` pixels, or values of
            which nobody can tell the range.
        FileNotFoundError: No such file.
    """
    image = open_picture(source, name)
    with _broken_is_named(source, name):
        exif, image = _exif(image), upright(image)
        metadata = {key: image.info[key] for key in KEPT if image.info.get(key)} | exif
        rgb, alpha = _rgb_and_alpha(image, metadata, name)
    _require_side(rgb.shape[:2], smallest, name)
    return Photo(rgb, alpha, metadata)


def photo_size(file: str | Path | BinaryIO, smallest: int = 1) -> tuple[int, int]:
    """Height and width that `read_photo` will give, from the file's header alone: nothing is decoded, save a PNG,
    whose orientation may stand behind its pixels.

    Raises:
        ValueError, FileNotFoundError: As `read_photo`, but for what only decoding shows.
    """
    with open_picture(file, "photo") as image, _broken_is_named(file, "photo"):
        turned = image.getexif().get(ORIENTATION) in (5, 6, 7, 8)  # these exchange height and width
        turned = turned and image.format != "TIFF"  # whose size Pillow has exchanged already
        size = image.size if turned else image.size[::-1]
    _require_side(size, smallest, "photo")
    return size


def read_mask(image: Image.Image, name: str = "mask") -> np.ndarray:
    """A mask as people paint them, (H, W) float32 in [0, 1], upright: 1 = hole, 0 = known, between the result fades.

    What is the hole depends on what the picture is:
    - partly transparent, painted in a few colours: what was painted (its alpha; of black and white strokes the white);
    - partly transparent, a photograph: what was erased;
    - grey: white, or 1 where there are only 0 and 1; 16-bit and float (0..1) pictures likewise;
    - of a few colours on black: whatever is not black, as in segmentation masks.

    JPEG and its like miss black and white by some levels, which are taken for black and white.

    Raises:
        ValueError: A photograph, colours without black, or values of which nobody can tell the range.
    """
    lossy = image.format in LOSSY
    with _broken_is_named(image, name):
        image = upright(image)
        if image.has_transparency_data:
            layer = np.asarray(_straight(image).convert("RGBA"))
            if layer[..., 3].min(initial=255) < 255:
                return _layer(layer)
            image = Image.fromarray(layer[..., :3])
        values = _grey_mask(np.asarray(image), name) if _is_grey(image) else _colour_mask(image, name)
    if lossy:
        noise = LOSS / 255
        values = np.where(values < noise, 0, np.where(values > 1 - noise, 1, values))
    return values.astype(np.float32)


def save_picture(picture: Image.Image, path: str | Path) -> None:
    """Write a picture, whole or not at all, with its colour profile, EXIF, resolution and XMP as far as the format of
    the path's suffix has them; a format without transparency gets it laid on white.

    Raises:
        ValueError: Pillow writes no format of that suffix.
    """
    kind = written_format(path)
    if kind is None:
        raise ValueError(f"path: got the suffix {Path(path).suffix!r}, expected one of a picture, such as .png or .jpg")
    if kind in ("JPEG", "BMP") and picture.mode == "RGBA":
        metadata, picture = picture.info, Image.fromarray(read_photo(picture).on_white)
        picture.info.update(metadata)
    options = {key: picture.info[key] for key in (*KEPT, "exif") if picture.info.get(key)}
    if kind == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
    with written(Path(path)) as temporary:
        picture.save(temporary, format=kind, **options)


def written_format(path: str | Path) -> str | None:
    """Pillow's name of the format in which `save_picture` writes a path of this suffix; None where it cannot."""
    _register_heif()
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    return kind if kind in Image.SAVE else None


def upright(image: Image.Image) -> Image.Image:
    """The picture as it is meant to be seen: its EXIF orientation applied, and the tag gone."""
    return ImageOps.exif_transpose(image)


def is_picture_file(path: Path) -> bool:
    """Whether a file's suffix is one that Pillow or pillow-heif reads."""
    _register_heif()
    kinds = Image.registered_extensions()
    return kinds.get(path.suffix.lower()) in Image.OPEN


def open_picture(source: Image.Image | np.ndarray | str | Path | BinaryIO, name: str) -> Image.Image:
    """A PIL image as it is, or what its file or its pixels show; errors are about the argument `name`.

    Raises:
        ValueError, FileNotFoundError: As `read_photo`.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] not in (3, 4):
            came = f"an array {source.shape} of {source.dtype}"
            raise ValueError(f"{name}: got {came}, expected (H, W, 3) of uint8, or a PIL image or its file")
        source = Image.fromarray(source)
    if isinstance(source, Image.Image):
        if 0 in source.size:
            raise ValueError(f"{name}: got {source.width} x {source.height} pixels, expected a picture with some")
        return source
    if not (isinstance(source, (str, Path)) or hasattr(source, "read")):
        raise ValueError(f"{name}: got {type(source).__name__}, expected a PIL image or a picture's file")
    _register_heif()
    try:
        return Image.open(source)
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: got {source}, expected an existing picture") from None
    except UNREADABLE as error:
        raise ValueError(f"{name}: got {_said(source)}, which is no picture that can be read ({error})") from error


@cache
def _register_heif() -> None:
    from pillow_heif import register_heif_opener  # on first use: most pictures are none of a phone's

    register_heif_opener()


@contextmanager
def _broken_is_named(source, name: str) -> Iterator[None]:
    """What decoding stumbles over, as one sentence about the argument."""
    try:
        yield
    except UNREADABLE as error:
        if str(error).startswith(f"{name}: "):
            raise
        raise ValueError(f"{name}: got {_said(source)}, which is broken ({error}), expected a picture") from error


def _said(source) -> str:
    return Path(source).name if isinstance(source, (str, Path)) else type(source).__name__


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16")


def _straight(image: Image.Image) -> Image.Image:
    """Without premultiplied transparency, from which Pillow converts to nothing else."""
    return image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode]) if image.mode in ("La", "RGBa") else image


def _exif(image: Image.Image) -> dict[str, bytes]:
    """The EXIF of a picture that may be turned, without what says how to turn it or how its pixels lie in the file."""
    exif = Image.Exif()  # of its own: Pillow's would stay with the picture that was given
    exif.load(image.getexif().tobytes())
    for tag in [tag for tag in exif if 254 <= tag <= 339 and tag not in DESCRIBING]:
        del exif[tag]
    return {"exif": exif.tobytes()} if len(exif) else {}


def _rgb_and_alpha(image: Image.Image, metadata: dict, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, 3) and (H, W) uint8; takes a profile out of the metadata that does not describe what comes back."""
    profile = metadata.get("icc_profile")
    space = profile[16:20] if profile else b""  # the profile's header, ICC.1:2022 section 7.2.6
    alpha = None
    if image.has_transparency_data:
        grey, image = image.mode in ("1", "L", "LA", "La"), _straight(image).convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
        alpha = None if alpha.min() == 255 else alpha
        image = image.getchannel("R") if grey else image.convert("RGB")
    if _is_grey(image):
        image = Image.fromarray(_eight_bits(np.asarray(image), image.mode, name))
    if space != b"RGB " or image.mode not in ("RGB", "RGBX", "P"):
        metadata.pop("icc_profile", None)
    if image.mode == "LAB":
        image = _to_srgb(image, ImageCms.createProfile("LAB"))
    elif space == {"CMYK": b"CMYK", "L": b"GRAY"}.get(image.mode, b"none"):
        image = _to_srgb(image, profile)
    return np.asarray(image.convert("RGB")), alpha


def _to_srgb(image: Image.Image, profile) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile) if isinstance(profile, bytes) else profile)
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # a broken profile says nothing
        return image


def _eight_bits(values: np.ndarray, mode: str, name: str) -> np.ndarray:
    """Grey values of any depth -> uint8."""
    low, high = values.min(), values.max()
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if mode == "F":
        if not (low >= 0 and high <= 1):  # also catches NaN
            raise ValueError(f"{name}: got float values from {low:g} to {high:g}, expected 0 (black) to 1 (white)")
        return np.rint(255 * values).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ValueError(f"{name}: got values from {low} to {high}, expected those of 8 or 16 bits")
    if high > 255:
        return np.rint(values / 257).astype(np.uint8)
    return values.astype(np.uint8)


def _layer(layer: np.ndarray) -> np.ndarray:
    """The hole of a partly transparent (H, W, 4) mask."""
    alpha = layer[..., 3].astype(np.float32) / 255
    colours = layer[..., :3][alpha >= 0.5]
    if _count_colours(colours, bits=5) > PAINTED:
        return 1 - alpha
    if len(colours) and colours.max(1).min() < DARK and colours.min(1).max() > 255 - DARK:  # black and white strokes
        return alpha * layer[..., :3].mean(-1, dtype=np.float32) / 255
    return alpha


def _grey_mask(values: np.ndarray, name: str) -> np.ndarray:
    low, high = values.min(initial=0), values.max(initial=0)
    if not (low >= 0 and high <= 65535) or (values.dtype.kind == "f" and high > 1) or 1 < high < 16:
        raise ValueError(
            f"{name}: got grey values from {low:g} to {high:g}, expected 0 (keep) and white (hole), or 0 and 1"
        )
    return values / (1 if high <= 1 else 255 if high <= 255 else 65535)


def _colour_mask(image: Image.Image, name: str) -> np.ndarray:
    rgb = np.asarray(image.convert("RGB"))
    brightest, darkest = rgb.max(-1), rgb.min(-1)
    if (brightest - darkest).max(initial=0) < DARK:
        return _grey_mask(np.rint(rgb.mean(-1)).astype(np.uint8), name)
    if _count_colours(rgb.reshape(-1, 3), bits=3) > 4 * PAINTED:
        raise ValueError(f"{name}: got a picture of many colours, expected white (hole) on black (keep)")
    if brightest.min() >= DARK:
        raise ValueError(f"{name}: got colours and no black, expected white (hole) on black (keep)")
    return brightest >= DARK


def _count_colours(colours: np.ndarray, bits: int) -> int:
    coarse = (colours >> (8 - bits)).astype(np.int32)
    return len(np.unique(coarse @ np.array([1 << 2 * bits, 1 << bits, 1])))


def _require_side(size: tuple[int, ...], smallest: int, name: str) -> None:
    if min(size) < smallest:
        raise ValueError(f"{name}: got {size[1]} x {size[0]} pixels, expected at least {smallest} on each side")

"""Photographs: those that ship inside the dependencies, and those of any folder."""

from importlib.resources import files
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
UNREADABLE = (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class Photograph(NamedTuple):
    """One picture: `scene` groups pictures that are not independent (both views of the motorcycle are one scene);
    pixels (H, W, 3) uint8 RGB."""

    name: str
    scene: str
    split: str
    origin: str
    licence: str
    pixels: np.ndarray


# name, scene, split, package, file, licence. Whole scenes are held out: no crop of a test scene is ever trained on.
PACKAGED = (
    ("china", "china", "train", "sklearn.datasets.images", "china.jpg", "CC BY 2.0, danielbuechele"),
    ("rocket", "rocket", "train", "skimage.data", "rocket.jpg", "public domain, SpaceX"),
    ("hubble", "hubble", "train", "skimage.data", "hubble_deep_field.jpg", "public domain, NASA"),
    ("retina", "retina", "train", "skimage.data", "retina.jpg", "CC0, Mikael Haggstrom"),
    ("ihc", "ihc", "train", "skimage.data", "ihc.png", "no known copyright restrictions"),
    ("grace_hopper", "grace_hopper", "val", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "public domain, US Navy"),
    ("astronaut", "astronaut", "test", "skimage.data", "astronaut.png", "public domain, NASA"),
    ("chelsea", "chelsea", "test", "skimage.data", "chelsea.png", "CC0, Stefan van der Walt"),
    ("coffee", "coffee", "test", "skimage.data", "coffee.png", "CC0, Rachel Michetti"),
    ("flower", "flower", "test", "sklearn.datasets.images", "flower.jpg", "CC BY 2.0, vultilion"),
    ("motorcycle_left", "motorcycle", "test", "skimage.data", "motorcycle_left.png", "Middlebury Stereo 2014, ships with scikit-image"),
    ("motorcycle_right", "motorcycle", "test", "skimage.data", "motorcycle_right.png", "Middlebury Stereo 2014, ships with scikit-image"),
)


def packaged_photographs() -> list[Photograph]:
    """The colour photographs inside scikit-image, scikit-learn and matplotlib, with their fixed split."""
    photographs = []
    for name, scene, split, package, file, licence in PACKAGED:
        with (files(package) / file).open("rb") as stream:
            pixels = np.asarray(Image.open(stream).convert("RGB"))
        photographs.append(Photograph(name, scene, split, f"{package.split('.')[0]}:{file}", licence, pixels))
    return photographs


def folder_photographs(folder: str | Path, smallest: int = 64) -> tuple[list[Photograph], dict[str, str]]:
    """Every photograph of a folder and its subfolders, in the order of their names.

    EXIF orientation is applied, greyscale becomes RGB, transparency is laid on white. A file that is broken or too
    small is skipped and named, never a crash. Every tenth photograph is `test`, the one after it `val`.

    Args:
        folder: Any folder; files with another suffix than an image's are not looked at.
        smallest: Least side in pixels.

    Returns:
        The photographs, and file name -> reason of what was skipped.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: No usable photograph in it, or fewer than three.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: got {folder}, expected an existing folder of photographs")
    found, skipped = [], {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        try:
            found.append((path, read_photograph(path, smallest)))
        except UNREADABLE as error:
            skipped[path.relative_to(folder).as_posix()] = str(error).replace(str(folder), folder.name) or type(error).__name__
    if len(found) < 3:
        raise ValueError(f"folder: got {folder} with {len(found)} usable photographs ({len(skipped)} skipped), expected at least 3")
    split = {0: "test", 1: "val"}
    return [
        Photograph(path.relative_to(folder).with_suffix("").as_posix().replace("/", "_"), path.relative_to(folder).as_posix(),
                   split.get(i % 10, "train"), "folder:" + path.relative_to(folder).as_posix(), "the user's", pixels)
        for i, (path, pixels) in enumerate(found)
    ], skipped


def read_photograph(file: Path | BinaryIO, smallest: int = 1) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file: EXIF orientation applied, greyscale made RGB, transparency laid on white.

    Raises:
        UNREADABLE: The file is broken, no image, or has a side of fewer than `smallest` pixels.
    """
    with Image.open(file) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        pixels = np.asarray(image.convert("RGB"))
    if min(pixels.shape[:2]) < smallest:
        raise ValueError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels, expected at least {smallest} on each side")
    return pixels

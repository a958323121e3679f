"""Photographs: those that ship inside the dependencies, and those of any folder."""

from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asymlib.pixels import SUFFIXES, UNREADABLE, photograph_size, read_photograph


class Photograph(NamedTuple):
    """One picture, not read yet: `scene` groups pictures that are not independent (both views of the motorcycle are one
    scene); size is height and width, as the file's header has them."""

    name: str
    scene: str
    split: str
    origin: str
    licence: str
    file: Path
    size: tuple[int, int]

    @property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, read anew at every call, so that no folder lies in memory.

        Raises:
            UNREADABLE: The file is broken.
        """
        return read_photograph(self.file)


# name, scene, split, package, file, licence. Whole scenes are held out: no crop of a test scene is ever trained on.
PACKAGED = (
    ("china", "china", "train", "sklearn.datasets.images", "china.jpg", "CC BY 2.0, danielbuechele"),
    ("rocket", "rocket", "train", "skimage.data", "rocket.jpg", "public domain, SpaceX"),
    ("hubble", "hubble", "train", "skimage.data", "hubble_deep_field.jpg", "public domain, NASA"),
    ("retina", "retina", "train", "skimage.data", "retina.jpg", "CC0, Mikael Haggstrom"),
    ("ihc", "ihc", "train", "skimage.data", "ihc.png", "no known copyright restrictions"),
    (
        "grace_hopper",
        "grace_hopper",
        "val",
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        "public domain, US Navy",
    ),
    ("astronaut", "astronaut", "test", "skimage.data", "astronaut.png", "public domain, NASA"),
    ("chelsea", "chelsea", "test", "skimage.data", "chelsea.png", "CC0, Stefan van der Walt"),
    ("coffee", "coffee", "test", "skimage.data", "coffee.png", "CC0, Rachel Michetti"),
    ("flower", "flower", "test", "sklearn.datasets.images", "flower.jpg", "CC BY 2.0, vultilion"),
    (
        "motorcycle_left",
        "motorcycle",
        "test",
        "skimage.data",
        "motorcycle_left.png",
        "Middlebury Stereo 2014, ships with scikit-image",
    ),
    (
        "motorcycle_right",
        "motorcycle",
        "test",
        "skimage.data",
        "motorcycle_right.png",
        "Middlebury Stereo 2014, ships with scikit-image",
    ),
)


def packaged_photographs() -> list[Photograph]:
    """The colour photographs inside scikit-image, scikit-learn and matplotlib, with their fixed split."""
    photographs = []
    for name, scene, split, package, file, licence in PACKAGED:
        path = Path(str(files(package) / file))
        origin = f"{package.split('.')[0]}:{file}"
        photographs.append(Photograph(name, scene, split, origin, licence, path, photograph_size(path)))
    return photographs


def folder_photographs(folder: str | Path, smallest: int = 64) -> tuple[list[Photograph], dict[str, str]]:
    """Every photograph of a folder and its subfolders, in the order of their names; headers are read, pixels are not.

    A file that is no picture or too small is skipped and named, never a crash. Every tenth photograph is `test`, the
    one after it `val`.

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
            found.append((path, photograph_size(path, smallest)))
        except UNREADABLE as error:
            skipped[path.relative_to(folder).as_posix()] = reason(error, folder)
    if len(found) < 3:
        raise ValueError(
            f"folder: got {folder} with {len(found)} usable photographs ({len(skipped)} skipped), expected at least 3"
        )
    split = {0: "test", 1: "val"}
    photographs = []
    for i, (path, size) in enumerate(found):
        name = path.relative_to(folder)
        flat = name.with_suffix("").as_posix().replace("/", "_")
        photographs.append(
            Photograph(
                flat, name.as_posix(), split.get(i % 10, "train"), f"folder:{name.as_posix()}", "the user's", path, size
            )
        )
    return photographs, skipped


def readable_pixels(photographs: Iterable[Photograph]) -> Iterator[np.ndarray]:
    """The pixels of one photograph after the other, without those whose file proves broken when it is decoded."""
    for photograph in photographs:
        try:
            pixels = photograph.pixels
        except UNREADABLE:
            continue
        yield pixels


def reason(error: Exception, folder: Path) -> str:
    """Why a file was skipped, without the path to the user's folder."""
    return str(error).replace(str(folder), folder.name) or type(error).__name__

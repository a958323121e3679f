"""Photographs: those that ship inside the dependencies, and those of any folder."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asymlib.pictures import UNREADABLE, is_picture_file, photo_size, read_photo
from asymlib.study.dataset.copies import NEAR, distances, groups_of, perceptual_hash

EXPLICIT = ("train", "val", "test")


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
        return read_photo(self.file).on_white


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
        photographs.append(Photograph(name, scene, split, origin, licence, path, photo_size(path)))
    return photographs


def folder_photographs(folder: str | Path, smallest: int = 64) -> tuple[list[Photograph], dict[str, str]]:
    """Every photograph of a folder and its subfolders, in the order of their names.

    A folder with train/, val/ and test/ is taken as it is. Else near-copies (`copies.groups_of`) are one scene, and a
    scene's content alone decides its split: adding or removing a file moves no other scene. Seven of ten are `train`.

    A file that is no picture, broken or too small is skipped and named, never a crash; hidden files are not looked at.

    Args:
        folder: Any folder.
        smallest: Least side in pixels.

    Returns:
        The photographs, and file name -> reason of what was skipped.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: No usable photograph in it, or none for one of the splits.
    """
    photographs, skipped = every_photograph(folder, smallest)
    _require_splits(Path(folder), photographs, skipped)
    return photographs, skipped


def every_photograph(folder: str | Path, smallest: int = 64) -> tuple[list[Photograph], dict[str, str]]:
    """`folder_photographs`, but for a folder that need not have some for every split."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: got {folder}, expected an existing folder of photographs")
    files, hashes, skipped = _read_hashes(folder)
    explicit = all((folder / split).is_dir() for split in EXPLICIT)
    if explicit:
        splits = [file.relative_to(folder).parts[0] for file in files]
        scenes = [file.relative_to(folder).as_posix() for file in files]
        _warn_of_copies(folder, files, hashes, splits)
    else:
        scenes, splits = _split_by_content(folder, files, hashes)
    names = _distinct_names([file.relative_to(folder) for file in files])
    photographs = []
    for file, name, scene, split in zip(files, names, scenes, splits, strict=True):
        inside = file.relative_to(folder).as_posix()
        try:
            size = photo_size(file, smallest)
        except UNREADABLE as error:
            skipped[inside] = reason(error, folder)
            continue
        if explicit and split not in EXPLICIT:
            skipped[inside] = f"outside of {', '.join(f'{known}/' for known in EXPLICIT)}"
            continue
        photographs.append(Photograph(name, scene, split, f"folder:{inside}", "the user's", file, size))
    return photographs, skipped


def _read_hashes(folder: Path) -> tuple[list[Path], list[int], dict[str, str]]:
    """The pictures of a folder with their perceptual hashes, and what is none."""
    files, hashes, skipped = [], [], {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        inside = file.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts):
            continue
        if not is_picture_file(file):
            skipped[inside.as_posix()] = "no suffix of a picture"
            continue
        try:
            hashes.append(perceptual_hash(file))
        except UNREADABLE as error:
            skipped[inside.as_posix()] = reason(error, folder)
            continue
        files.append(file)
    return files, hashes, skipped


def _split_by_content(folder: Path, files: list[Path], hashes: list[int]) -> tuple[list[str], list[str]]:
    """Scene and split of each file: near-copies are one scene, named after its first file."""
    groups = groups_of(hashes)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    first: dict[int, str] = {}
    least: dict[int, str] = {}
    for file, group, digest in zip(files, groups, digests, strict=True):
        first.setdefault(group, file.relative_to(folder).as_posix())
        least[group] = min(digest, least.get(group, digest))
    share = {group: int(digest, 16) % 100 for group, digest in least.items()}
    split = {group: "test" if part < 15 else "val" if part < 30 else "train" for group, part in share.items()}
    return [first[group] for group in groups], [split[group] for group in groups]


def _warn_of_copies(folder: Path, files: list[Path], hashes: list[int], splits: list[str]) -> None:
    """Name the files of two splits that are nearly the same picture."""
    for i, near in enumerate(distances(hashes, hashes) <= NEAR):
        for j in near.nonzero()[0]:
            if j > i and splits[i] != splits[j]:
                pair = " and ".join(files[k].relative_to(folder).as_posix() for k in (i, j))
                warnings.warn(f"folder: {pair} are nearly the same picture in two splits", stacklevel=4)


def _distinct_names(files: list[Path]) -> list[str]:
    """A name without folders for each; where two would be the same (05.png and 05.jpg, also on disks that do not tell
    capitals apart), all of those get a piece of their path's checksum."""
    flat = [file.with_suffix("").as_posix().replace("/", "_") for file in files]
    counts = Counter(name.casefold() for name in flat)
    return [
        name if counts[name.casefold()] == 1 else f"{name}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
        for name, file in zip(flat, files, strict=True)
    ]


def _require_splits(folder: Path, photographs: list[Photograph], skipped: dict[str, str]) -> None:
    counts = Counter(photograph.split for photograph in photographs)
    if not all(counts[split] for split in EXPLICIT):
        found = ", ".join(f"{counts[split]} in {split}" for split in EXPLICIT)
        raise ValueError(
            f"folder: got {folder} with {found} ({len(skipped)} skipped), expected at least one in each; "
            "more photographs, or folders train/, val/ and test/"
        )


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

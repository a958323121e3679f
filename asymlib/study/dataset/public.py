"""The photographs of the profile `photos`, from two public repositories that anyone can clone:

    git clone https://github.com/EliSchwartz/imagenet-sample-images    (commit bc69043)
    git clone https://github.com/BIDS/BSDS500                          (commit a04b7c6)
    python -m asymlib.study.dataset.public imagenet-sample-images BSDS500 --folder photos

writes photos/train (563 of the ImageNet sample, 200 of BSDS500), photos/val (100 of BSDS500) and photos/test (200), and
checks every file. public.csv beside this module lists them: split, file, the checksum of the original, and of the
256-px square that is made of an ImageNet original. Both are for research; neither is part of this repository.

Source of BSDS500: Arbelaez et al., "Contour Detection and Hierarchical Image Segmentation", TPAMI 2011.
"""

import argparse
import hashlib
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from asymlib.files import written_folder
from asymlib.pixels import centre_square
from asymlib.study.dataset.photographs import Photograph, folder_photographs

LIST = Path(__file__).with_name("public.csv")
SIDE, QUALITY = 256, 92  # of the squares that are made of ImageNet's originals


def prepare(sources: list[Path], folder: Path) -> Counter:
    """Write the listed photographs as folder/SPLIT/FILE, whole or not at all.

    A file is told by its checksum, wherever it lies in `sources`. One of BSDS500 is copied; of one of ImageNet the
    middle square of 256 px is made, or copied where it was made before.

    Args:
        sources: Folders to look in, such as the two clones.
        folder: What params.yaml calls `images.folder`.

    Returns:
        How many were `copied`, `made`, and of those came out in `other bytes` than where the list was made: another
        version of the JPEG library, no visible difference.

    Raises:
        FileNotFoundError: No such source, or a photograph in none of them; nothing is written then.
    """
    table, known = pd.read_csv(LIST, keep_default_na=False), _by_checksum(sources)
    lacking = [row.file for row in table.itertuples() if not {row.original, row.square} & set(known)]
    if lacking:
        where = ", ".join(map(str, sources))
        raise FileNotFoundError(
            f"sources: got {where} without {len(lacking)} of {len(table)} photographs ({', '.join(lacking[:3])}, ...), "
            "expected clones of EliSchwartz/imagenet-sample-images at bc69043 and BIDS/BSDS500 at a04b7c6"
        )
    done: Counter = Counter()
    with written_folder(folder) as temporary:
        for row in tqdm(list(table.itertuples()), desc="photographs", mininterval=5):
            target = temporary / row.split / row.file
            target.parent.mkdir(parents=True, exist_ok=True)
            finished = row.square or row.original
            if finished in known:
                target.write_bytes(known[finished].read_bytes())
                done["copied"] += 1
                continue
            _square(known[row.original]).save(target, quality=QUALITY, subsampling=0)
            done["made"] += 1
            done["other bytes"] += _checksum(target) != row.square
    return done


def check(folder: Path) -> list[Photograph]:
    """The photographs of a prepared folder, read as the pipeline does, near-copies named as a warning.

    Raises:
        ValueError: It has others than the list, or one cannot be read.
        FileNotFoundError: No such folder.
    """
    photographs, skipped = folder_photographs(folder, smallest=SIDE)
    expected = {f"folder:{row.split}/{row.file}" for row in pd.read_csv(LIST).itertuples()}
    different = sorted(expected ^ {photograph.origin for photograph in photographs} | set(skipped))
    if different:
        raise ValueError(
            f"folder: got {folder} with {len(different)} files missing, broken or not listed "
            f"({', '.join(different[:3])}), expected the {len(expected)} photographs of {LIST.name} and no other"
        )
    return photographs


def _by_checksum(sources: list[Path]) -> dict[str, Path]:
    for source in sources:
        if not source.is_dir():
            raise FileNotFoundError(f"sources: got {source}, expected an existing folder")
    files = [file for source in sources for file in source.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg")]
    return {_checksum(file): file for file in sorted(files)}


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _square(file: Path) -> Image.Image:
    """The middle square of a file's stored pixels (no EXIF turn: the public list was made without)."""
    with Image.open(file) as stored:
        picture = stored.convert("RGB")
    square = Image.fromarray(centre_square(np.asarray(picture)))
    return square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m asymlib.study.dataset.public", description="Prepare and check the photographs of `photos`."
    )
    parser.add_argument("sources", nargs="*", type=Path, help="the two clones; none to check the folder alone")
    parser.add_argument("--folder", type=Path, default=Path("photos"), help="where to write (default: photos)")
    arguments = parser.parse_args()
    try:
        done = prepare(arguments.sources, arguments.folder) if arguments.sources else {}
        photographs = check(arguments.folder)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    counts = Counter(photograph.split for photograph in photographs)
    print(", ".join(f"{name} {count}" for name, count in (counts | dict(done)).items()))


if __name__ == "__main__":
    main()

"""Captions to generate from, and the real pictures that such samples are compared with."""

import json
from pathlib import Path

import numpy as np

from asymlib.pictures import UNREADABLE, read_photo
from asymlib.pixels import centre_square, shrink


def read_captions(path: str | Path, count: int, seed: int) -> list[str]:
    """Captions drawn at random: of COCO's `captions_val2017.json`, or of a text file with one in a line.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It has fewer.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"captions: got {path}, expected COCO's captions_val2017.json or a text file")
    if path.suffix == ".json":
        captions = [entry["caption"].strip() for entry in json.loads(path.read_text())["annotations"]]
    else:
        captions = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if len(captions) < count:
        raise ValueError(f"captions: got {len(captions)} in {path}, expected at least {count}")
    return [captions[i] for i in np.random.default_rng([seed, 11]).permutation(len(captions))[:count]]


def read_squares(files: list[Path], size: int, count: int, seed: int) -> np.ndarray:
    """Photographs drawn at random, their middle square resized: (at most count, size, size, 3) uint8; what cannot be
    read is passed over."""
    squares = []
    for i in np.random.default_rng([seed, 12]).permutation(len(files)):
        try:
            pixels = read_photo(files[i], smallest=size).on_white
        except UNREADABLE:
            continue
        squares.append(shrink(centre_square(pixels), size, size))
        if len(squares) == count:
            break
    return np.stack(squares) if squares else np.empty((0, size, size, 3), np.uint8)

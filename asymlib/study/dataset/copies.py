"""Near-copies: photographs of the same scene again (resized, saved anew, a burst), which must not be held out from
themselves."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from asymlib.pictures import read_photo

NEAR = 8  # of 64 bits; see the test for what it catches and what it lets pass


def perceptual_hash(photograph: Path | np.ndarray) -> int:
    """64 bits that say of the coarsest cosine components of a picture's grey values which are above their median.

    Args:
        photograph: A file, or (H, W, 3) uint8 pixels.

    Raises:
        ValueError: See `read_photo`.

    Source: pHash's DCT hash (Zauner 2010, section 3.2.1), as the package imagehash has it; its further dependencies
        (PyWavelets) are not worth four lines.
    """
    pixels = photograph if isinstance(photograph, np.ndarray) else read_photo(photograph).on_white
    grey = np.asarray(Image.fromarray(pixels).convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float32)
    coarse = dctn(grey)[:8, :8].ravel()
    return int.from_bytes(np.packbits(coarse > np.median(coarse)).tobytes(), "big")


def distances(hashes: list[int], others: list[int]) -> np.ndarray:
    """(N, M): by how many bits hashes differ."""
    a, b = (np.array(given, np.uint64) for given in (hashes, others))
    return np.bitwise_count(a[:, None] ^ b[None])


def groups_of(hashes: list[int]) -> np.ndarray:
    """(N,): the number of each one's group; near-copies, and near-copies of near-copies, are one group."""
    a = np.array(hashes, np.uint64)
    pairs = [
        np.flatnonzero(np.bitwise_count(a ^ one) <= NEAR) for one in a
    ]  # row by row: N x N does not fit for 50,000
    rows = np.repeat(np.arange(len(a)), [len(near) for near in pairs])
    columns = np.concatenate(pairs) if pairs else np.empty(0, int)
    return connected_components(coo_matrix((np.ones(len(rows)), (rows, columns)), (len(a), len(a))), directed=False)[1]

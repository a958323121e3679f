"""Where a decoder wins and loses: pairs of image and mask sorted by the hole's size and by what is in it."""

import numpy as np
import pandas as pd
from skimage.color import rgb2gray
from skimage.feature import structure_tensor, structure_tensor_eigenvalues

from asymlib.study.dataset.images import Pairs
from asymlib.study.reporting.tables import comparisons

AGAINST = "vanilla_paste_hard"  # what needs no training
CLASSES = {
    "hole": ["small", "middle", "large"],
    "content": ["flat", "texture", "edges"],
}


def describe_pairs(pairs: Pairs) -> pd.DataFrame:
    """Size and content of every hole: a row for each pair with the columns pair, hole_share, detail and coherence.

    `detail` is the root mean square gradient of the photograph's grey values (in [0, 1], a pixel) in the hole,
    `coherence` in [0, 1] says how far its gradients share one direction around a pixel: high along an edge, low in
    texture.

    Source: coherence of the structure tensor, (a - b)^2 / (a + b)^2 of its eigenvalues (Bigun and Granlund 1987).
    """
    rows = []
    for name, image, mask in zip(pairs.table["mask"], pairs.image, pairs.mask, strict=True):
        tensor = structure_tensor(rgb2gray((image.permute(1, 2, 0).numpy() + 1) / 2), sigma=2)
        a, b = structure_tensor_eigenvalues(tensor)
        hole = mask[0].numpy() > 0
        energy = (a + b)[hole]
        coherence = np.average(((a - b) / (a + b + 1e-12))[hole] ** 2, weights=energy + 1e-12)
        rows.append((name, hole.mean(), np.sqrt(energy.mean()), coherence))
    return pd.DataFrame(rows, columns=["pair", "hole_share", "detail", "coherence"])


def classes_of(described: pd.DataFrame) -> dict[str, pd.Series]:
    """Which pairs are in each class, by pair: thirds by the hole's size; the third with the least detail is flat, the
    rest texture or edges, halved by coherence.

    Args:
        described: From `describe_pairs`.
    """
    table = described.set_index("pair")
    thirds = pd.qcut(table["hole_share"].rank(method="first"), 3, labels=CLASSES["hole"])
    flat = table["detail"].rank(method="first") <= len(table) / 3
    straight = table["coherence"] > table.loc[~flat, "coherence"].median()
    content = pd.Series(np.where(flat, "flat", np.where(straight, "edges", "texture")), table.index)
    return {"hole": thirds.astype(str), "content": content}


def by_class(rows: pd.DataFrame, described: pd.DataFrame) -> pd.DataFrame:
    """Rows of pairs once more for each class that they are in, with its name, such as `hole small`, as mask_kind."""
    parts = [rows]
    for kind, classes in classes_of(described).items():
        parts.append(rows.assign(mask_kind=kind + " " + rows["pair"].map(classes)))
    return pd.concat(parts, ignore_index=True)


def where_table(rows: pd.DataFrame, described: pd.DataFrame) -> pd.DataFrame:
    """Rim, hole and seam compared with AGAINST, for each kind of mask, size of hole and content, as a tidy table.

    Args:
        rows: One row per pair and metric, see `tables.summarise`; AGAINST among the variants.
        described: From `describe_pairs`, for at least these pairs.
    """
    parts = []
    for kind, group in by_class(rows, described).groupby("mask_kind", sort=False):
        for metric in ("ring_l1_4", "hole_psnr", "seam_added"):
            parts.append(comparisons(group, metric, AGAINST, "difference").assign(mask_kind=kind))
    return pd.concat(parts, ignore_index=True)

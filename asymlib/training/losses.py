"""The official losses: L1 + perceptual distance, and a hinge PatchGAN with an adaptive weight.

All of them look at the whole image, known pixels included: officially the mask weights no loss (`ring_weights` does).
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import relu

from asymlib.masks import dilate


def reconstruction_loss(
    image_hat: torch.Tensor,
    image: torch.Tensor,
    perceptual: Callable | None,
    weight: float,
    pixel_weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum over pixels and channels of |x - xr| + weight P(x, xr), averaged over the batch.

    Args:
        image_hat: (N, 3, H, W).
        image: (N, 3, H, W) in [-1, 1].
        perceptual: Distance of two batches in [0, 1] -> (N,); or None for none.
        weight: 1 officially (with LPIPS).
        pixel_weight: (N, 1, H, W), of the absolute difference; officially 1 everywhere.

    Source: `contperceptual.py`: the per-image distance is added to every pixel before the sum; log-variance fixed at 0.
    """
    difference = (image - image_hat).abs()
    difference = difference if pixel_weight is None else pixel_weight * difference
    distance = difference.new_zeros(len(image))
    if perceptual is not None and weight:
        distance = perceptual((image_hat + 1) / 2, (image + 1) / 2)
    return difference.sum() / len(image) + weight * distance.mean() * image[0].numel()


def ring_weights(mask: torch.Tensor, weight: float, width: int = 4) -> torch.Tensor:
    """(N, 1, H, W), `weight` in the hole's outermost `width` pixels and 1 elsewhere; mask (N, 1, H, W), 1 = hole."""
    return 1 + (weight - 1) * dilate(1 - mask, width) * mask


class PatchDiscriminator(nn.Sequential):
    """PatchGAN with three strided layers, BatchNorm and LeakyReLU (official: width 64, N(0, 0.02) weights).

    Source: taming `NLayerDiscriminator`, pix2pix (Isola et al. 2017).
    """

    def __init__(self, width: int = 64) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        channels = [width, 2 * width, 4 * width, 8 * width]
        for i, stride in enumerate((2, 2, 1)):
            layers += [
                nn.Conv2d(channels[i], channels[i + 1], 4, stride, 1, bias=False),
                nn.BatchNorm2d(channels[i + 1]),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        super().__init__(*layers, nn.Conv2d(channels[-1], 1, 4, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1, 0.02)


def generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """-mean D(xr)."""
    return -fake_logits.mean()


def hinge_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """0.5 (mean relu(1 - D(x)) + mean relu(1 + D(xr)))."""
    return 0.5 * (relu(1 - real_logits).mean() + relu(1 + fake_logits).mean())


def adaptive_weight(
    reconstruction: torch.Tensor,
    adversarial: torch.Tensor,
    last_layer: nn.Parameter,
    average: Callable[[torch.Tensor], torch.Tensor] = lambda gradient: gradient,
) -> torch.Tensor:
    """||d rec / d w|| / (||d adv / d w|| + 1e-4), clamped to [0, 1e4], at the decoder's last convolution w.

    Args:
        reconstruction: Scalar loss.
        adversarial: Scalar loss.
        last_layer: w.
        average: The mean over the processes. It is taken before the norms, or each would have a weight of its own:
            `autograd.grad` averages nothing.
    """
    by_reconstruction = average(torch.autograd.grad(reconstruction, last_layer, retain_graph=True)[0])
    by_adversarial = average(torch.autograd.grad(adversarial, last_layer, retain_graph=True)[0])
    return (by_reconstruction.norm() / (by_adversarial.norm() + 1e-4)).clamp(0, 1e4).detach()

"""The condition branch: what the decoder is told of the known pixels, and how it meets the trunk."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import adaptive_max_pool2d, avg_pool2d, conv2d, interpolate

from asymlib.masks import dilate


def shrink_mask(mask: torch.Tensor, size: tuple[int, int], how: str = "nearest") -> torch.Tensor:
    """Bring a mask (N, 1, H, W) to a coarser level: (N, 1, *size); see `Condition.coarse_mask`."""
    if how == "any":
        return adaptive_max_pool2d(mask, size)
    return interpolate(mask, size=size, mode=how)


class Replace(nn.Module):
    """Keep the trunk in the hole and take the branch's feature elsewhere: h m + f (1 - m).

    Args:
        trunk: Channels of the trunk.
        feature: Channels of the feature, as many.

    Source: official `my_decoder.py` `Decoder.forward`.
    """

    def __init__(self, trunk: int, feature: int) -> None:
        super().__init__()

    def forward(self, trunk: torch.Tensor, feature: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Trunk (N, C, h, w), feature (N, C', h, w), mask (N, 1, h, w), 1 = hole -> (N, C, h, w)."""
        return trunk * mask + feature * (1 - mask)


class Gate(Replace):
    """Replace by degrees, h + g (1 - m) (f - h); a channel's g is learned, from 0.02 on: near the trunk as it was."""

    def __init__(self, trunk: int, feature: int) -> None:
        super().__init__(trunk, feature)
        self.logit = nn.Parameter(torch.full((trunk, 1, 1), -4.0))

    def forward(self, trunk: torch.Tensor, feature: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return trunk + torch.sigmoid(self.logit) * (1 - mask) * (feature - trunk)


class Add(Replace):
    """Add what a 1 x 1 convolution makes of the feature, h + W f, in the hole and outside; W starts at 0.

    Source: ControlNet's zero convolutions (Zhang et al. 2023), so that training starts from the working decoder.
    """

    def __init__(self, trunk: int, feature: int) -> None:
        super().__init__(trunk, feature)
        self.project = nn.Conv2d(feature, trunk, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, trunk: torch.Tensor, feature: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return trunk + self.project(feature)


class Concatenate(Replace):
    """A 1 x 1 convolution of trunk and known feature, V h + W (1 - m) f; V starts as the identity and W at 0."""

    def __init__(self, trunk: int, feature: int) -> None:
        super().__init__(trunk, feature)
        self.project = nn.Conv2d(trunk + feature, trunk, 1)
        nn.init.dirac_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, trunk: torch.Tensor, feature: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.project(torch.cat([trunk, (1 - mask) * feature], dim=1))


BLENDS = {"replace": Replace, "gate": Gate, "add": Add, "concatenate": Concatenate}


@dataclass(frozen=True)
class Condition:
    """How the known pixels reach the decoder; the defaults are the paper's.

    Args:
        blend: How a feature of the branch meets the trunk, see `BLENDS`.
        layers: How many of the branch's layers there are, full resolution first; None for all of them.
        mask_input: Whether the branch sees the mask, as a fourth channel: else a hole looks like a grey surface.
        coarse_mask: Which cells of a coarser level are hole: `nearest` looks at one pixel of a cell, as officially,
            `any` at all of them (a cell with one hole pixel is hole), `area` fades by the hole's share of the cell.
        output_norm: Whether the trunk is normalised before the last convolution.
        copy_known: Whether known pixels go to the output as they are.
        retouch: Channels of a small network that has the last word on the hole, see `Retouch`; 0 for none.

    Raises:
        ValueError: A value that there is not.
    """

    blend: str = "replace"
    layers: int | None = None
    mask_input: bool = False
    coarse_mask: str = "nearest"
    output_norm: bool = True
    copy_known: bool = False
    retouch: int = 0

    def __post_init__(self) -> None:
        for name, known in (("blend", BLENDS), ("coarse_mask", ("nearest", "any", "area"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(known)}")


class ConditionBranch(nn.Module):
    """Plain convolutions over the masked image, one feature for each blend; features are taken before the ReLU.

    Args:
        widths: The decoder's channels by level, full resolution first; officially (c, 2c, 4c, 4c), which gives the five
            layers c, 2c, 4c, 4c, 4c.
        condition: What differs from the paper's branch.

    Source: official `my_decoder.py`, class `Conditionencoder`.
    """

    def __init__(self, widths: tuple[int, ...], condition: Condition = Condition()) -> None:
        super().__init__()
        trunk = [*widths, widths[-1]][: condition.layers]
        channels = [3 + condition.mask_input, *trunk]
        shapes = [(3, 1), (3, 1), *[(4, 2)] * (len(widths) - 1)]  # kernel, stride
        self.layers = nn.ModuleList(
            nn.Conv2d(channels[i], channels[i + 1], *shapes[i], padding=1) for i in range(len(trunk))
        )
        self.blends = nn.ModuleList(BLENDS[condition.blend](c, c) for c in trunk)
        self.retouch = Retouch(condition.retouch) if condition.retouch else None
        self.condition = condition

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) and (N, 1, H, W) -> features at /1, /1, /2, /4 and /8, in that order."""
        h = (1 - mask) * image
        if self.condition.mask_input:
            h = torch.cat([h, mask], dim=1)
        features = []
        for layer in self.layers:
            features.append(layer(h))
            h = torch.relu(features[-1])
        return features

    def finish(self, image_hat: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What is done to the decoded image (N, 3, H, W); officially nothing."""
        if self.retouch is not None:
            image_hat = self.retouch(image_hat, image, mask)
        return mask * image_hat + (1 - mask) * image if self.condition.copy_known else image_hat

    def blend(self, i: int, trunk: torch.Tensor, features: list[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        """The trunk (N, C, h, w) with feature i (0 is the last that the trunk meets), or as it is without that one."""
        if i >= len(features):
            return trunk
        return self.blends[i](trunk, features[i], shrink_mask(mask, trunk.shape[-2:], self.condition.coarse_mask))


class Retouch(nn.Module):
    """The last word on the hole, where decoded and known pixels are seen side by side. Two things are corrected there.

    *Drift.* A hole whose colours do not meet the known ones may be meant so, or be a diffusion model's mistake. In the
    second case the step at the rim is carried into the hole and taken away.

    *Loss.* What the autoencoder loses is alike on both sides of the rim, and on one side it is known. A few
    convolutions at full resolution learn what follows for the other. They start as no change.

    How much of both a picture needs shows where the answer is known (`evidence`): an encoder's own latent misses the
    known pixels by the same everywhere; that of a hole with other content spoils them near the hole, and a cell away
    comes out in the photograph's colours; a diffusion model's misses the colours everywhere. A small network judges
    that, once for a picture: it moves the threshold of the drift, and scales and shifts the convolutions' features.

    Args:
        width: Channels of the convolutions.

    Source: the scales and shifts are FiLM's (Perez et al. 2018).
    """

    SCALES = (1.0, 3.0, 9.0, 27.0)  # deviations of the Gaussians that carry the step inwards, in pixels
    CELL = 8  # pixels
    REACHES = (2, 4, 8, 16)  # pixels from the hole, between which known ones are counted together

    def __init__(self, width: int) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(0.15))
        self.slope = nn.Parameter(torch.tensor(50.0))
        shapes = [(11, width, 1), (width, width, 2), (width, width, 4), (width, 4, 1)]  # in, out, dilation
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=d, dilation=d) for a, b, d in shapes)
        seen, judged = len(self.REACHES) + 2, 1 + 6 * width
        self.judge = nn.Sequential(nn.Linear(seen, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, judged))
        for last in (self.layers[-1], self.judge[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, image_hat: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) in [-1, 1], mask (N, 1, H, W), 1 = hole -> (N, 3, H, W); known pixels are not changed."""
        error = (1 - mask) * (image - image_hat)
        drift, step = self.drift(error, mask), mask * self.carried(error, mask)
        share, scales, shifts = self.judged(self.evidence(error, mask, drift), drift)
        drifted = share * step
        left = step - drifted
        h = torch.cat([image_hat + drifted, error, left, mask, 10 * drift.expand_as(mask)], dim=1)
        for layer, scale, shift in zip(self.layers[:-1], scales, shifts, strict=True):
            h = torch.relu((1 + scale) * layer(h) + shift)
        lost, more = self.layers[-1](h).split([3, 1], dim=1)
        return image_hat + drifted + mask * (lost + more * left)

    def judged(self, evidence: torch.Tensor, drift: torch.Tensor) -> tuple[torch.Tensor, list, list]:
        """The share of the step that is drift, (N, 1, 1, 1), and a scale and a shift for each layer but the last."""
        width = self.layers[0].out_channels
        gate, *parts = self.judge(evidence)[..., None, None].split([1, *[width] * 6], dim=1)
        return torch.sigmoid(self.slope * (drift - self.threshold) + gate), parts[:3], parts[3:]

    def evidence(self, error: torch.Tensor, mask: torch.Tensor, drift: torch.Tensor) -> torch.Tensor:
        """(N, 6): logarithms of the known pixels' error (root mean square) up to each of `REACHES` and beyond, + 3, and
        10 x the drift: numbers of about the same size.
        """
        square, inner, parts = error.square().mean(1, keepdim=True), mask, []
        for reach in self.REACHES:
            outer = dilate(mask, reach)
            parts.append(outer - inner)
            inner = outer
        means = [(square * part).sum((1, 2, 3)) / part.sum((1, 2, 3)).clamp(min=1) for part in (*parts, 1 - inner)]
        return torch.cat([3 + (torch.stack(means, 1) + 1e-5).log() / 2, 10 * drift[:, :, 0, 0]], dim=1)

    def drift(self, error: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(N, 1, 1, 1): root mean square of the mean error of the cells that lie more than a cell from the hole."""
        known = 1 - dilate(mask, self.CELL)
        share = avg_pool2d(known, self.CELL)
        counted = (share > 0.5).to(error)
        mean = counted * avg_pool2d(known * error, self.CELL) / share.clamp(min=0.5)
        square = mean.square().sum((1, 2, 3), keepdim=True) / (3 * counted.sum((1, 2, 3), keepdim=True)).clamp(min=1)
        return (square + 1e-12).sqrt()

    def carried(self, error: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W): the known pixels' error, as the mean around a pixel over the nearest known ones that there are.

        Source: normalised convolution (Knutsson and Westin 1993), from fine to coarse as in pull-push.
        """
        known, total, left = 1 - mask, torch.zeros_like(error), torch.ones_like(mask)
        for scale in self.SCALES:
            weight, near = _blur(known, scale), _blur(error, scale)
            taken = left * weight / (weight + 0.01)
            total, left = total + taken * near / (weight + 1e-6), left - taken
        return total


def _blur(x: torch.Tensor, deviation: float) -> torch.Tensor:
    """Gaussian, with nothing beyond the border.

    torchvision's `gaussian_blur` mirrors the border and convolves with the whole square kernel, 163 x 163 at deviation
    27: this one is two lines of 163.
    """
    radius = int(3 * deviation)
    distance = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-distance.square() / (2 * deviation**2))
    kernel, c = (kernel / kernel.sum()).expand(x.shape[1], 1, -1), x.shape[1]
    x = conv2d(x, kernel[:, :, None, :], padding=(0, radius), groups=c)
    return conv2d(x, kernel[:, :, :, None], padding=(radius, 0), groups=c)

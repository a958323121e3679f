"""The condition branch: what the decoder is told of the known pixels, and how it meets the trunk."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import adaptive_max_pool2d, interpolate


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

    Raises:
        ValueError: A value that there is not.
    """

    blend: str = "replace"
    layers: int | None = None
    mask_input: bool = False
    coarse_mask: str = "nearest"
    output_norm: bool = True
    copy_known: bool = False

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
        self.condition = condition

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) and (N, 1, H, W) -> features at /1, /1, /2, /4 and /8, in that order."""
        h, features = self.seen(image, mask), []
        for layer in self.layers:
            features.append(layer(h))
            h = torch.relu(features[-1])
        return features

    def seen(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What its first layer is given: the picture with 0 in the hole and, with `mask_input`, the mask."""
        known = (1 - mask) * image
        return torch.cat([known, mask], dim=1) if self.condition.mask_input else known

    def finish(self, image_hat: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What is done to the decoded image (N, 3, H, W); officially nothing."""
        return mask * image_hat + (1 - mask) * image if self.condition.copy_known else image_hat

    def blend(self, i: int, trunk: torch.Tensor, features: list[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        """The trunk (N, C, h, w) with feature i (0 is the last that the trunk meets), or as it is without that one."""
        if i >= len(features):
            return trunk
        return self.blends[i](trunk, features[i], shrink_mask(mask, trunk.shape[-2:], self.condition.coarse_mask))

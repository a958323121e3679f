"""The last word on an edit: a photo, any edit of it and a mask become the photo with the edit in its hole, every known
pixel kept, colours met at the rim as far as the known pixels show how they changed, and the edit not undone.

Three steps. *Calibration* fits the change of colours between edited and photo on the known pixels and undoes it in the
hole, at any size and any distance. The step that is left at the rim is *carried* inwards, as far as the evidence says.
A few convolutions give back, next to the rim, what the autoencoder has lost. The photo's pixels in the hole are never
read, and where the edit equals the photo outside the hole nothing is changed.

`carried` and `distances` are operations of their own where a graph is exported: how often they loop is written in the
picture, which no graph can hold.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate, pad, silu

from asymlib.masks import dilate

CELLS = 128  # at most so many cells a side see the colours: one fit for the picture, whatever its size
LEAST_CELL = 4  # pixels; texture that the autoencoder has lost averages out in a cell
MARGIN = 6  # pixels around the hole that it may have spoilt
ROUNDS = 6  # of reweighting
# How large each term of a change of colours is expected to be: offset, slopes and curves over the picture, the three
# channels, their squares. The noisier the known pixels, the closer to no change the fit stays.
EXPECTED = (0.1, 0.05, 0.05, 0.01, 0.01, 0.01, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05)
ALIKE = 4  # cells whose errors are alike, so that together they tell as much as one


def calibrate(photo: torch.Tensor, edited: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The edit in the photo's colours: a change of colours that lies over the whole edited picture is undone.

    The change is sought on the known pixels as offset, slopes and curves over the picture, a mixture of the channels
    and of their squares (gamma, contrast), by least squares that are robust against what the hole has spoilt and held
    at no change where the known pixels say nothing.

    Args:
        photo: (N, 3, H, W) in [-1, 1]; read where the mask is 0 alone.
        edited: The same shape.
        mask: (N, 1, H, W), 1 = hole; known is where it is 0.

    Returns:
        (N, 3, H, W) float32, everywhere, not clamped; `edited` itself where nothing is known.

    Source: iteratively reweighted ridge regression with the weights of Geman and McClure 1987.
    """
    known = (mask == 0).float()
    trusted = 1 - dilate(1 - known, MARGIN)
    trusted = torch.where(trusted.sum((1, 2, 3), keepdim=True) > 0, trusted, known)
    x, y = (torch.where(trusted > 0, picture.float(), 0.0) for picture in (photo, edited))
    size = [torch.sym_min(CELLS, torch.sym_max(1, extent // LEAST_CELL)) for extent in mask.shape[-2:]]
    share = adaptive_avg_pool2d(trusted, size)
    x, y = (adaptive_avg_pool2d(picture, size) / share.clamp(min=1e-6) for picture in (x, y))
    field = _field(*y.shape[-2:], y.device)
    terms = torch.cat([field.expand(y.shape[0], -1, -1, -1), y, y.square() - 1 / 3], dim=1)
    change = _fit(terms, x - y, share).transpose(1, 2)  # (N, 3, T)
    edited, places = edited.float(), len(field)
    laid = change[..., :places] @ _field(*edited.shape[-2:], y.device).flatten(1)
    mixed, squared = (change[..., places + i : places + i + 3] for i in (0, 3))
    colours = edited.flatten(2)
    return edited + (laid + mixed @ colours + squared @ (colours.square() - 1 / 3)).view_as(edited)


def _field(height: int, width: int, device: torch.device) -> torch.Tensor:
    """(6, H, W): constant, slopes and curves over the picture, whose sides go from -1 to 1."""
    v, u = (
        (torch.arange(extent, device=device, dtype=torch.float32) + 0.5) * 2 / extent - 1 for extent in (height, width)
    )
    v, u = v[:, None].expand(height, width), u[None].expand(height, width)
    return torch.stack([torch.ones_like(u), u, v, u * u - 1 / 3, u * v, v * v - 1 / 3])


def _fit(terms: torch.Tensor, wanted: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """(N, T, 3): the most likely change, given how large one is expected to be; a cell that is off by more than usual
    counts less."""
    a, b, s = (part.flatten(2).transpose(1, 2).double() for part in (terms, wanted, share))
    expected = torch.diag(torch.tensor(EXPECTED, dtype=a.dtype, device=a.device) ** -2)
    change = a.new_zeros(*a.shape[::2], 3)
    for _ in range(ROUNDS):
        square = (b - a @ change).square().mean(2, keepdim=True)
        usual = _median(square, s > 0) + 1e-8
        weighted = (a * s / (1 + square / (4 * usual)).square()).transpose(1, 2)
        change = torch.linalg.solve_ex(weighted @ a + ALIKE * usual * expected, weighted @ b).result
    return change.float()


def _median(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """(N, 1, 1): the lower median of what is counted in (N, cells, 1); 0 where nothing is."""
    count = counted.sum(1, keepdim=True)
    ordered = torch.where(counted, values, torch.inf).sort(1).values
    return torch.where(count > 0, ordered.gather(1, (count - 1).clamp(min=0) // 2), 0.0)


def carried(error: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """What is known at some pixels, smoothly carried over all others, at any distance.

    Args:
        error: (N, C, H, W), counted where it is known.
        known: (N, 1, H, W), 1 = known.

    Returns:
        (N, C, H, W); 0 where nothing is known at all.

    Source: pull-push (Gortler et al. 1996, section 3.4): means of what is known, from fine to coarse, fill what is not.
    """
    return _carried(error, known) if torch.compiler.is_exporting() else _pulled_and_pushed(error, known)


def _pulled_and_pushed(error: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    if min(error.shape[-2:]) == 1:
        mean = (known * error).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1e-6)
        return known * error + (1 - known) * mean
    share = avg_pool2d(known, 2, ceil_mode=True, count_include_pad=False)
    coarse = avg_pool2d(known * error, 2, ceil_mode=True, count_include_pad=False) / share.clamp(min=1e-6)
    filled = _pulled_and_pushed(coarse, (share > 0).to(share))
    return known * error + (1 - known) * interpolate(filled, size=error.shape[-2:], mode="bilinear")


@torch.library.custom_op("asymlib::carried", mutates_args=())
def _carried(error: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return _pulled_and_pushed(error, known)  # without a gradient, which an exported graph has none of


@_carried.register_fake
def _(error: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(error)


@torch.library.custom_op("asymlib::distances", mutates_args=())
def distances(known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each hole pixel to the nearest known one, and of each known pixel to the hole, in pixels.

    Args:
        known: (N, 1, H, W), 1 = known.

    Returns:
        (N, 1, H, W) twice, 0 on the other side; as far as can be where there is no other side.
    """
    planes = known[:, 0].cpu().numpy().astype(np.uint8)
    far = float(sum(known.shape[-2:]))
    sides = [np.stack([_distance(plane, far) for plane in side]) for side in (1 - planes, planes)]
    inside, outside = (torch.from_numpy(side)[:, None].to(known) for side in sides)
    return inside, outside


@distances.register_fake
def _(known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(known), torch.empty_like(known)


def _distance(plane: np.ndarray, far: float) -> np.ndarray:
    import cv2  # here, since who decodes measures no distances

    if plane.all():
        return np.full(plane.shape, far, np.float32)
    found = cv2.distanceTransform(plane, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.round(found**2))  # squares are whole numbers; OpenCV's last bit differs from call to call


class Carried(NamedTuple):
    """What the convolutions see, all (N, C, H, W): the edit, calibrated and with its share of the step at the rim; the
    step's rest; the known pixels' error, and its size, carried into the hole; what is known; and `distances`."""

    edited: torch.Tensor
    left: torch.Tensor
    error: torch.Tensor
    size: torch.Tensor
    known: torch.Tensor
    inside: torch.Tensor
    outside: torch.Tensor


class LastWord(ModelMixin, ConfigMixin):
    """See the module. `judge` sees, once for a picture, how far known pixels are off near the hole and away from it,
    how far the hole is from what the known pixels around it make one expect, as edited and as calibrated, and how
    strong the edit's own edges are on both sides of the rim, since drift leaves one along the mask. It says how much of
    the calibration is applied, how much of the step at the rim is carried how far, and scales and shifts the features
    of the convolutions, which see both sides of the rim.

    The step's share has a sign. Where the hole's colours drifted, a decoder smears half of the drift over the rim, and
    up to twice what is seen outside is to be taken off inside; where other content is meant, it smears that, and what
    is seen outside is missing inside.

    It computes in float32 whatever it is given.

    Args:
        width: Channels of the convolutions.
        dilations: Of each of them but the last, in pixels.
        seed: Seed of the initial weights; with those it calibrates.

    Source: the scales and shifts are FiLM's (Perez et al. 2018), the scales kept between 0 and 2: unbounded, and with
    ReLU, training soon left no unit alive on the pictures that have most to gain.
    """

    REACHES = (2, 4, 8, 16, 32)  # pixels from the hole, between which known ones are counted together
    BAND = 8  # pixels of the known side that tell how well known pixels make one expect their neighbours
    CELL = 8  # pixels a side whose mean error is evidence of drift, which texture is not
    NEAR = 16.0  # pixels from the rim over which the convolutions' correction dies out
    TILE = 512  # pixels a side that the convolutions see at a time

    @register_to_config
    def __init__(self, width: int = 40, dilations: tuple[int, ...] = (1, 2, 4, 8), seed: int = 0) -> None:
        super().__init__()
        channels, hidden = [11, *[width] * len(dilations)], 96
        seen, told = 13 * (len(self.REACHES) + 1), 3 + 2 * width * len(dilations)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(
                nn.Conv2d(channels[i], width, 3, padding=d, dilation=d) for i, d in enumerate(dilations)
            )
            self.last = nn.Conv2d(width, 4, 3, padding=1)
            self.judge = nn.Sequential(
                nn.Linear(seen, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, told)
            )
        for layer in (self.last, self.judge[-1]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def _apply(self, fn, recurse: bool = True) -> "LastWord":
        """Moved wherever it is asked to, but float32: what halves a pipeline does not halve its judgement."""
        return super()._apply(lambda tensor: fn(tensor).float(), recurse)

    def forward(
        self, photo: torch.Tensor, edited: torch.Tensor, mask: torch.Tensor, strength: float = 1.0
    ) -> torch.Tensor:
        """Finish edits.

        Args:
            photo: (N, 3, H, W) in [-1, 1]; read where the mask is 0, and where it is between 0 and 1, on which the
                result fades to it.
            edited: The same shape.
            mask: (N, 1, H, W) in [0, 1], 1 = hole, 0 = known.
            strength: In [0, 1]; 0 is the edit pasted back.

        Returns:
            (N, 3, H, W) of edited's type and device; the photo's own values where the mask is 0.
        """
        photo, edited, mask = photo.to(edited), edited.clamp(-1, 1), mask.to(edited)
        whole, film = self.carry(photo.float(), edited.float(), (mask == 0).float())
        corrected = torch.lerp(edited.float(), whole.edited + self._in_tiles(whole, film), strength)
        return torch.lerp(photo, corrected.clamp(-1, 1).to(edited), mask)

    def carry(self, x: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> tuple[Carried, torch.Tensor]:
        """All but the convolutions: calibration, and the step at the rim.

        Args:
            x: The photo, (N, 3, H, W) float32 in [-1, 1].
            y: The edit, likewise.
            known: (N, 1, H, W), 1 = known.

        Returns:
            What the convolutions see, and their scales and shifts, (N, layers, 2, width, 1, 1).
        """
        evidence, calibrated, (inside, outside) = self.gathered(x, y, known)
        share, part, length, film = self.judged(evidence)
        y = torch.lerp(y, calibrated, share)
        error = known * (x - y)
        near, size = carried(torch.cat([error, error.abs().mean(1, keepdim=True)], dim=1), known).tensor_split([3], 1)
        near = (1 - known) * near
        step = part * torch.exp(-inside / length) * near
        return Carried(y + step, near - step, error, size, known, inside, outside), film

    def gathered(self, x: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> tuple:
        """The evidence, (N, 13 R + 13): of the known pixels' errors as edited and as calibrated, of how far the hole is
        from what known pixels make one expect, likewise, of how far known pixels themselves are from that, and of the
        edit's own edges on both sides; the calibrated edit; `distances`. Arguments as `carry`'s."""
        sides, calibrated = distances(known), calibrate(x, y, 1 - known)
        inside, outside = sides
        pictures, expected = (y, calibrated), carried(known * x, known)
        seen = [self.evidence(known * (x - picture), known, outside) for picture in pictures]
        seen += [self.evidence((1 - known) * (expected - picture), 1 - known, inside) for picture in pictures]
        beyond = known * (outside > self.BAND)
        band = self.evidence((known - beyond) * (x - carried(beyond * x, beyond)), known - beyond, outside)
        edges = torch.cat([torch.diff(y, dim=dim, prepend=y.narrow(dim, 0, 1)) for dim in (2, 3)], dim=1)
        seen += [self.evidence(side * edges, side, far) for side, far in ((known, outside), (1 - known, inside))]
        return torch.cat([*seen, band[:, ::2]], dim=1), calibrated, sides

    def judged(self, evidence: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """From the evidence, (N, 13 R + 13): the share of the calibration that is applied, the share of
        the step that is carried and over how many pixels, (N, 1, 1, 1) each, and the convolutions' scales and shifts,
        (N, layers, 2, width, 1, 1)."""
        gates, film = self.judge(evidence)[..., None, None].tensor_split([3], dim=1)
        shares = torch.sigmoid(2 + gates[:, :1]), 2 * torch.tanh(gates[:, 1:2])
        return *shares, 8 * torch.exp(gates[:, 2:]), film.unflatten(1, (len(self.layers), 2, -1))

    def evidence(self, error: torch.Tensor, counted: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """(N, 2 R + 2): logarithms of the error of what is counted, elsewhere it is 0, up to each of `REACHES` from the
        rim and beyond; root mean square and that of the means of cells, + 3: numbers of about the same size."""
        height, width = counted.shape[-2:]
        edge = (0, -width % self.CELL, 0, -height % self.CELL)
        mean, share = (avg_pool2d(pad(plane, edge), self.CELL) for plane in (error, counted))
        smooth = interpolate(mean / share.clamp(min=1e-6), scale_factor=self.CELL)[..., :height, :width]
        squares, means, reached = [plane.square().mean(1, keepdim=True) for plane in (error, smooth)], [], 0.0
        for reach in (*self.REACHES, float("inf")):
            part = (counted > 0) & (distance > reached) & (distance <= reach)
            count = part.sum((1, 2, 3)).clamp(min=1)
            means += [torch.where(part, square, 0.0).sum((1, 2, 3)) / count for square in squares]
            reached = reach
        return 3 + (torch.stack(means, 1) + 1e-6).log() / 2

    def give_back(self, seen: Carried, film: torch.Tensor) -> torch.Tensor:
        """What the convolutions add to the hole, (N, 3, H, W), from what `carry` returns, or a window of it.

        It is at most twice what the known pixels near by are off by: where they were met, nothing was lost.
        """
        near = torch.exp(-(seen.inside + seen.outside) / self.NEAR)
        h = torch.cat([seen.edited, seen.error, seen.left, seen.known, near], dim=1)
        for i, layer in enumerate(self.layers):
            change = silu(layer(h) * (1 + torch.tanh(film[:, i, 0])) + film[:, i, 1])
            h = h + change if i else change
        lost, more = self.last(h).split([3, 1], dim=1)
        return (1 - seen.known) * near * (2 * seen.size * torch.tanh(lost) + more * seen.left)

    def _in_tiles(self, whole: Carried, film: torch.Tensor) -> torch.Tensor:
        """`give_back` tile by tile, of each what is near a rim, with what that sees around it; 0 elsewhere."""
        size, reach = whole.known.shape[-2:], sum(self.config.dilations) + 1
        added = torch.zeros_like(whole.edited)
        wanted = ((whole.inside > 0) & (whole.inside < 8 * self.NEAR)).any(0)[0]
        for corner in product(*(range(0, extent, self.TILE) for extent in size)):
            tile = wanted[tuple(slice(start, start + self.TILE) for start in corner)]
            if not tile.any():
                continue
            sides = [tile.any(1 - axis).nonzero() + start for axis, start in enumerate(corner)]
            inner = [slice(int(side[0]), int(side[-1]) + 1) for side in sides]
            outer = [slice(max(0, s.start - reach), min(e, s.stop + reach)) for s, e in zip(inner, size, strict=True)]
            part = self.give_back(Carried(*(plane[..., outer[0], outer[1]] for plane in whole)), film)
            rows, columns = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
            added[..., inner[0], inner[1]] = part[..., rows, columns]
        return added

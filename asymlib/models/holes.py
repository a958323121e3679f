"""Decode only what an edit changed: the costly upper levels of a decoder on windows around the hole.

Before each part of the decoder, what lies further from the hole than the parts to come can see is cut away. So a window
shows what the whole picture would, but for one thing: a GroupNorm takes its statistics from all that it sees. Those of
a window are brought to those of the whole by how the two differ in a small copy of the picture.
"""

from collections.abc import Callable, Sequence
from itertools import combinations, product
from math import prod
from typing import NamedTuple

import torch
from diffusers.models.autoencoders.vae import Decoder, DecoderTiny
from diffusers.models.unets.unet_2d_blocks import UpDecoderBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn.functional import adaptive_max_pool2d, interpolate

from asymlib.masks import dilate
from asymlib.models.first_stage import computing_type, decoder_input
from asymlib.models.normalisation import Statistics, recorded_statistics, settled_statistics
from asymlib.models.tiling import decode_tiles

RING = 32  # pixels around a hole that are decoded with it, at least: there the photo shows what the decoder loses
THUMBNAIL = 16  # cells on the longer side of the small copy
WHOLE = 128  # cells a side up to which the lowest level sees the whole picture; beyond, tiles of it
TILE = 512  # pixels a side that are decoded at a time
MANY = 16  # windows, above which some are put together at once
WORTH = 0.85  # of the decode's multiply-accumulates: windows for 0.84 save time, for 0.91 they do not (`make bench`)
MOST = 4.0  # times, by which a small copy changes a window's variance

Finisher = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Box(NamedTuple):
    """Rows from top to bottom and columns from left to right, the ends not included."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def of(self, plane: torch.Tensor, origin: "Box | None" = None) -> torch.Tensor:
        """This part of (..., H, W), which itself begins at the corner of `origin`."""
        top, left = (origin.top, origin.left) if origin else (0, 0)
        return plane[..., self.top - top : self.bottom - top, self.left - left : self.right - left]

    def grown(self, pixels: int, size: tuple[int, int]) -> "Box":
        """With as many pixels more on each side as a picture of this height and width has."""
        height, width = size
        return Box(
            max(0, self.top - pixels),
            min(height, self.bottom + pixels),
            max(0, self.left - pixels),
            min(width, self.right + pixels),
        )

    def scaled(self, size: tuple[int, int], new: tuple[int, int]) -> "Box":
        """What it covers, even in part, where a picture of height and width `size` has `new`."""
        (rows, columns), (height, width) = size, new
        return Box(
            self.top * height // rows,
            -(-self.bottom * height // rows),
            self.left * width // columns,
            -(-self.right * width // columns),
        )

    def together(self, other: "Box") -> "Box":
        """The smallest around both."""
        (a, b, c, d), (e, f, g, h) = self, other
        return Box(min(a, e), max(b, f), min(c, g), max(d, h))


class Step(NamedTuple):
    """A part of a decoder: how far it sees, in pixels of what it returns; how many weights its convolutions have; by
    what it multiplies a picture's sides."""

    part: nn.Module
    reach: int
    weights: int
    scale: int

    def cost(self, given: Box) -> int:
        """MACs: every weight of a convolution meets every pixel of what it returns."""
        return given.area * self.scale**2 * self.weights


@torch.no_grad()
def decode_hole(
    autoencoder: nn.Module,
    latent: torch.Tensor,
    image: torch.Tensor,
    mask: torch.Tensor,
    finisher: Finisher = torch.lerp,
) -> torch.Tensor:
    """Decode holes, and take everything else from the photo.

    Args:
        autoencoder: Any of diffusers with a `Decoder` or a `DecoderTiny`, such as `AutoencoderKL`, or an
            `AsymmetricVQGAN` without a branch.
        latent: (N, C, h, w), not scaled.
        image: (N, 3, H, W) in [-1, 1], of the latent's size.
        mask: (N, 1, H, W) in [0, 1], 1 = hole.
        finisher: Puts a decoded window into the photo: (image, image_hat, mask) of the window to its result. The last
            word, or a paste of `editing.compositing`; hard pasting if none is given.

    Returns:
        (N, 3, H, W) of the autoencoder's type and device; the photo's own values where the mask is 0.

    Raises:
        ValueError: An autoencoder of another make or with a condition branch, or sizes that do not fit.
    """
    head, steps = parts_of(autoencoder.decoder)
    factor = prod(step.scale for step in steps)
    size = tuple(factor * cells for cells in latent.shape[-2:])
    for name, picture, channels in (("image", image, 3), ("mask", mask, 1)):
        if tuple(picture.shape) != (len(latent), channels, *size):
            came, expected = tuple(picture.shape), (len(latent), channels, *size)
            raise ValueError(f"{name}: got {came}, expected {expected}, the size of the latent")
    latent = latent.to(autoencoder.device, computing_type(autoencoder))
    image, holes = image.to(latent), mask.to(latent)
    result, latent = image.clone(), decoder_input(autoencoder, latent)
    for i in range(len(latent)):
        one = slice(i, i + 1)
        for window, decoded in _decode_windows(head, steps, latent[one], mask[one], size):
            photo, hole = window.of(image[one]), window.of(holes[one])
            made = finisher(photo, decoded.clamp(-1, 1), hole)
            window.of(result[one]).copy_(torch.where(hole > 0, made, photo))
    return result


def _decode_windows(
    head: nn.Module, steps: Sequence[Step], latent: torch.Tensor, mask: torch.Tensor, size: tuple[int, int]
) -> list[tuple[Box, torch.Tensor]]:
    """The windows around a hole with their pixels, (1, 3, ., .)."""
    windows = _windows(steps, mask, tuple(latent.shape[-2:]), size)
    if not windows:
        return []
    lowest = decode_tiles(head, latent, (), 1, WHOLE, WHOLE // 8)
    tiles = [(window, tile) for window in windows for tile in _tiles(window)]
    first = max((tile for _, tile in tiles), key=lambda tile: tile.area)
    tiles.sort(key=lambda pair: pair[1] != first)  # it settles the statistics of all
    small = {} if first.area == size[0] * size[1] else _small_statistics(lowest, steps, first, size)
    decoded = {w: latent.new_empty(1, 3, w.bottom - w.top, w.right - w.left) for w in windows}
    with settled_statistics(list(small), lambda norm, own: _brought_to_whole(own, *small[norm])):
        for window, tile in tiles:
            tile.of(decoded[window], window).copy_(_decode_box(lowest, steps, tile, size))
    return list(decoded.items())


def _decode_box(lowest: torch.Tensor, steps: Sequence[Step], box: Box, size: tuple[int, int]) -> torch.Tensor:
    """One box of the picture, of height and width `size`, from the features (1, C, h, w) that the steps begin with."""
    boxes = _needed(steps, box, size)
    h = boxes[0].of(lowest)
    for step, given, kept in zip(steps, boxes, [*boxes[1:], box], strict=True):
        h = kept.of(step.part(h), Box(*(step.scale * side for side in given)))
    return h


def _needed(steps: Sequence[Step], box: Box, size: tuple[int, int]) -> list[Box]:
    """What each step has to be given, so that a box of the picture comes out right."""
    boxes = []
    for step in reversed(steps):
        smaller = tuple(extent // step.scale for extent in size)
        box, size = box.grown(step.reach, size).scaled(size, smaller), smaller
        boxes.append(box)
    return boxes[::-1]


def _cost(steps: Sequence[Step], box: Box, size: tuple[int, int]) -> int:
    return sum(step.cost(given) for step, given in zip(steps, _needed(steps, box, size), strict=True))


def _small_statistics(
    lowest: torch.Tensor, steps: Sequence[Step], box: Box, size: tuple[int, int]
) -> dict[nn.GroupNorm, tuple[Statistics, Statistics]]:
    """What every norm meets in a small copy of the picture: in all of it, and in what a box needs."""
    here, small = tuple(lowest.shape[-2:]), {}
    if not _normalise(steps):
        return {}
    h = interpolate(lowest, tuple(max(1, side * THUMBNAIL // max(here)) for side in here), mode="area")
    for step, given in zip(steps, _needed(steps, box, size), strict=True):
        part = given.scaled(here, tuple(h.shape[-2:]))
        norms = [module for module in step.part.modules() if isinstance(module, nn.GroupNorm)]
        with recorded_statistics(norms) as in_all, recorded_statistics(norms, part.of) as in_part:
            h = step.part(h)
        small |= {norm: (in_all[norm], in_part[norm]) for norm in norms}
        here = tuple(step.scale * side for side in here)
    return small


def _brought_to_whole(own: Statistics, in_all: Statistics, in_part: Statistics) -> Statistics:
    """A window's own variance and mean, and by what those of the whole differ in the small copy: the variance in
    proportion, the mean in the window's scale; bounded, so that nothing explodes where a part of the copy is plain.

    Nearer than the window's own or the copy's alone (tests/models/test_holes.py); notebook 10 says how far both first
    stages are off, of `photos` results/photos/tables/cost.csv.
    """
    variance = own[0] * _bounded_ratio(in_all[0], in_part[0])
    return variance, own[1] + (in_all[1] - in_part[1]) * _bounded_ratio(own[0], in_part[0]).sqrt()


def _bounded_ratio(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ((a + 1e-6) / (b + 1e-6)).clamp(1 / MOST, MOST)


def _normalise(steps: Sequence[Step]) -> bool:
    return any(isinstance(module, nn.GroupNorm) for step in steps for module in step.part.modules())


def _windows(steps: Sequence[Step], mask: torch.Tensor, cells: tuple[int, int], size: tuple[int, int]) -> list[Box]:
    """Boxes of pixels around the parts of a hole, put together where that costs less; all of the picture where that
    saves little."""
    from scipy.ndimage import find_objects, label  # here, since who decodes everything looks for no holes

    ring = -(-RING * cells[0] // size[0])
    around = dilate(adaptive_max_pool2d((mask > 0).float(), cells), ring)
    parts = find_objects(label(around[0, 0].cpu().numpy())[0])
    boxes = [Box(y.start, y.stop, x.start, x.stop).scaled(cells, size) for y, x in parts]
    while len(boxes) > MANY:
        boxes = [boxes[0].together(boxes[1]), *boxes[2:]]
    boxes = _put_together(steps, boxes, size)
    everything = Box(0, size[0], 0, size[1])
    whole = _cost(steps, everything, size)
    copy = whole * min(1, THUMBNAIL / max(cells)) ** 2 if _normalise(steps) else 0
    return [everything] if sum(_cost(steps, box, size) for box in boxes) + copy > WORTH * whole else boxes


def _put_together(steps: Sequence[Step], boxes: list[Box], size: tuple[int, int]) -> list[Box]:
    """Boxes that cost less as one, and those that overlap: a hole is finished once, and whole."""
    for a, b in combinations(boxes, 2):
        both = a.together(b)
        overlap = a.top < b.bottom and b.top < a.bottom and a.left < b.right and b.left < a.right
        if overlap or _cost(steps, both, size) <= _cost(steps, a, size) + _cost(steps, b, size):
            return _put_together(steps, [both, *(box for box in boxes if box not in (a, b))], size)
    return boxes


def _tiles(box: Box) -> list[Box]:
    """Equal parts of a box, none larger than TILE."""
    sides = []
    for start, stop in ((box.top, box.bottom), (box.left, box.right)):
        count = -(-(stop - start) // TILE)
        edges = [start + (stop - start) * i // count for i in range(count + 1)]
        sides.append(zip(edges[:-1], edges[1:], strict=True))
    return [Box(*rows, *columns) for rows, columns in product(*sides)]


def parts_of(decoder: nn.Module) -> tuple[nn.Module, list[Step]]:
    """What sees the whole latent, and the steps that see windows.

    Raises:
        ValueError: A decoder of another make.
    """
    sharp = all(getattr(layer, "mode", "nearest") == "nearest" for layer in getattr(decoder, "layers", ()))
    if isinstance(decoder, DecoderTiny) and sharp:
        *layers, last = decoder.layers
        last = nn.Sequential(last, _Function(lambda h: 2 * h - 1))
        return _Function(lambda h: torch.tanh(h / 3) * 3), _steps([*layers, last])
    blocks = decoder.up_blocks if isinstance(decoder, Decoder) else ()
    plain = all(type(block) is UpDecoderBlock2D for block in blocks)
    if not blocks or not plain or not isinstance(decoder.conv_norm_out, nn.GroupNorm):
        came = type(decoder).__name__
        raise ValueError(f"autoencoder: got a {came}, expected diffusers' Decoder of plain levels, or its DecoderTiny")
    if getattr(decoder, "condition_encoder", None) is not None:
        raise ValueError("autoencoder: got one with a condition branch, expected one without")
    parts = []
    for block in blocks:
        parts += [_Untimed(resnet) for resnet in block.resnets] + list(block.upsamplers or [])
    parts.append(nn.Sequential(decoder.conv_norm_out, decoder.conv_act, decoder.conv_out))
    lowest = len(blocks[0].resnets)  # a tenth of the cost; what follows begins with the statistics of the whole
    return nn.Sequential(decoder.conv_in, decoder.mid_block, *parts[:lowest]), _steps(parts[lowest:])


def _steps(parts: Sequence[nn.Module]) -> list[Step]:
    steps = []
    for part in parts:
        convolutions = [module for module in part.modules() if isinstance(module, nn.Conv2d)]
        reach = sum((convolution.kernel_size[0] - 1) // 2 for convolution in convolutions)
        scale = int(part.scale_factor) if isinstance(part, nn.Upsample) else 1 + isinstance(part, Upsample2D)
        steps.append(Step(part, reach, sum(c.weight.numel() for c in convolutions), scale))
    return steps


class _Untimed(nn.Module):
    """A ResBlock of an autoencoder, which is told no time."""

    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        self.resnet = resnet

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.resnet(h, None)


class _Function(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.function(h)

"""Edits to look at: packaged test photographs, an object in each, and what a person would ask for."""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch

from asymlib.masks import thick_mask
from asymlib.pixels import centre_square, shrink, to_pixels, to_tensor
from asymlib.study.dataset.photographs import packaged_photographs
from asymlib.study.edits import recoloured, recoloured_by, removed

SIZE = 160  # pixels a side: six such pictures side by side are as wide as a page


class Example(NamedTuple):
    """What is edited: the object in an ellipse of a photograph's middle square (centre y, x and radii y, x, as shares
    of its side). `hue` is by how much its colour is turned, as a share of the circle; None takes the object away."""

    wish: str
    photograph: str
    ellipse: tuple[float, float, float, float]
    hue: float | None = None


EXAMPLES = (
    Example("a blue suit", "astronaut", (0.75, 0.4, 0.3, 0.42), 0.5),
    Example("a pink dahlia", "flower", (0.5, 0.5, 0.45, 0.45), -0.17),
    Example("no second flower", "flower", (1.0, 0.6, 0.16, 0.24)),
    Example("a green tank", "motorcycle_left", (0.46, 0.54, 0.1, 0.16), 0.35),
)


def example_edit(example: Example, size: int = SIZE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Photograph (1, 3, S, S) in [-1, 1], mask (1, 1, S, S) with 1 = hole, and what the edit means, as the photograph.

    An object that gets another colour is cut out along its outline; what is taken away goes with the whole ellipse.
    """
    pixels = {p.name: p for p in packaged_photographs()}[example.photograph].pixels
    image = to_tensor(shrink(centre_square(pixels), size, size)[None])
    mask = ellipse_mask(example.ellipse, size)
    if example.hue is None:
        return image, mask, removed(image, mask)
    mask = outline_of_object(image, example.ellipse)
    return image, mask, recoloured_by(image, mask, example.hue)


def drawn_edits(count: int, seed: int, size: int = SIZE) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Edits that nobody chose, as `example_edit` has them: a packaged test photograph, a hole of the official training
    distribution, and its content taken away or in another colour, in turn.

    Args:
        count: How many.
        seed: Draws photographs, holes and colours.
        size: S.
    """
    rng = np.random.default_rng([seed, 32])
    photographs = [p for p in packaged_photographs() if p.split == "test"]
    for i, place in enumerate(rng.permutation(len(photographs))[:count]):
        image = to_tensor(shrink(centre_square(photographs[place].pixels), size, size)[None])
        mask = torch.from_numpy(thick_mask(size, rng))[None, None].float()
        yield image, mask, removed(image, mask) if i % 2 else recoloured(image, mask, seed + i)


def ellipse_mask(ellipse: tuple[float, float, float, float], size: int) -> torch.Tensor:
    """(1, 1, S, S), 1 in the ellipse, see `Example`."""
    filled = np.zeros((size, size), np.uint8)
    _draw(filled, ellipse, 1)
    return torch.from_numpy(filled)[None, None].float()


def outline_of_object(image: torch.Tensor, ellipse: tuple[float, float, float, float]) -> torch.Tensor:
    """(1, 1, S, S): the largest object in an ellipse of (1, 3, S, S), whose middle third is certainly of it.

    Source: GrabCut, Rother et al. 2004, as OpenCV has it.
    """
    y, x, height, width = ellipse
    marks = np.full(image.shape[-2:], cv2.GC_BGD, np.uint8)
    _draw(marks, ellipse, cv2.GC_PR_FGD)
    _draw(marks, (y, x, height / 3, width / 3), cv2.GC_FGD)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(to_pixels(image[0])[..., ::-1].copy(), marks, None, *models, 5, cv2.GC_INIT_WITH_MASK)
    found = np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    found = cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    found = cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(found)
    largest = 1 + statistics[1:, cv2.CC_STAT_AREA].argmax()
    return torch.from_numpy(labels == largest)[None, None].float()


def _draw(canvas: np.ndarray, ellipse: tuple[float, float, float, float], value: int) -> None:
    y, x, height, width = (round(share * canvas.shape[0]) for share in ellipse)
    cv2.ellipse(canvas, (x, y), (width, height), 0, 0, 360, int(value), -1)

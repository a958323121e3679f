"""Which part of a photo is edited, and at which size: diffusion models work best at the size that they were trained on,
and people's photos are larger."""

from typing import NamedTuple

import torch
from diffusers.image_processor import VaeImageProcessor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import to_pil_image

from asymlib.pixels import resized

NEAR = 2.0  # what has an area within this factor of what a model was trained on is edited at its own size


class Window(NamedTuple):
    """Rows and columns of a photo, and the height and width at which they are edited."""

    rows: slice
    columns: slice
    size: tuple[int, int]

    def taken(self, image: torch.Tensor) -> torch.Tensor:
        """The window of (N, C, H, W), at the photo's resolution."""
        return image[..., self.rows, self.columns]

    def shrunk(self, image: torch.Tensor) -> torch.Tensor:
        """The window of (N, 3, H, W) in [-1, 1] at the size at which it is edited."""
        return resized(self.taken(image), self.size)

    def shrunk_hole(self, hole: torch.Tensor) -> torch.Tensor:
        """The same of a mask (N, 1, H, W): hole is every pixel that stands for one of the hole."""
        return shrunk(self.taken(hole), self.size)

    def put_back(self, edited: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """A copy of the photo (1, 3, H, W) whose window shows an edit of it."""
        whole = image.clone()
        whole[..., self.rows, self.columns] = resized(edited, self.taken(image).shape[-2:]).to(whole)
        return whole


def window_around(hole: torch.Tensor, padding: int | None, side: int | None) -> tuple[slice, slice]:
    """Rows and columns that are edited: all, or a square around the hole as diffusers cuts it.

    Args:
        hole: (1, 1, H, W), hole where it is not 0.
        padding: Pixels around the hole; None takes all.
        side: Of the square that the model was trained on, where it is known.

    Raises:
        ValueError: A mask without a hole, and a padding around it.
    """
    if padding is None:
        return slice(None), slice(None)
    if not hole.any():
        raise ValueError("mask: got no hole, expected one to crop around")
    square = side or min(hole.shape[-2:])
    picture = to_pil_image((hole > 0)[0].float())
    left, top, right, bottom = VaeImageProcessor().get_crop_region(picture, square, square, padding)
    return slice(top, bottom), slice(left, right)


def hole_window(hole: torch.Tensor, side: int, multiple: int) -> Window:
    """Where to edit a photo with a small model: all of it, where it is no larger than about what the model was trained
    on; else the hole and half as much around it on each side.

    Args:
        hole: (1, 1, H, W), hole where it is not 0.
        side: Of the squares that the model was trained on, in pixels.
        multiple: Of which the sides are where they are not the photo's own.
    """
    rows, columns, size = slice(None), slice(None), tuple(hole.shape[-2:])
    if size[0] * size[1] > NEAR * side**2 and hole.any():
        extent = max(int(hole[0, 0].any(axis).sum()) for axis in (0, 1))
        rows, columns = window_around(hole, max(side // 8, extent // 2), side)
        size = tuple(hole[..., rows, columns].shape[-2:])
    return Window(rows, columns, size if size[0] * size[1] <= NEAR * side**2 else fitted(size, side, multiple))


def fitted(size: tuple[int, int], side: int | None, multiple: int) -> tuple[int, int]:
    """The height and width at which a model works, in multiples of `multiple`: the photo's own, where its area is near
    that of the squares that the model was trained on, and scaled to that area where it is not."""
    area = size[0] * size[1]
    scale = 1.0 if side is None or 1 / NEAR <= area / side**2 <= NEAR else side / area**0.5
    return tuple(max(multiple, round(extent * scale / multiple) * multiple) for extent in size)


def shrunk(hole: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A mask at another size: hole is every pixel that stands for one of the hole; what is known is known entirely."""
    return interpolate(hole, size, mode="area").gt(0).float()

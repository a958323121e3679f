"""Every metric of the tables, once: x is the reference and y the result, both in [0, 1]; m = 1 in the hole.

All take (N, 3, H, W) and (N, 1, H, W) and return one number per image, (N,); y may be several results (V, N, 3, H, W),
of which it is (V, N): what only x and m decide is then computed once. Two need no reference: `seam_added` and
`hole_changed` compare y with v, what the plain (vanilla) decoder makes of the same latent.
"""

import torch
from torch.nn.functional import pad

from asymlib.masks import dilate
from asymlib.models.features import EffNetFeatures
from asymlib.pixels import to_uint8

BAND = 3  # pixels on each side of an edge whose means `seam_added` compares
WINDOW = 9  # side of the square around a pixel of the edge over which the means are taken
DEEPEST = 16  # pixels into the hole to which it follows an edge
PICTURE = (-3, -2, -1)  # the dimensions of one picture


def pre_error(x: torch.Tensor, y: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the known pixels: sum((y - x)^2 (1 - m)) / (3 sum(1 - m)).

    Example:
        >>> x, m = torch.zeros(1, 3, 1, 2), torch.tensor([[[[0.0, 1.0]]]])
        >>> pre_error(x, x + torch.tensor([0.5, 1.0]), m)  # the hole's error does not count
        tensor([0.2500])

    Source: the official `eval.py` before its removal (commit aa62f45^), which had no denominator.
    """
    return _masked_mean((y - x).square(), 1 - m)


def pre_error_all(x: torch.Tensor, y: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """The same sum over the number of all pixels, known or not: the other way to read the paper's number.

    Which of the two denominators the paper has is not known. The ratio of two decoders differs between them only by how
    pictures with large and small holes are weighted.
    """
    return ((y - x).square() * (1 - m)).mean(PICTURE)


def psnr_kept(x: torch.Tensor, y: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """-10 log10 of pre_error, in dB; infinite where every known pixel is exact."""
    return -10 * torch.log10(pre_error(x, y, m))


def rounding_floor(y: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """What rounding y to 8 bits alone changes in the known pixels, as a mean squared error."""
    return pre_error(y, to_uint8(y).float() / 255, m)


def seam_grad(x: torch.Tensor, y: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Mean Sobel magnitude of (y - x) 255 on the one-pixel edge of the hole, averaged over channels.

    The edge is the hole's outermost pixels: those with a known pixel among their eight neighbours.

    Source: ASUKA's Grad (CVPR 2025).
    """
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=x.device)
    kernels = torch.stack([sobel.flatten(), sobel.T.flatten()], dim=1)  # (9, 2)
    error, edge, means = ((y - x) * 255).view(-1, *x.shape), m * dilate(1 - m, 1), []
    for i, weight in enumerate(edge[:, 0]):  # at the edge's pixels alone: they are few
        row, column = weight.nonzero(as_tuple=True)
        padded = pad(error[:, i], (1, 1, 1, 1), mode="replicate")
        around = [padded[..., row + down, column + right] for down in range(3) for right in range(3)]
        magnitude = (torch.stack(around, dim=-1) @ kernels).norm(dim=-1)  # (V, 3, pixels)
        means.append((magnitude * weight[row, column]).sum((1, 2)) / (3 * weight.sum()))
    return torch.stack(means, dim=1).view(y.shape[:-3])


def ring_l1(x: torch.Tensor, y: torch.Tensor, m: torch.Tensor, width: int) -> torch.Tensor:
    """Mean absolute error, of 255, within `width` pixels on each side of the mask's edge."""
    return _masked_mean((y - x).abs() * 255, dilate(m, width) * dilate(1 - m, width))


def seam_added(v: torch.Tensor, y: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """The step across the hole's edge, or further inside, that was added to the vanilla decoder's picture; of 255.

    The correction c = (y - v) 255 is compared on both sides of an edge. At each pixel of the edge: |mean of c over the
    3 px inside - mean of c over the 3 px outside|, each over what of that band lies in the 9 x 9 window around the
    pixel, so that texture, which the decoder has lost outside and not inside, cancels. It is averaged over channels and
    the edge's pixels. The edge is, as in `seam_grad`, the hole's outermost pixels, those with a known pixel among their
    eight neighbours; the picture's border is none. The same is measured with the hole eroded by 1, 2, ..., 16 px (by a
    square, see `dilate`), and the largest counts: a seam that is moved inwards is found there. Depths that erosion
    leaves nothing of are left out.

    It means something where v itself has no edge along the mask's: not where the hole shows another photograph.

    Args:
        v: (N, 3, H, W) in [0, 1], the vanilla decoder's picture of the same latent.
        y: (N, 3, H, W) in [0, 1], the result, or several (V, N, 3, H, W).
        m: (N, 1, H, W); the hole is where it is not 0.

    Returns:
        (N,) or (V, N), 0 where nothing or the same was added everywhere. NaN where there is no edge, since the hole is
        empty or the whole picture: nothing was measured, and a 0 would be praise.

    Example:
        >>> v, m = torch.zeros(1, 3, 1, 8), torch.tensor([[[[0.0, 0, 0, 0, 1, 1, 1, 1]]]])
        >>> seam_added(v, v + 8 / 255 * (1 - m), m)  # pasted back: the decoder was 8 too dark, and the hole still is
        tensor([8.])
        >>> seam_added(v, v + torch.tensor([8.0, 8, 8, 8, 6, 4, 2, 0]) / 255, m)  # faded out: 22/3 - 2, 1 px further in
        tensor([5.3333])
    """
    error = ((y - v) * 255).view(-1, *v.shape)  # (V, N, 3, H, W)
    added = torch.stack([_largest_steps(error[:, i], hole) for i, hole in enumerate(m > 0)], dim=1)
    return added.view(y.shape[:-3])


def hole_changed(v: torch.Tensor, y: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """How far the hole is from what the vanilla decoder made of the latent: the mean of |y - v| 255 over the hole.

    What `seam_added` gains by repainting the hole is paid here: pasting back costs nothing, undoing an edit all of it.

    Args:
        v: (N, 3, H, W) in [0, 1], the vanilla decoder's picture of the same latent.
        y: (N, 3, H, W) in [0, 1], the result, or several (V, N, 3, H, W).
        m: (N, 1, H, W), 1 = hole.

    Returns:
        (N,) or (V, N), NaN where there is no hole.

    Example:
        >>> v, m = torch.zeros(1, 3, 1, 3), torch.tensor([[[[0.0, 1.0, 1.0]]]])
        >>> hole_changed(v, v + torch.tensor([9.0, 3, -1]) / 255, m)  # the known pixel's 9 does not count
        tensor([2.])
    """
    return _masked_mean((y - v).abs() * 255, m)


def hole_psnr(x: torch.Tensor, y: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """PSNR in dB inside the hole's bounding crop, with the reference pasted outside the hole.

    It is the PSNR of the hole's pixels plus 10 log10(crop / hole area), a constant of the mask: differences between
    decoders are the same.
    """
    squared, error = [], (y - x) * m
    for i, mask in enumerate(m):
        rows, columns = bounding_crop(mask)
        squared.append(error[..., i, :, rows, columns].square().mean(PICTURE))
    return -10 * torch.log10(torch.stack(squared, dim=-1))


def hole_effnet_distance(x: torch.Tensor, y: torch.Tensor, m: torch.Tensor, features: EffNetFeatures) -> torch.Tensor:
    """`effnet_distance` of the hole's bounding crop (at least 32 px a side), with the reference pasted outside."""
    distances = []
    for i, mask in enumerate(m):
        rows, columns = bounding_crop(mask, smallest=32)
        pasted = torch.where(mask > 0, y[..., i, :, :, :], x[i])[..., rows, columns]
        distances.append(effnet_distance(x[i, None, :, rows, columns], pasted.unsqueeze(-4), features)[..., 0])
    return torch.stack(distances, dim=-1)


def effnet_distance(x: torch.Tensor, y: torch.Tensor, features: EffNetFeatures) -> torch.Tensor:
    """Distance of EfficientNet-Lite0 features over the whole image; not LPIPS. See `EffNetFeatures.distance`.

    The reference goes through the network once, however many results there are.
    """
    if y.ndim == 4:
        return features.distance(y, x)
    return torch.stack([features.distance(y[:, i], x[i, None]) for i in range(len(x))], dim=1)


def max_abs_uint8(x: torch.Tensor, y: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Largest change of a known pixel, of 255, once y is saved with 8 bits."""
    change = (to_uint8(y).int() - to_uint8(x).int()).abs() * (m == 0)
    return change.amax(PICTURE).float()


def changed_pixels(x: torch.Tensor, y: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Share of the known pixels that differ in any channel, once y is saved with 8 bits."""
    changed = (to_uint8(y) != to_uint8(x)).any(-3, keepdim=True).float()
    return _masked_mean(changed, (m == 0).float())


@torch.no_grad()
def curve_point(reference: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """The two numbers that a training curve follows, means over images in [-1, 1]: pre_error and hole_psnr."""
    x, y = (reference + 1) / 2, (image_hat.clamp(-1, 1) + 1) / 2
    return {"pre_error": float(pre_error(x, y, mask).mean()), "hole_psnr": float(hole_psnr(x, y, mask).mean())}


def bounding_crop(mask: torch.Tensor, smallest: int = 1) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle around the hole of a (1, H, W) mask, grown to `smallest` px a side.

    Raises:
        ValueError: The mask has no hole.
    """
    if not mask.any():
        raise ValueError("mask: got no hole, expected at least one pixel with 1")
    spans = []
    for axis, length in enumerate(mask.shape[-2:]):
        inside = mask[0].any(1 - axis).nonzero().flatten()
        start, stop = int(inside[0]), int(inside[-1]) + 1
        side = max(stop - start, min(smallest, length))
        start = min(max(0, (start + stop - side) // 2), length - side)
        spans.append(slice(start, start + side))
    return spans[0], spans[1]


def _largest_steps(error: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """`seam_added` of results with the same hole, from their corrections (V, 3, H, W) and it, boolean (1, H, W).

    The windows around an edge's pixels are looked up one by one: they are few, so on a CPU this takes half as long as
    sums over every window of the picture, and a fifth at 512 px.
    """
    reach, count = WINDOW // 2, len(error)
    depth = _depth(hole).to(error)
    reached = dilate(depth[None], BAND)[0]  # the largest depth within 3 px
    error, depth, reached = (pad(plane, 4 * (reach,)) for plane in (error, depth, reached))  # no band beyond the border
    values = error.flatten(0, 1).flatten(1).T.contiguous()
    row, column = torch.meshgrid(2 * [torch.arange(-reach, reach + 1, device=error.device)], indexing="ij")
    window = (row * depth.shape[-1] + column).flatten()  # places in a flattened picture, from the middle's
    largest = error.new_full((count,), torch.nan)
    for eroded in range(DEEPEST + 1):
        edge = (depth == eroded + 1).flatten().nonzero()
        if not len(edge):
            break
        around = edge + window
        deep, near = depth.take(around), reached.take(around)
        within = (deep > eroded) & (deep <= eroded + BAND)
        without = (deep <= eroded) & (near > eroded)
        bands = torch.stack([within, without], 1).to(error)
        found = values.index_select(0, around.flatten()).view(*around.shape, -1)
        means = (bands @ found) / bands.sum(-1, keepdim=True)
        step = (means[:, 0] - means[:, 1]).abs().mean(0)
        largest = torch.fmax(largest, step.view(count, -1).mean(1))
    return largest


def _depth(hole: torch.Tensor) -> torch.Tensor:
    """How deep in the hole, boolean (1, H, W), a pixel lies: 0 outside, 1 on the edge, d where d - 1 go before it in an
    erosion; -1 where all is hole."""
    from scipy.ndimage import distance_transform_cdt  # here, since who decodes measures nothing

    return torch.from_numpy(distance_transform_cdt(hole[0].cpu().numpy(), "chessboard"))[None]


def _masked_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean over the pixels and channels of each image that `weight` (N, 1, H, W) selects."""
    return (values * weight).sum(PICTURE) / (values.shape[-3] * weight.sum(PICTURE))

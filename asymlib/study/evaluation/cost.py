"""What a decode costs: multiply-accumulates and memory, counted and not timed, so that every run gives the same."""

import weakref
from collections.abc import Callable
from statistics import fmean

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from asymlib.masks import dilate
from asymlib.metrics import seam_added
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.first_stage import FirstStage, encode_means
from asymlib.models.holes import decode_hole
from asymlib.models.tiling import decode_tiles, starts

# Stable Diffusion 1.5's inpainting UNet and encoder: GMAC at 512 px, counted on diffusers' models
UNET_GMAC, ENCODER_GMAC = 401.7, 558.3


class _Live(TorchDispatchMode):
    """Adds up the bytes of the storages that are alive, and keeps the largest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


def peak_memory(run: Callable) -> int:
    """Bytes of the tensors that `run` makes and that are alive at once; weights and inputs made before do not count.

    Works on the meta device, where nothing is computed.

    >>> peak_memory(lambda: torch.zeros(1000).add(1).sum())
    8000
    """
    with _Live() as live, torch.no_grad():
        run()
    return live.peak


def decode_memory(vqgan: AsymmetricVQGAN, size: int, tiled: bool) -> int:
    """Peak bytes of one decode with a condition at `size` px, at once or in tiles; the weights come on top.

    Args:
        vqgan: On any device; the meta device is enough.
        size: Side of the picture in pixels.
        tiled: Whether to decode in tiles of `vqgan.tile_size`.
    """
    device, side = vqgan.device, size // vqgan.factor
    latent = torch.zeros(1, vqgan.config.latent_channels, side, side, device=device)
    condition = [torch.zeros(1, channels, size, size, device=device) for channels in (3, 1)]
    if not tiled:
        return peak_memory(lambda: vqgan.decoder(latent, *condition))
    return peak_memory(
        lambda: decode_tiles(vqgan.decoder, latent, condition, vqgan.factor, vqgan.tile_size, vqgan.tile_overlap)
    )


def whole_run(decode_gmac: float, vanilla_gmac: float, evaluations: int) -> float:
    """Multiply-accumulates of a whole edit at 512 px, relative to the same with the vanilla decoder.

    Args:
        decode_gmac: Of one decode with this decoder.
        vanilla_gmac: Of one decode with the vanilla decoder.
        evaluations: How often the UNet runs: twice the steps with classifier-free guidance.

    >>> round(whole_run(1558.8, 1257.3, 100), 3), round(whole_run(9212.2, 1257.3, 4), 2)
    (1.007, 3.32)
    """
    rest = ENCODER_GMAC + evaluations * UNET_GMAC
    return (rest + decode_gmac) / (rest + vanilla_gmac)


@torch.no_grad()
def tiling_error(
    vqgan: AsymmetricVQGAN, latent: torch.Tensor, image: torch.Tensor, mask: torch.Tensor
) -> dict[str, float]:
    """How far decoding in tiles is from decoding at once.

    Args:
        vqgan: The decoder, with its `tile_size` and `tile_overlap`.
        latent: (1, C, h, w).
        image: (1, 3, H, W) in [-1, 1].
        mask: (1, 1, H, W), 1 = hole.

    Returns:
        In 8-bit levels: the mean and the largest difference, and `seam`, by how much the mean step between neighbouring
        pixels across a line where a tile begins or ends is larger than it is there when decoded at once.
    """
    whole = vqgan.decode(latent, image, mask)
    vqgan.enable_tiling()
    try:
        tiled = vqgan.decode(latent, image, mask)
    finally:
        vqgan.disable_tiling()
    difference = (tiled - whole).abs() * 127.5
    cells = vqgan.tile_size // vqgan.factor
    lines = {
        edge
        for start in starts(latent.shape[-1], cells, vqgan.tile_overlap // vqgan.factor)
        for edge in (vqgan.factor * start, vqgan.factor * start + vqgan.tile_size)
        if 0 < edge < image.shape[-1]
    }
    if not lines:
        lines = {image.shape[-1] // 2}  # one tile: any line will do, there is no difference
    steps = [
        torch.stack([(picture[..., x] - picture[..., x - 1]).abs().mean() * 127.5 for x in sorted(lines)])
        for picture in (tiled, whole)
    ]
    return {
        "tiling_mean": difference.mean().item(),
        "tiling_max": difference.max().item(),
        "tiling_seam": (steps[0] - steps[1]).mean().item(),
    }


def square_hole(size: int, share: float) -> torch.Tensor:
    """A mask (1, 1, size, size) of which a square in the middle is hole, that share of it."""
    mask, side = torch.zeros(1, 1, size, size), round(size * share**0.5)
    start = (size - side) // 2
    mask[..., start : start + side, start : start + side] = 1
    return mask


@torch.no_grad()
def window_error(first_stage: FirstStage, image: torch.Tensor, share: float) -> dict[str, float]:
    """How far decoding the hole alone is from decoding everything, of square holes in the middle.

    Args:
        first_stage: The autoencoder, whose decoder it is.
        image: (N, 3, s, s) in [-1, 1], encoded and decoded one by one.
        share: Of the picture that is hole.

    Returns:
        In 8-bit levels, means over the pictures: the difference over the hole (`mean`) and over its outermost 4 pixels
        (`rim`), and the seam that it adds to pasting (`seam`, see `metrics.seam_added`); `worst`, the largest `mean`.
    """
    middle = square_hole(image.shape[-1], share)
    rim, found = middle * dilate(1 - middle, 4), []
    for one in image.split(1):
        latent = encode_means(first_stage, one)
        pasted = torch.lerp(one, first_stage.decode(latent).sample.clamp(-1, 1), middle)
        windowed = decode_hole(first_stage, latent, one, middle)
        off = (windowed - pasted).abs().mean(1, keepdim=True) * 127.5
        means = [((off * part).sum() / part.sum()).item() for part in (middle, rim)]
        found.append([*means, seam_added((pasted + 1) / 2, (windowed + 1) / 2, middle).item()])
    mean, at_rim, seam = zip(*found, strict=True)
    return {"mean": fmean(mean), "rim": fmean(at_rim), "seam": fmean(seam), "worst": max(mean)}

"""Does a decoder still serve generation, where there is no mask? Sets of samples against real images and against the
vanilla decoder's, and what a decoder without a condition makes of an image's own latent."""

import pandas as pd
import torch

from asymlib.data.images import Pairs
from asymlib.evaluation.distribution import fid, kid
from asymlib.evaluation.protocol import Decode
from asymlib.evaluation.reconstruction import psnr
from asymlib.evaluation.tables import COLUMNS
from asymlib.models.features import PooledEffNet

VARIANTS = ("vanilla", "base", "large_1.5x", "large_2x")


@torch.no_grad()
def decode_all(decode: Decode, latent: torch.Tensor, batch: int) -> torch.Tensor:
    """Decode (N, C, h, w) without image and mask: (N, 3, 8h, 8w), clamped to [-1, 1]."""
    return torch.cat([decode(part, None, None) for part in latent.split(batch)]).clamp(-1, 1)


def distribution_table(samples: dict[str, torch.Tensor], real: torch.Tensor, settings, seed: int) -> pd.DataFrame:
    """KID and FID of every set of samples, as a tidy table.

    Of the real images twice as many as there are samples are drawn at random: one half is the reference, the other, as
    the variant `real`, shows what two sets of the same origin differ by.

    Args:
        samples: Variant -> (N, 3, H, W) in [-1, 1], all of the same latents; with `vanilla`.
        real: (M, 3, H, W) in [-1, 1].
        settings: The `generation` section of params.yaml.
        seed: Seed of the split and the subsets.
    """
    network, cells = PooledEffNet(), []
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))[: 2 * len(samples["vanilla"])]
    reference, other = real[order[::2]], real[order[1::2]]
    for variant, images in {"real": other, **samples}.items():
        sets = {"real": reference}
        if variant not in ("real", "vanilla"):
            sets["vanilla"] = samples["vanilla"]
        for name, against in sets.items():
            estimate = kid(images, against, network, settings.subsets, settings.subset_size, seed)
            cells.append((variant, seed, "generated", "all", "all", f"kid_effnet_to_{name}", *estimate, len(images)))
        estimate = fid(images, reference, network)
        cells.append((variant, seed, "generated", "all", "all", "fid_effnet_to_real", *estimate, len(images)))
    return pd.DataFrame(cells, columns=COLUMNS)


def reconstruction_rows(decoded: dict[str, torch.Tensor], pairs: Pairs, seed: int) -> pd.DataFrame:
    """PSNR of every decoder without a condition on the images' own latents, in rows for `tables.summarise`.

    Args:
        decoded: Variant -> (N, 3, H, W) in [-1, 1].
        pairs: The images; their masks are not looked at.
        seed: For the column of that name.
    """
    table = pairs.table[["stratum", "photograph"]].assign(
        pair=pairs.table["mask"], mask_kind="none", seed=seed, source="own"
    )
    parts = [
        table.assign(variant=variant, metric="psnr", value=psnr(pairs.image, images).double().numpy())
        for variant, images in decoded.items()
    ]
    return pd.concat(parts, ignore_index=True)

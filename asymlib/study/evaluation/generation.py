"""Does a decoder still serve generation, where there is no mask? Sets of samples against real images and against the
vanilla decoder's, and what a decoder without a condition makes of an image's own latent."""

from pathlib import Path

import pandas as pd
import torch

from asymlib.models.words import describe
from asymlib.pixels import to_tensor
from asymlib.study.dataset.captions import read_captions, read_squares
from asymlib.study.dataset.images import Pairs, load_images
from asymlib.study.evaluation.distribution import PooledEffNet, fid, kid
from asymlib.study.evaluation.protocol import Decode
from asymlib.study.evaluation.reconstruction import psnr
from asymlib.study.params import Generation, Profile
from asymlib.study.reporting.tables import facts

VARIANTS = ("vanilla", "base", "large_1.5x", "large_2x")


def real_and_captions(params: Profile) -> tuple[torch.Tensor, list[str]]:
    """Real pictures, (M, 3, s, s) in [-1, 1], and `samples` captions to generate from.

    With a file of captions and a folder of pictures (COCO's) these; without, the training images and the words that
    describe some of them, which is what the small diffusion model understands.

    Raises:
        FileNotFoundError: No such file or folder.
        ValueError: Fewer captions than samples.
    """
    settings = params.generation
    if settings.captions:
        from asymlib.study.dataset.streaming import folder_images  # here, since only captions need `datasets`

        captions = read_captions(settings.captions, settings.samples, params.seed)
        pixels = read_squares(folder_images(Path(settings.real)), settings.size, 2 * settings.samples, params.seed)
        return to_tensor(pixels), captions
    real = to_tensor(load_images(params.data / "images", "train")[0])
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(params.seed + 1))[: settings.samples]
    return real, describe(real[order], torch.ones(len(order), 1, *real.shape[-2:]))


@torch.no_grad()
def decode_all(decode: Decode, latent: torch.Tensor, batch: int) -> torch.Tensor:
    """Decode (N, C, h, w) without image and mask: (N, 3, 8h, 8w), clamped to [-1, 1]."""
    return torch.cat([decode(part, None, None) for part in latent.split(batch)]).clamp(-1, 1)


def distribution_table(
    samples: dict[str, torch.Tensor], real: torch.Tensor, settings: Generation, seed: int
) -> pd.DataFrame:
    """KID, its deviation between subsets and FID of every set of samples, as a tidy table.

    Of the real images twice as many as there are samples are drawn at random: one half is the reference, the other, as
    the variant `real`, shows what two sets of the same origin differ by.

    Args:
        samples: Variant -> (N, 3, H, W) in [-1, 1], all of the same latents; with `vanilla`.
        real: (M, 3, H, W) in [-1, 1].
        settings: The `generation` section of params.yaml.
        seed: Seed of the split and the subsets.
    """
    network, parts = PooledEffNet(), []
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))[: 2 * len(samples["vanilla"])]
    reference, other = real[order[::2]], real[order[1::2]]
    for variant, images in {"real": other, **samples}.items():
        sets = {"real": reference}
        if variant not in ("real", "vanilla"):
            sets["vanilla"] = samples["vanilla"]
        found = {}
        for name, against in sets.items():
            distance, deviation = kid(images, against, network, settings.subsets, settings.subset_size, seed)
            found |= {f"kid_effnet_to_{name}": distance, f"kid_effnet_to_{name}_subset_deviation": deviation}
        found["fid_effnet_to_real"] = fid(images, reference, network)
        parts.append(facts(variant, seed, found).assign(source="generated", n=len(images)))
    return pd.concat(parts, ignore_index=True)


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

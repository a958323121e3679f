"""What the autoencoder loses before any edit: its reconstruction beside the linear code of the same size.

    python -m asymlib.study.evaluation.reconstruction FIRST_STAGE PHOTOGRAPHS

prints the numbers of a first stage's card: PSNR on the held-out photographs of the folder it was trained on (128-px
crops at half scale), and on crops of the packaged photographs; for a vector-quantised one also the use of its codes.
"""

import argparse
import json
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL, VQModel

from asymlib import metrics
from asymlib.models.features import EffNetFeatures
from asymlib.models.first_stage import load_first_stage
from asymlib.pixels import centre_square, shrink, to_tensor
from asymlib.study.dataset.photographs import (
    Photograph,
    folder_photographs,
    packaged_photographs,
    readable_pixels,
)
from asymlib.study.training.codebook import code_shares, nearest_code, perplexity
from asymlib.study.training.pca import PatchPCA


@torch.no_grad()
def reconstruct(first_stage: AutoencoderKL | VQModel, image: torch.Tensor, batch: int = 8) -> torch.Tensor:
    """Encode (to the posterior's mean, or to the nearest codes) and decode (N, 3, H, W) in [-1, 1], clamped."""
    return torch.cat([first_stage(part).sample for part in image.split(batch)]).clamp(-1, 1)


@torch.no_grad()
def used_codes(first_stage: VQModel, image: torch.Tensor, batch: int = 8) -> tuple[int, float]:
    """How many codes the cells of (N, 3, H, W) in [-1, 1] use at all, and their perplexity."""
    codes = first_stage.quantize.embedding.weight
    parts = [nearest_code(first_stage.encode(part).latents, codes) for part in image.split(batch)]
    shares = code_shares(torch.cat(parts), len(codes))
    return int((shares > 0).sum()), perplexity(shares)


def psnr(image: torch.Tensor, image_hat: torch.Tensor) -> torch.Tensor:
    """PSNR in dB of each image, (N, 3, H, W) in [-1, 1] -> (N,)."""
    return -10 * torch.log10(((image_hat - image) / 2).square().mean((1, 2, 3)))


def reconstruction_rows(
    first_stage: AutoencoderKL | VQModel, pca: PatchPCA, pixels: torch.Tensor, table: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """One row per image and metric (psnr, effnet_distance) for `pca` and `vanilla`; see `tables.summarise`.

    Args:
        pixels: (N, 3, H, W) uint8.
        table: The images' rows of the manifest.
    """
    image, features, parts = to_tensor(pixels), EffNetFeatures(), []
    for variant, image_hat in {
        "pca": pca.decode(pca.encode(image)).clamp(-1, 1),
        "vanilla": reconstruct(first_stage, image),
    }.items():
        distance = metrics.effnet_distance((image + 1) / 2, (image_hat + 1) / 2, features)
        for metric, value in {"psnr": psnr(image, image_hat), "effnet_distance": distance}.items():
            parts.append(
                table[["stratum", "photograph"]].assign(
                    pair=table["image"],
                    mask_kind="all",
                    variant=variant,
                    seed=seed,
                    source="own",
                    metric=metric,
                    value=value.double().numpy(),
                )
            )
    return pd.concat(parts, ignore_index=True)


def card_numbers(first_stage: AutoencoderKL | VQModel, folder: str) -> dict[str, dict[str, float]]:
    """PSNR in dB, mean over images, of the linear code and the first stage; of a `VQModel` also the use of its codes.

    Args:
        first_stage: The frozen autoencoder.
        folder: The photographs of the bundled ones: every tenth, in the order of names, was held out of their training;
            the linear code is fitted on the others.
    """
    photographs, _ = folder_photographs(folder, smallest=256)
    packaged = [p for p in packaged_photographs() if p.split == "test"]
    held_out = photographs[::10]
    pca = PatchPCA(half_scale_crops(p for p in photographs if p not in held_out))
    numbers = {}
    for name, image in {
        "held-out photographs": half_scale_crops(held_out),
        "packaged photographs": half_scale_crops(packaged),
    }.items():
        linear = psnr(image, pca.decode(pca.encode(image)).clamp(-1, 1)).mean().item()
        ours = psnr(image, reconstruct(first_stage, image)).mean().item()
        numbers[name] = {"images": len(image), "pca": round(linear, 2), "first_stage": round(ours, 2)}
        if isinstance(first_stage, VQModel):
            used, spread = used_codes(first_stage, image)
            numbers[name] |= {"codes_used": used, "perplexity": round(spread, 1)}
    return numbers


def half_scale_crops(photographs: Iterable[Photograph], size: int = 128) -> torch.Tensor:
    """The central square of each photograph, resized to `size` px (half of a 256-px photograph): (N, 3, size, size)."""
    return to_tensor(np.stack([shrink(centre_square(i), size, size) for i in readable_pixels(photographs)]))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m asymlib.study.evaluation.reconstruction", description="Numbers of a card."
    )
    parser.add_argument("first_stage", help="folder of the first stage")
    parser.add_argument("photographs", help="folder of the photographs that it was trained on")
    arguments = parser.parse_args()
    print(json.dumps(card_numbers(load_first_stage(arguments.first_stage), arguments.photographs), indent=1))


if __name__ == "__main__":
    main()

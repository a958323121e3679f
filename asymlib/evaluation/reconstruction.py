"""What the autoencoder loses before any edit: its reconstruction beside the linear code of the same size."""

import pandas as pd
import torch
from diffusers import AutoencoderKL

from asymlib.data.images import to_tensor
from asymlib.data.latents import encode_means
from asymlib.evaluation import metrics
from asymlib.models.features import EffNetFeatures
from asymlib.models.pca import PatchPCA


@torch.no_grad()
def reconstruct(first_stage: AutoencoderKL, image: torch.Tensor, batch: int = 8) -> torch.Tensor:
    """Encode (posterior mean) and decode (N, 3, H, W) in [-1, 1], clamped."""
    latents = encode_means(first_stage, image, batch)
    return torch.cat([first_stage.decode(part).sample for part in latents.split(batch)]).clamp(-1, 1)


def psnr(image: torch.Tensor, image_hat: torch.Tensor) -> torch.Tensor:
    """PSNR in dB of each image, (N, 3, H, W) in [-1, 1] -> (N,)."""
    return -10 * torch.log10(((image_hat - image) / 2).square().mean((1, 2, 3)))


def reconstruction_rows(
    first_stage: AutoencoderKL, pca: PatchPCA, pixels: torch.Tensor, table: pd.DataFrame, seed: int
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

"""Train the latent inpainter: velocity prediction on the cached latents, conditioned on mask and masked latent."""

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from diffusers.training_utils import EMAModel
from torch.nn.functional import mse_loss
from tqdm.auto import tqdm

from asymlib.data.images import to_tensor
from asymlib.data.latents import encode_means
from asymlib.data.masks import training_masks
from asymlib.models.inpainter import LatentInpainter
from asymlib.training.checkpoints import ResumeState


def masked_latents(
    first_stage: AutoencoderKL, images: torch.Tensor, masks_per_image: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw official masks for the training images and encode what they leave.

    Args:
        first_stage: The frozen autoencoder.
        images: (N, 3, H, H) uint8.
        masks_per_image: How many masks each image gets.
        seed: Seed of the masks.

    Returns:
        For N x masks_per_image pairs: latent and masked latent (posterior means, not scaled) and mask.
    """
    image = to_tensor(images)
    latent = encode_means(first_stage, image).repeat(masks_per_image, 1, 1, 1)
    masks = training_masks(len(latent), images.shape[-1], 0.0, np.random.default_rng([seed, 7]))
    masked = [encode_means(first_stage, (1 - mask) * image) for mask in masks.split(len(image))]
    return latent, torch.cat(masked), masks


def train_inpainter(
    inpainter: LatentInpainter,
    latent: torch.Tensor,
    masked_latent: torch.Tensor,
    mask: torch.Tensor,
    settings,
    seed: int,
    resume_path: Path | None = None,
) -> list[dict]:
    """Train in place.

    Args:
        inpainter: From `LatentInpainter.build`; ends with the moving average of the weights.
        latent: (N, C, h, w), the encoder's means of the full images, not scaled.
        masked_latent: (N, C, h, w), of the masked images.
        mask: (N, 1, 8h, 8w), 1 = hole.
        settings: The `inpainter` section of params.yaml.
        seed: Seed of batches, noise and timesteps.
        resume_path: Where to keep what a killed run needs to continue.

    Returns:
        The curve: rows of {step, loss}, means over 50 steps.
    """
    unet = inpainter.unet.train()
    optimiser = torch.optim.Adam(unet.parameters(), lr=settings.lr)
    ema = EMAModel(unet.parameters(), decay=0.995)
    noising = DDPMScheduler.from_config(inpainter.scheduler.config)
    identity = {
        "settings": settings.model_dump(),
        "seed": seed,
        "data": hashlib.sha256(masked_latent.numpy().tobytes()).hexdigest(),
    }
    state = ResumeState(resume_path, identity, {"unet": unet, "ema": ema, "optimiser": optimiser})
    start, history = state.restore()
    losses: list[float] = []
    progress = tqdm(range(start, settings.steps), initial=start, total=settings.steps, desc="inpainter", mininterval=5)
    for step in progress:
        rng = np.random.default_rng([seed, 4, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        chosen = torch.from_numpy(rng.integers(0, len(latent), settings.batch))
        clean = latent[chosen] * inpainter.scaling_factor
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.randint(0, noising.config.num_train_timesteps, (len(clean),), generator=generator)
        noisy = noising.add_noise(clean, noise, t)
        condition = inpainter.condition(masked_latent[chosen], mask[chosen])
        loss = mse_loss(unet(torch.cat([noisy, condition], dim=1), t).sample, noising.get_velocity(clean, noise, t))
        optimiser.param_groups[0]["lr"] = (
            settings.lr * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        ema.step(unet.parameters())
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == settings.steps:
            history.append({"step": step + 1, "loss": float(np.mean(losses))})
            losses = []
            progress.set_postfix(loss=f"{history[-1]['loss']:.3f}")
        state.keep(step + 1, history)
    ema.copy_to(unet.parameters())
    unet.eval()
    state.clear()
    return history

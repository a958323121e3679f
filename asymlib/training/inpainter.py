"""Train the latent inpainter: velocity prediction on the cached latents, conditioned on mask and masked latent."""

import math
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from torch.nn.functional import mse_loss
from tqdm.auto import tqdm

from asymlib.models.inpainter import LatentInpainter
from asymlib.training.checkpoints import ResumeState


def train_inpainter(inpainter: LatentInpainter, latent: torch.Tensor, masked_latent: torch.Tensor, mask: torch.Tensor,
                    settings, seed: int, resume_path: Path | None = None, data_hash: str = "") -> list[dict]:
    """Train in place.

    Args:
        inpainter: From `LatentInpainter.build`; ends with the moving average of the weights.
        latent: (N, C, h, w), the encoder's means of the full images, not scaled.
        masked_latent: (N, C, h, w), of the masked images.
        mask: (N, 1, 8h, 8w), 1 = hole.
        settings: The `inpainter` section of params.yaml.
        seed: Seed of batches, noise and timesteps.
        resume_path: Where to keep what a killed run needs to continue.
        data_hash: Identity of the data.

    Returns:
        The curve: rows of {step, loss}, means over 50 steps.
    """
    unet = inpainter.unet.train()
    optimiser = torch.optim.Adam(unet.parameters(), lr=settings.lr)
    ema = EMAModel(unet.parameters(), decay=0.995)
    noising = DDPMScheduler.from_config(inpainter.scheduler.config)
    identity = {"settings": settings.model_dump(), "seed": seed, "data": data_hash}
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
        optimiser.param_groups[0]["lr"] = settings.lr * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
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

"""A small latent diffusion model for inpainting: Stable Diffusion's set-up, nine input channels, DDIM.

It gives the offline profiles latents that a diffusion model made, so that decoders meet holes that disagree with
their surroundings. It is not a good inpainter, and nothing here claims so.
"""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch.nn.functional import interpolate, pad


class LatentInpainter:
    """A UNet that predicts the velocity of a noisy latent from (latent, mask, masked latent), with its scheduler.

    Args:
        unet: `UNet2DModel` with 2 C + 1 input and C output channels.
        scheduler: DDIM with v-prediction.
        scaling_factor: Brings first-stage latents to unit variance.
    """

    def __init__(self, unet: UNet2DModel, scheduler: DDIMScheduler, scaling_factor: float) -> None:
        self.unet, self.scheduler, self.scaling_factor = unet, scheduler, scaling_factor

    @classmethod
    def build(
        cls, widths: tuple[int, ...], scaling_factor: float, seed: int, latent_channels: int = 4
    ) -> "LatentInpainter":
        """New weights; attention at the lowest resolution only."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            plain = len(widths) - 1
            unet = UNet2DModel(
                in_channels=2 * latent_channels + 1,
                out_channels=latent_channels,
                block_out_channels=tuple(widths),
                layers_per_block=1,
                norm_num_groups=8,
                attention_head_dim=16,
                down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
                up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
            )
        scheduler = DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            rescale_betas_zero_snr=True,
        )
        return cls(unet.eval(), scheduler, scaling_factor)

    @classmethod
    def load(cls, folder: str | Path) -> "LatentInpainter":
        """Load what `save` wrote.

        Raises:
            FileNotFoundError: The folder has no model.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"inpainter {folder} is missing; expected a folder with config.json, stage inpainter makes it"
            )
        unet = UNet2DModel.from_pretrained(folder, local_files_only=True).eval()
        return cls(unet, DDIMScheduler.from_pretrained(folder), unet.config.scaling_factor)

    def save(self, folder: str | Path) -> None:
        """Write config and safetensors in diffusers' layout."""
        self.unet.register_to_config(scaling_factor=self.scaling_factor)
        self.unet.save_pretrained(folder)
        self.scheduler.save_pretrained(folder)

    def condition(self, masked_latent: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The five conditioning channels: mask (N, 1, H, W) shrunk by nearest, and the masked image's latent."""
        small = interpolate(mask, size=masked_latent.shape[-2:], mode="nearest")
        return torch.cat([small, masked_latent * self.scaling_factor], dim=1)

    @torch.no_grad()
    def sample(self, masked_latent: torch.Tensor, mask: torch.Tensor, steps: int, seed: int) -> torch.Tensor:
        """Draw latents by DDIM (eta 0).

        Args:
            masked_latent: (N, C, h, w), the encoder's mean for (1 - mask) image, not scaled.
            mask: (N, 1, 8h, 8w), 1 = hole.
            steps: Number of DDIM steps.
            seed: Seed of the initial noise; image i uses (seed, i)'s noise whatever the batch.

        Returns:
            (N, C, h, w), not scaled: ready for a decoder.
        """
        condition = self.condition(masked_latent, mask)
        height, width = condition.shape[-2:]
        multiple = 2 ** (len(self.unet.config.block_out_channels) - 1)  # the UNet halves so often
        condition = pad(condition, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        shape = (masked_latent.shape[1], *condition.shape[-2:])
        seeds = [seed * 1_000_003 + i for i in range(len(masked_latent))]
        latent = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
        self.scheduler.set_timesteps(steps)
        for t in self.scheduler.timesteps:
            velocity = self.unet(torch.cat([latent, condition], dim=1), t).sample
            latent = self.scheduler.step(velocity, t, latent).prev_sample
        latent = latent[..., :height, :width]
        return latent / self.scaling_factor

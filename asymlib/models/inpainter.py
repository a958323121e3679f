"""A small latent diffusion model for inpainting: Stable Diffusion's nine input channels, a condition beside them, DDIM.

It gives the offline profiles latents that a diffusion model made, so that decoders meet holes that disagree with
their surroundings. It is not a good inpainter, and nothing here claims so. With a full mask it generates, and a prompt
or a reference tells it what the hole should hold.
"""

from pathlib import Path
from typing import get_args

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel, UNet2DModel
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch.nn.functional import interpolate, pad

from asymlib.files import written_folder
from asymlib.models.words import WORDS, encode_prompt

Denoiser = UNet2DModel | DiTTransformer2DModel
PATCH = 2  # cells a side that are one token of a transformer
SIDE = 16  # cells a side of what it is trained on


class LatentInpainter:
    """A network that predicts the velocity of a noisy latent from (latent, mask, masked latent, prompt, reference).

    The prompt is the words that describe the hole, the reference the mean and deviation of what should be in it; both
    are the same at every position, and all zeros where they are not given.

    Args:
        denoiser: `UNet2DModel` or `DiTTransformer2DModel` with 2 C + 1 + 6 + 2 C input and C output channels.
        scheduler: DDIM with v-prediction.
        scaling_factor: Brings first-stage latents to unit variance.
    """

    def __init__(self, denoiser: Denoiser, scheduler: DDIMScheduler, scaling_factor: float) -> None:
        self.denoiser, self.scheduler, self.scaling_factor = denoiser, scheduler, scaling_factor

    @property
    def channels(self) -> int:
        """Of a latent."""
        return self.denoiser.config.out_channels

    @property
    def device(self) -> torch.device:
        """Where it computes; what it is given is moved there."""
        return self.denoiser.device

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes."""
        return self.denoiser.dtype

    @classmethod
    def build(
        cls,
        widths: tuple[int, ...],
        scaling_factor: float,
        seed: int,
        latent_channels: int = 4,
        attention: int = 1,
        blocks: int | None = None,
    ) -> "LatentInpainter":
        """New weights: a UNet, or, with `blocks`, a transformer.

        Args:
            widths: Channels of each level of a UNet, the finest first; a transformer's one width, 64 for each head.
            scaling_factor: See the class.
            seed: Seed of the weights.
            latent_channels: C.
            attention: How many of a UNet's levels, from the coarsest, look at the whole picture at once.
            blocks: Of a transformer on patches of PATCH x PATCH cells, SIDE x SIDE cells in training; other sizes
                stretch its places.

        Source: Peebles and Xie 2023, "Scalable Diffusion Models with Transformers" (adaLN-Zero), without classes.
        """
        channels = {"in_channels": 2 * latent_channels + 1 + len(WORDS) + 2 * latent_channels}
        channels["out_channels"] = latent_channels
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if blocks:
                denoiser = DiTTransformer2DModel(
                    num_attention_heads=max(1, widths[0] // 64),
                    attention_head_dim=min(64, widths[0]),
                    num_layers=blocks,
                    sample_size=SIDE,
                    patch_size=PATCH,
                    num_embeds_ada_norm=1,
                    **channels,
                )
            else:
                plain = len(widths) - attention
                denoiser = UNet2DModel(
                    block_out_channels=tuple(widths),
                    layers_per_block=1,
                    norm_num_groups=8,
                    attention_head_dim=16,
                    down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",) * attention,
                    up_block_types=("AttnUpBlock2D",) * attention + ("UpBlock2D",) * plain,
                    **channels,
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
        return cls(denoiser.eval(), scheduler, scaling_factor)

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
        config = UNet2DModel.load_config(folder, local_files_only=True)
        scaling_factor = config.pop("scaling_factor")  # ours: diffusers would warn that it does not know it
        kind = {known.__name__: known for known in get_args(Denoiser)}[config["_class_name"]]
        with torch.random.fork_rng():  # not on the meta device: a transformer's places are no weights
            denoiser = kind.from_config(config)
        weights = load_file(folder / SAFETENSORS_WEIGHTS_NAME)  # what ships has half precision
        denoiser.load_state_dict({name: weight.float() for name, weight in weights.items()}, assign=True)
        return cls(denoiser.eval(), DDIMScheduler.from_pretrained(folder), scaling_factor)

    def save(self, folder: str | Path) -> None:
        """Write config and safetensors in diffusers' layout."""
        self.denoiser.register_to_config(scaling_factor=self.scaling_factor)
        with written_folder(Path(folder)) as temporary:
            self.denoiser.save_pretrained(temporary)
            self.scheduler.save_pretrained(temporary)

    def known(self, masked_latent: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(N, C + 1, h, w), what is known: mask (N, 1, H, W) shrunk by nearest, and the masked image's latent.

        With a full mask nothing is known and the latent's part is zero, so that generating needs no image.
        """
        masked_latent, mask = (tensor.to(self.device, self.dtype) for tensor in (masked_latent, mask))
        small = interpolate(mask, size=masked_latent.shape[-2:], mode="nearest")
        partial = (mask.amin((1, 2, 3), keepdim=True) < 1).to(masked_latent)
        return torch.cat([small, masked_latent * self.scaling_factor * partial], dim=1)

    def wish(
        self, count: int, prompt: list[str | None] | str | None = None, reference: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the hole should hold, as one vector for each image; what is not given is zero.

        Args:
            count: Number of images N.
            prompt: Words of `asymlib.models.words`, such as "red dark", or None; for all or for each image.
            reference: (N or 1, C, h, w), not scaled: the latent of the example that the hole should resemble.

        Returns:
            (N, 6 + 2 C).

        Raises:
            ValueError: An unknown word, or a number of words or references that is neither 1 nor N.
        """
        words = torch.stack([encode_prompt(p) for p in (prompt if isinstance(prompt, list) else [prompt])])
        if reference is None:
            statistics = torch.zeros(1, 2 * self.channels)
        else:
            statistics = latent_statistics(reference * self.scaling_factor, torch.ones_like(reference[:, :1]))
        for name, given in {"prompt": words, "reference": statistics}.items():
            if len(given) not in (1, count):
                raise ValueError(f"{name}: got {len(given)}, expected 1 or as many as the {count} images")
        words, statistics = (given.to(self.device, self.dtype) for given in (words, statistics))
        return torch.cat([words.expand(count, -1), statistics.expand(count, -1)], dim=1)

    def predict(
        self,
        latent: torch.Tensor,
        t: torch.Tensor,
        known: torch.Tensor,
        wish: torch.Tensor,
        guidance_scale: float = 1.0,
    ) -> torch.Tensor:
        """The velocity of noisy latents (N, C, h, w) at timesteps t (N,) or ().

        Args:
            latent: Noisy and scaled.
            t: Timestep.
            known: (N, C + 1, h, w), from `known`.
            wish: (N, 6 + 2 C), from `wish`.
            guidance_scale: 1 is the conditional prediction itself; above, the step from the prediction without a wish
                is made longer.

        Source: classifier-free guidance, Ho and Salimans 2022, eq. 6, in Stable Diffusion's parameterisation.
        """
        everywhere = wish[:, :, None, None].expand(-1, -1, *latent.shape[-2:])
        conditional = self._velocity(torch.cat([latent, known, everywhere], dim=1), t)
        if guidance_scale == 1:
            return conditional
        plain = self._velocity(torch.cat([latent, known, torch.zeros_like(everywhere)], dim=1), t)
        return plain + guidance_scale * (conditional - plain)

    def _velocity(self, seen: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if isinstance(self.denoiser, UNet2DModel):
            return self.denoiser(seen, t).sample
        height, width = seen.shape[-2:]
        side = max(height, width)  # diffusers' transformer knows squares alone
        square = pad(seen, (0, side - width, 0, side - height), mode="replicate")
        no_class = torch.zeros(len(seen), dtype=torch.long, device=seen.device)
        return self.denoiser(square, t.expand(len(seen)), no_class).sample[..., :height, :width]

    @property
    def multiple(self) -> int:
        """Of which a latent's sides have to be: a UNet halves them level by level, a transformer cuts patches."""
        if isinstance(self.denoiser, UNet2DModel):
            return 2 ** (len(self.denoiser.config.block_out_channels) - 1)
        return self.denoiser.config.patch_size

    @torch.no_grad()
    def sample(
        self,
        masked_latent: torch.Tensor,
        mask: torch.Tensor,
        steps: int,
        seed: int,
        prompt: list[str | None] | str | None = None,
        reference: torch.Tensor | None = None,
        guidance_scale: float = 1.0,
        keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Draw latents by DDIM (eta 0).

        Args:
            masked_latent: (N, C, h, w), the encoder's mean for (1 - mask) image, not scaled.
            mask: (N, 1, 8h, 8w), 1 = hole.
            steps: Number of DDIM steps.
            seed: Seed of the initial noise; image i uses (seed, i)'s noise whatever the batch.
            prompt: See `wish`.
            reference: See `wish`.
            guidance_scale: See `predict`.
            keep: (N, C, h, w), not scaled: the whole image's latent, whose known cells are put back at every step with
                that step's noise, and at the end without. By default the known cells are as the model leaves them.

        Returns:
            (N, C, h, w), not scaled: ready for a decoder.

        Source: `keep` is what diffusers' `StableDiffusionInpaintPipeline` does for models of four input channels
            (blended latent diffusion, Avrahami et al. 2022).
        """
        known = self.known(masked_latent, mask)
        wish = self.wish(len(known), prompt, reference)
        height, width = known.shape[-2:]
        edge = (0, -width % self.multiple, 0, -height % self.multiple)
        known = pad(known, edge, mode="replicate")
        drawn = noise(len(known), (masked_latent.shape[1], *known.shape[-2:]), seed).to(known)
        if keep is not None:
            keep = pad(keep.to(known) * self.scaling_factor, edge, mode="replicate")
        self.scheduler.set_timesteps(steps)
        latent, timesteps = drawn, self.scheduler.timesteps
        for t, following in zip(timesteps, [*timesteps[1:], None], strict=True):
            velocity = self.predict(latent, t, known, wish, guidance_scale)
            latent = self.scheduler.step(velocity, t, latent).prev_sample
            if keep is not None:
                noised = keep if following is None else self.scheduler.add_noise(keep, drawn, following)
                latent = torch.where(known[:, :1] > 0, latent, noised)
        latent = latent[..., :height, :width]
        return latent / self.scaling_factor


def noise(count: int, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """(count, *shape) of unit variance; item i depends on (seed, i) alone."""
    return torch.stack([torch.randn(shape, generator=generator_of(seed, i)) for i in range(count)])


def generator_of(seed: int, i: int) -> torch.Generator:
    """The randomness of item i, whatever the batch."""
    return torch.Generator().manual_seed(seed * 1_000_003 + i)


def latent_statistics(latent: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation of each channel over a region; zeros where it is empty.

    Args:
        latent: (N, C, h, w).
        region: (N, 1, h, w), 1 = counted.

    Returns:
        (N, 2 C).
    """
    area = region.sum((2, 3)).clamp(min=1)
    mean = (latent * region).sum((2, 3)) / area
    variance = ((latent - mean[:, :, None, None]).square() * region).sum((2, 3)) / area
    return torch.cat([mean, variance.sqrt()], dim=1)

"""The frozen first stage: a small KL autoencoder in diffusers' `AutoencoderKL` layout, f = 8 and four latent channels.

It plays the part of Stable Diffusion's autoencoder: one attention in the middle, widths c, 2c, 4c, 4c, GroupNorm and
SiLU, scaled to a few million parameters. Here it is only built and loaded; `training.first_stage`
trains it.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL


def build_first_stage(width: int, layers: int, groups: int, seed: int = 0) -> AutoencoderKL:
    """A new autoencoder with random weights.

    Args:
        width: Channels c at full resolution; the four levels have c, 2c, 4c and 4c.
        layers: ResBlocks per encoder level; the decoder has one more, as in Stable Diffusion.
        groups: Groups of every GroupNorm; must divide c.
        seed: Seed of the initial weights.

    Raises:
        ValueError: `groups` does not divide `width`.
    """
    if width % groups:
        raise ValueError(f"groups: got {groups}, expected a divisor of width {width}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(width, 2 * width, 4 * width, 4 * width),
            layers_per_block=layers,
            latent_channels=4,
            norm_num_groups=groups,
            sample_size=256,
            scaling_factor=1.0,
        )


def load_first_stage(path: str | Path) -> AutoencoderKL:
    """Load a frozen first stage from a folder that `save_pretrained` wrote; eval mode, no gradients.

    Raises:
        FileNotFoundError: The folder has no config.json.
    """
    if not (Path(path) / "config.json").is_file():
        raise FileNotFoundError(f"first stage {path} is missing; expected a folder with config.json, assets/ ships one")
    return AutoencoderKL.from_pretrained(path, local_files_only=True).eval().requires_grad_(False)

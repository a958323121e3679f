"""The frozen first stage: a small KL autoencoder in diffusers' `AutoencoderKL` layout, f = 8 and four latent channels.

It plays the part of Stable Diffusion's autoencoder: one attention in the middle, widths c, 2c, 4c, 4c, GroupNorm and
SiLU, scaled to a few million parameters. Here it is only built and loaded; `training.first_stage`
trains it.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import Decoder
from torch import nn


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


@torch.no_grad()
def normalise_stream(decoder: Decoder, latents: torch.Tensor) -> None:
    """Bring the decoder's residual stream to unit deviation at the entry of every level; its function stays the same.

    What the decoder computes does not depend on the scale of the stream, since a GroupNorm stands before everything
    that reads it, and training may let it grow without bound (to 170 in the bundled first stage). But a condition
    branch replaces the stream by features of its own, whose untrained scale is below one: against such a stream it is
    silent for thousands of steps.

    Args:
        decoder: diffusers' `Decoder`, changed in place.
        latents: (N, C, h, w), what the decoder's first convolution gets.
    """
    entries = []
    hooks = [
        b.register_forward_pre_hook(lambda _, args: entries.append(float(args[0].std()))) for b in decoder.up_blocks
    ]
    decoder(latents)
    for hook in hooks:
        hook.remove()
    scales = [1 / deviation for deviation in entries]
    _scale(decoder.conv_in, scales[0], scales[0])
    for resnet in decoder.mid_block.resnets:
        _scale(resnet.conv2, scales[0], scales[0])
    for attention in decoder.mid_block.attentions:
        _scale(attention.to_out[0], scales[0], scales[0])
    for level, (block, scale) in enumerate(zip(decoder.up_blocks, scales, strict=True)):
        for resnet in block.resnets:
            _scale(resnet.conv2, scale, scale)
            if resnet.conv_shortcut is not None:  # linear in the stream: only its bias adds to it
                _scale(resnet.conv_shortcut, 1, scale)
        for upsampler in block.upsamplers or []:
            _scale(upsampler.conv, scales[level + 1] / scale, scales[level + 1])


def _scale(layer: nn.Module, weight: float, bias: float) -> None:
    layer.weight.mul_(weight)
    layer.bias.mul_(bias)


def load_first_stage(path: str | Path) -> AutoencoderKL:
    """Load a frozen first stage from a folder that `save_pretrained` wrote; eval mode, no gradients.

    Raises:
        FileNotFoundError: The folder has no config.json.
    """
    if not (Path(path) / "config.json").is_file():
        raise FileNotFoundError(f"first stage {path} is missing; expected a folder with config.json, assets/ ships one")
    return AutoencoderKL.from_pretrained(path, local_files_only=True).eval().requires_grad_(False)


def fetch_first_stage(repository: str, revision: str, home: str | Path) -> None:
    """Copy the autoencoder of a diffusion pipeline on the hub to a folder, where `load_first_stage` finds it.

    Args:
        repository: Such as `stable-diffusion-v1-5/stable-diffusion-v1-5`; the autoencoder lies in its folder `vae`.
        revision: Its commit.
        home: Where to.

    Raises:
        FileNotFoundError: It cannot be had; the message says what may be the matter.
    """
    try:
        first_stage = AutoencoderKL.from_pretrained(repository, revision=revision, subfolder="vae")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise FileNotFoundError(
            f"first stage: got {repository!r} at revision {revision!r}, which cannot be read ({reason}); expected an "
            "existing repository and revision, and a network"
        ) from error
    first_stage.save_pretrained(home)

"""Put an asymmetric decoder on a frozen first stage, whichever of diffusers' autoencoders it is."""

import logging
import math

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel

from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.first_stage import FirstStage
from asymlib.models.widening import widen_decoder

logger = logging.getLogger(__name__)

# width and depth (ResBlocks per level) of the official variants relative to the vanilla decoder.
# Official: 3, 4 and 6 blocks a level, of widths 128, 192 and 256; the bundled first stage has 2, hence 2, 3 and 4.
SCALES = {"base": (1.0, 1.0), "large_1.5x": (1.5, 4 / 3), "large_2x": (2.0, 2.0)}


def asymmetric_vqgan(
    first_stage: FirstStage,
    width: int | None = None,
    blocks: int | None = None,
    branch: bool = True,
    inherit: bool | str = True,
    seed: int = 0,
    condition: dict | None = None,
) -> AsymmetricVQGAN:
    """Put an asymmetric decoder on a frozen first stage, whose config says everything else.

    Args:
        first_stage: The autoencoder of which everything but the decoder is copied bit for bit.
        width: Channels of the decoder at full resolution; the other levels keep the vanilla decoder's proportions. None
            for the vanilla decoder's.
        blocks: ResBlocks per decoder level; None for the vanilla decoder's.
        branch: Whether there is a condition branch.
        inherit: Start from the vanilla decoder's weights (officially the base; 1.5x and 2x start from scratch): those
            that fit, or with `widen` all of them, see `widen_decoder`.
        seed: Seed of the new weights.
        condition: Where the branch differs from the paper's, the arguments of `Condition`.

    Raises:
        ValueError: There is no vanilla decoder of this layout to inherit from, the first stage is of another kind, or a
            condition is given without a branch.
    """
    config = first_stage.config
    widths, vanilla_blocks = vanilla_size(first_stage)
    width, blocks = width or widths[0], blocks or vanilla_blocks
    if inherit and isinstance(first_stage, AutoencoderTiny):
        raise ValueError("inherit: got an AutoencoderTiny, whose decoder has another layout; expected inherit=False")
    if config.get("norm_type", "group") != "group":
        raise ValueError(
            f"first_stage: got norm_type {config.norm_type!r}, expected 'group' (others read the code at every level)"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vqgan = AsymmetricVQGAN(
            **_encoder_config(first_stage),
            up_block_types=config.get("up_block_types", ("UpDecoderBlock2D",) * len(widths)),
            up_block_out_channels=tuple(w * width // widths[0] for w in widths),
            layers_per_up_block=blocks - 1,
            latent_channels=config.latent_channels,
            norm_num_groups=config.get("norm_num_groups", math.gcd(32, width)),
            scaling_factor=config.scaling_factor,
            # SD 1's config has no such key; the class fills in True
            force_upcast=config.force_upcast and "force_upcast" not in config.get("_use_default_values", []),
            branch=branch,
            condition=condition,
        )
    for name, part in vqgan.frozen_parts.items():
        part.load_state_dict(getattr(first_stage, name).state_dict())
    if inherit == "widen":
        widen_decoder(vqgan.decoder, first_stage.decoder, vqgan.config.norm_num_groups, seed)
    elif inherit:
        left = inherit_decoder(vqgan, first_stage)
        if left:
            logger.warning("%d tensors of the decoder are not inherited, %s the first of them", len(left), left[0])
    return vqgan.eval()


def inherit_decoder(vqgan: AsymmetricVQGAN, first_stage: FirstStage) -> list[str]:
    """Copy every tensor of the vanilla decoder that has a place of its name and shape.

    Returns:
        Names of the decoder's tensors that keep their new weights, the branch's aside.
    """
    own = vqgan.decoder.state_dict()
    fitting = {k: v for k, v in first_stage.decoder.state_dict().items() if k in own and own[k].shape == v.shape}
    vqgan.decoder.load_state_dict(own | fitting)
    return [k for k in own if k not in fitting and not k.startswith("condition_encoder")]


def vanilla_size(first_stage: FirstStage) -> tuple[tuple[int, ...], int]:
    """Channels by level (full resolution first) and ResBlocks per level of the first stage's own decoder.

    A tiny autoencoder's decoder has another layout; it gets Stable Diffusion's, with its own channels at full
    resolution.

    Raises:
        ValueError: It is not an AutoencoderKL, VQModel or AutoencoderTiny.
    """
    if isinstance(first_stage, AutoencoderTiny):
        c = first_stage.config.decoder_block_out_channels[0]
        return (c, 2 * c, 4 * c, 4 * c), 3
    if not isinstance(first_stage, AutoencoderKL | VQModel):
        raise ValueError(
            f"first_stage: got {type(first_stage).__name__}, expected AutoencoderKL, VQModel or AutoencoderTiny"
        )
    return tuple(first_stage.config.block_out_channels), first_stage.config.layers_per_block + 1


def scaled_size(first_stage: FirstStage, scale: str | tuple[float, float]) -> tuple[int, int]:
    """Width and ResBlocks per level of a name in SCALES, or of factors on the first stage's own decoder."""
    widths, blocks = vanilla_size(first_stage)
    width, depth = SCALES[scale] if isinstance(scale, str) else scale
    return int(widths[0] * width), round(blocks * depth)


def _encoder_config(first_stage: FirstStage) -> dict:
    """How the frozen part is described: by Stable Diffusion's few numbers where they are enough, else whole."""
    config = first_stage.config
    of_stable_diffusion = (
        isinstance(first_stage, AutoencoderKL)
        and config.use_quant_conv
        and config.use_post_quant_conv
        and config.mid_block_add_attention
        and not config.shift_factor
        and config.latents_mean is None
    )
    if not of_stable_diffusion:
        return {
            "first_stage": {k: v for k, v in config.items() if k != "_name_or_path"}
            | {"_class_name": type(first_stage).__name__}
        }
    return {
        "down_block_types": config.down_block_types,
        "down_block_out_channels": tuple(config.block_out_channels),
        "layers_per_down_block": config.layers_per_block,
    }

"""Read and write the official checkpoints (base, 1.5x, 2x), whose layout is that of latent-diffusion's autoencoder.

Nothing in a file is executed: it is read with `weights_only=True`. What is not needed is dropped by name (the dead
`up_layers`, the loss with its discriminator and LPIPS, a moving average); what is not known is refused.
"""

import logging
import re
from pathlib import Path

import torch

from asymlib.models.decoder import AsymmetricVQGAN

logger = logging.getLogger(__name__)

# latent-diffusion's name of a module, and diffusers'; levels of the decoder are counted from the other end
NAMES = [
    (r"^(en|de)coder\.mid_block\.resnets\.0\.", r"\1coder.mid.block_1."),
    (r"^(en|de)coder\.mid_block\.resnets\.1\.", r"\1coder.mid.block_2."),
    (r"^(en|de)coder\.mid_block\.attentions\.0\.group_norm\.", r"\1coder.mid.attn_1.norm."),
    (r"^(en|de)coder\.mid_block\.attentions\.0\.to_([qkv])\.", r"\1coder.mid.attn_1.\2."),
    (r"^(en|de)coder\.mid_block\.attentions\.0\.to_out\.0\.", r"\1coder.mid.attn_1.proj_out."),
    (r"^encoder\.down_blocks\.(\d+)\.resnets\.", r"encoder.down.\1.block."),
    (r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample."),
    (r"^decoder\.up_blocks\.(\d+)\.resnets\.", r"decoder.up.\1.block."),
    (r"^decoder\.up_blocks\.(\d+)\.upsamplers\.0\.", r"decoder.up.\1.upsample."),
    (r"^decoder\.condition_encoder\.", r"decoder.encoder."),
    (r"\.conv_norm_out\.", r".norm_out."),
    (r"\.conv_shortcut\.", r".nin_shortcut."),
]
GROUPS = "norm_num_groups"
DROPPED = re.compile(r"^(decoder\.up_layers\.|loss\.|model_ema\.)")


class _Callback:
    """Stands in for Lightning's callback, a class by which the official files name a part that we do not read."""


def official_name(name: str, levels: int) -> str:
    """The official name of one of our tensors.

    >>> official_name("decoder.up_blocks.0.resnets.1.conv_shortcut.weight", 4)
    'decoder.up.3.block.1.nin_shortcut.weight'
    """
    for ours, official in NAMES:
        name = re.sub(ours, official, name)
    return re.sub(r"^decoder\.up\.(\d+)\.", lambda m: f"decoder.up.{levels - 1 - int(m[1])}.", name)


def load_official(path: str | Path, norm_num_groups: int | None = None) -> AsymmetricVQGAN:
    """Read an official `.ckpt`; sizes are those of its tensors.

    Args:
        path: A file with a `state_dict` (as Lightning writes it), or the state dict itself.
        norm_num_groups: Groups of every GroupNorm, the one size that no tensor shows; by default what `save_official`
            wrote into the file, or 32 as officially.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds more than tensors and plain values, lacks a tensor, or has one that is not known.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: got {path}, which is not there; expected an official .ckpt file")
    callback = (_Callback, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
    try:
        with torch.serialization.safe_globals([callback]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds
        reason = str(error).splitlines()[0]
        raise ValueError(f"path: got {path}, expected a file that loads with weights_only=True ({reason})") from None
    official = content.get("state_dict", content) if isinstance(content, dict) else {}
    dropped = sorted(k for k in official if DROPPED.match(k))
    if dropped:
        parts = sorted({".".join(k.split(".")[: 2 if k.startswith("decoder") else 1]) for k in dropped})
        logger.info("%s: %d tensors are not needed and dropped: %s", path.name, len(dropped), ", ".join(parts))
    official = {k: v for k, v in official.items() if k not in dropped}
    if norm_num_groups is None:
        norm_num_groups = content.get(GROUPS, 32)

    with torch.device("meta"):
        vqgan = AsymmetricVQGAN(**_sizes(official, path), norm_num_groups=norm_num_groups)
    levels = len(vqgan.config.up_block_out_channels)
    names = {official_name(k, levels): k for k in vqgan.state_dict()}
    for title, wrong in (("lacks", names.keys() - official), ("has the unknown", official.keys() - names)):
        if wrong:
            raise ValueError(f"path: got {path}, which {title} {sorted(wrong)[0]!r} (and {len(wrong) - 1} more)")
    shapes = {k: v.shape for k, v in vqgan.state_dict().items()}
    tensors = {ours: official[k].reshape(shapes[ours]).float() for k, ours in names.items()}
    vqgan.load_state_dict(tensors, assign=True)
    for module in vqgan.frozen_parts.values():
        module.requires_grad_(False)
    return vqgan.eval()


def official_state_dict(vqgan: AsymmetricVQGAN) -> dict[str, torch.Tensor]:
    """Our tensors by their official names, attention weights as the 1 x 1 convolutions that they are there.

    The dead `up_layers` are not made up: the official code loads with strict=False.

    Raises:
        ValueError: The first stage is not Stable Diffusion's, whose layout alone has official names.
    """
    if vqgan.config.first_stage is not None:
        name = vqgan.config.first_stage["_class_name"]
        raise ValueError(f"first_stage: got an {name}, expected Stable Diffusion's, the only official one")
    levels = len(vqgan.config.up_block_out_channels)
    official = {official_name(k, levels): v for k, v in vqgan.state_dict().items()}
    return {k: v[:, :, None, None] if ".attn_1." in k and v.ndim == 2 else v for k, v in official.items()}


def save_official(vqgan: AsymmetricVQGAN, path: str | Path) -> None:
    """Write a `.ckpt` that the official code reads; beside the tensors the groups of its norms, which it has fixed."""
    torch.save({"state_dict": official_state_dict(vqgan), GROUPS: vqgan.config.norm_num_groups}, path)


def _sizes(official: dict[str, torch.Tensor], path: Path) -> dict:
    """The constructor's arguments that the tensors show."""

    def widths(part: str) -> tuple[int, ...]:
        found = {}
        for key, value in official.items():
            match = re.match(rf"{part}\.(\d+)\.block\.0\.conv1\.weight$", key)
            if match:
                found[int(match[1])] = value.shape[0]
        return tuple(found[i] for i in sorted(found))

    def blocks(part: str) -> int:
        return sum(bool(re.match(rf"{part}\.0\.block\.\d+\.conv1\.weight$", k)) for k in official)

    down, up = widths("encoder.down"), widths("decoder.up")
    if not down or not up or "post_quant_conv.weight" not in official:
        raise ValueError(f"path: got {path}, expected a state dict with encoder.*, decoder.* and post_quant_conv.*")
    return {
        "down_block_types": ("DownEncoderBlock2D",) * len(down),
        "down_block_out_channels": down,
        "layers_per_down_block": blocks("encoder.down"),
        "up_block_types": ("UpDecoderBlock2D",) * len(up),
        "up_block_out_channels": up,
        "layers_per_up_block": blocks("decoder.up") - 1,
        "latent_channels": official["post_quant_conv.weight"].shape[0],
        "branch": "decoder.encoder.layers.0.weight" in official,
    }

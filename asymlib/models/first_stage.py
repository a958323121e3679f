"""The frozen first stage: a small autoencoder with f = 8 and four latent channels, in diffusers' layout.

It is a KL autoencoder (`AutoencoderKL`) or a vector-quantised one (`VQModel`), alike in everything but the bottleneck.
It plays the part of Stable Diffusion's autoencoder: one attention in the middle, widths c, 2c, 4c, 4c, GroupNorm and
SiLU, scaled to a few million parameters. Here it is only built and loaded; `asymlib.study.training` trains it.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from diffusers.models.autoencoders.vae import Decoder
from torch import nn

from asymlib.fetching import fetching
from asymlib.files import save_pretrained

NO_VARIANCE = -30.0  # a log-variance, the least that diffusers' Gaussian has
CLASSES = {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel, "AutoencoderTiny": AutoencoderTiny}
FirstStage = AutoencoderKL | AutoencoderTiny | VQModel
PRETRAINED = Path(__file__).parents[1] / "pretrained"


def build_first_stage(
    width: int, layers: int, groups: int, seed: int = 0, codes: int | None = None
) -> AutoencoderKL | VQModel:
    """A new autoencoder with random weights.

    Args:
        width: Channels c at full resolution; the four levels have c, 2c, 4c and 4c.
        layers: ResBlocks per encoder level; the decoder has one more, as in Stable Diffusion.
        groups: Groups of every GroupNorm; must divide c.
        seed: Seed of the initial weights.
        codes: Entries of the codebook of a `VQModel`; None for an `AutoencoderKL`.

    Raises:
        ValueError: `groups` does not divide `width`.
    """
    if width % groups:
        raise ValueError(f"groups: got {groups}, expected a divisor of width {width}")
    layout = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (width, 2 * width, 4 * width, 4 * width),
        "layers_per_block": layers,
        "latent_channels": 4,
        "norm_num_groups": groups,
        "sample_size": 256,
        "scaling_factor": 1.0,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoencoderKL(**layout) if codes is None else VQModel(**layout, num_vq_embeddings=codes, vq_embed_dim=4)


@torch.no_grad()
def inherit_first_stage(model: AutoencoderKL | VQModel, start: AutoencoderKL) -> None:
    """Start from a trained KL autoencoder; a `VQModel` gets the posterior's mean as its latent, before quantisation.

    The KL encoder ends in 2C channels and a 1 x 1 convolution, of which the mean is the first half: both together are
    one convolution, which becomes the encoder's last, and `quant_conv` starts as the identity.

    Raises:
        ValueError: `start` is no KL autoencoder, or the two differ in width or depth.
    """
    if not isinstance(start, AutoencoderKL):
        raise ValueError(f"start: got a {type(start).__name__}, expected an AutoencoderKL")
    ours, theirs = (
        [tuple(m.config.block_out_channels), m.config.layers_per_block, m.config.norm_num_groups]
        for m in (model, start)
    )
    if ours != theirs:
        raise ValueError(f"start: got widths, layers and groups {theirs}, expected the new model's {ours}")
    weights = start.state_dict()
    if isinstance(model, VQModel):
        mix = weights.pop("quant_conv.weight").flatten(1)[: model.config.latent_channels]
        shift = weights.pop("quant_conv.bias")[: model.config.latent_channels]
        last = "encoder.conv_out"
        weights[f"{last}.bias"] = mix @ weights[f"{last}.bias"] + shift
        weights[f"{last}.weight"] = torch.einsum("om,mchw->ochw", mix, weights[f"{last}.weight"])
        weights["quant_conv.weight"] = torch.eye(len(mix))[:, :, None, None]
        weights["quant_conv.bias"] = torch.zeros(len(mix))
        weights["quantize.embedding.weight"] = model.quantize.embedding.weight
    model.load_state_dict(weights)


def decoder_input(autoencoder: nn.Module, latent: torch.Tensor) -> torch.Tensor:
    """What an autoencoder of diffusers, or an `AsymmetricVQGAN`, makes of a latent before its decoder."""
    if getattr(autoencoder, "quantize", None) is not None:
        latent = autoencoder.quantize(latent)[0]
    if getattr(autoencoder, "post_quant_conv", None) is not None:
        latent = autoencoder.post_quant_conv(latent)
    return latent


def computing_type(autoencoder: nn.Module) -> torch.dtype:
    """The type that an autoencoder computes in: its own, or float32, to which it is brought, where half precision
    overflows in it: where its file says `force_upcast`, as SDXL's does; diffusers' default says it of all."""
    told = "force_upcast" not in autoencoder.config.get("_use_default_values", [])
    if told and autoencoder.config.get("force_upcast") and autoencoder.dtype == torch.float16:
        autoencoder.to(torch.float32)
    return autoencoder.dtype


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


def pretrained(name: str) -> Path:
    """The folder of weights that ship with the package, such as `first_stage` or `first_stage_vq`; a card is in it.

    Raises:
        FileNotFoundError: None of that name ships.
    """
    folder = PRETRAINED / name
    if not (folder / "config.json").is_file():
        shipped = ", ".join(sorted(path.parent.name for path in PRETRAINED.glob("*/config.json")))
        raise FileNotFoundError(f"name: got {name!r}, expected one of {shipped}, which ship with the package")
    return folder


def load_first_stage(path: str | Path = PRETRAINED / "first_stage") -> FirstStage:
    """Load a frozen first stage from a folder that `save_pretrained` wrote; eval mode, no gradients.

    Args:
        path: The folder; by default the small KL autoencoder that ships with the package.

    Raises:
        FileNotFoundError: The folder has no config.json.
        ValueError: Its config.json names another class.
    """
    config = Path(path) / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"first stage {path} is missing; expected a folder with config.json")
    name = json.loads(config.read_text()).get("_class_name")
    if name not in CLASSES:
        raise ValueError(f"first stage {path}: got a {name}, expected one of {', '.join(CLASSES)}")
    return CLASSES[name].from_pretrained(path, local_files_only=True).eval().requires_grad_(False)


def without_variance(latent: torch.Tensor) -> torch.Tensor:
    """The moments of a latent that is no distribution, of a VQ or tiny autoencoder: (N, C, h, w) -> (N, 2C, h, w)."""
    return torch.cat([latent, torch.full_like(latent, NO_VARIANCE)], dim=1)


@torch.no_grad()
def encode_moments(first_stage: FirstStage, image: torch.Tensor, batch: int = 32) -> torch.Tensor:
    """Posterior moments of (N, 3, H, W) images in [-1, 1]: (N, 2C, H/8, W/8), on the images' device.

    The encoder of a VQ or a tiny autoencoder gives one latent: its posterior has the least variance there is.
    """
    parts = []
    for encoded in (first_stage.encode(part.to(first_stage.device)) for part in image.split(batch)):
        if hasattr(encoded, "latent_dist"):
            parts.append(encoded.latent_dist.parameters)
        else:
            parts.append(without_variance(encoded.latents))
    return torch.cat(parts).to(image.device)


def encode_means(first_stage: FirstStage, image: torch.Tensor, batch: int = 32) -> torch.Tensor:
    """Posterior means of (N, 3, H, W) images in [-1, 1]: (N, C, H/8, W/8), not scaled."""
    return encode_moments(first_stage, image, batch).chunk(2, dim=1)[0]


def find_first_stage(name: str, home: str | Path, revision: str = "main", subfolder: str = "") -> FirstStage:
    """Load a first stage from wherever it is.

    Args:
        name: A folder, a name that ships, or a repository on the hub.
        home: Where one from the hub is kept; what is there is not fetched again.
        revision: Its commit, on the hub.
        subfolder: See `fetch_first_stage`.

    Raises:
        FileNotFoundError, ValueError: See `fetch_first_stage` and `load_first_stage`.
    """
    if Path(name).is_dir():
        return load_first_stage(name)
    if (PRETRAINED / name / "config.json").is_file():
        return load_first_stage(PRETRAINED / name)
    if not (Path(home) / "config.json").is_file():
        fetch_first_stage(name, revision, subfolder, home)
    return load_first_stage(home)


def fetch_first_stage(repository: str, revision: str, subfolder: str, home: str | Path) -> None:
    """Copy the autoencoder of a diffusion pipeline on the hub to a folder, where `load_first_stage` finds it.

    Args:
        repository: Such as `stable-diffusion-v1-5/stable-diffusion-v1-5`.
        revision: Its commit.
        subfolder: Where in it the autoencoder lies, `vae` in a pipeline, empty where it is alone.
        home: Where to.

    Raises:
        FileNotFoundError: It cannot be had; the message says what may be the matter.
    """
    with fetching("first stage", repository, revision, "an existing repository and revision, and a network"):
        where = {"revision": revision, "subfolder": subfolder}
        name = AutoencoderKL.load_config(repository, **where).get("_class_name")
        if name not in CLASSES:
            raise ValueError(f"it holds a {name}, not one of {', '.join(CLASSES)}")
        first_stage = CLASSES[name].from_pretrained(repository, **where)
    save_pretrained(first_stage, home)

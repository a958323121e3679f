"""The asymmetric VQGAN: a frozen encoder, and a decoder that is told the known pixels.

The decoder is diffusers' own `Decoder` with a five-layer condition branch beside it. Before every level, and once more
before the last normalisation, known cells of the trunk are *replaced* by the branch's features; the hole keeps the
trunk's. Without a condition it is the plain decoder, with the same weights.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Decoder, DiagonalGaussianDistribution, Encoder
from torch import nn
from torch.nn.functional import interpolate, pad

from asymlib.data.masks import normalise_mask

# width and depth (ResBlocks per level) of the official variants relative to the vanilla decoder.
# Official: 3, 4 and 6 blocks a level, of widths 128, 192 and 256; the bundled first stage has 2, hence 2, 3 and 4.
SCALES = {"base": (1.0, 1.0), "large_1.5x": (1.5, 4 / 3), "large_2x": (2.0, 2.0)}


class ConditionBranch(nn.Module):
    """Five plain convolutions over the masked image; features are taken before the ReLU.

    Args:
        width: Channels c of the first layer; the five layers have c, 2c, 4c, 4c and 4c.
        colours: Channels of the image.

    Source: official `my_decoder.py`, class `Conditionencoder`.
    """

    def __init__(self, width: int, colours: int = 3) -> None:
        super().__init__()
        channels = [colours, width, 2 * width, 4 * width, 4 * width, 4 * width]
        shapes = [(3, 1), (3, 1), (4, 2), (4, 2), (4, 2)]  # kernel, stride
        self.layers = nn.ModuleList(
            nn.Conv2d(channels[i], channels[i + 1], kernel, stride, padding=1)
            for i, (kernel, stride) in enumerate(shapes)
        )

    def forward(self, masked_image: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) -> features at /1, /1, /2, /4 and /8, in that order."""
        features, h = [], masked_image
        for layer in self.layers:
            features.append(layer(h))
            h = torch.relu(features[-1])
        return features


def blend(trunk: torch.Tensor, feature: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Keep the trunk in the hole and take the branch's feature elsewhere: h m + f (1 - m).

    Args:
        trunk: (N, C, h, w).
        feature: (N, C, h, w).
        mask: (N, 1, H, W), 1 = hole; shrunk to (h, w) by taking each cell's top-left pixel, as officially.
    """
    mask = interpolate(mask, size=trunk.shape[-2:], mode="nearest")
    return trunk * mask + feature * (1 - mask)


class AsymmetricDecoder(Decoder):
    """diffusers' `Decoder` with an optional condition branch.

    Args:
        latent_channels: Channels of the latent.
        width: Channels c at full resolution; levels have 4c, 4c, 2c and c, lowest resolution first.
        blocks: ResBlocks per level.
        groups: Groups of every GroupNorm.
        branch: Whether there is a condition branch.
    """

    def __init__(self, latent_channels: int, width: int, blocks: int, groups: int, branch: bool) -> None:
        super().__init__(
            in_channels=latent_channels,
            out_channels=3,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(width, 2 * width, 4 * width, 4 * width),
            layers_per_block=blocks - 1,
            norm_num_groups=groups,
        )
        self.condition_branch = ConditionBranch(width) if branch else None

    def forward(
        self, latent: torch.Tensor, image: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(N, C, h, w), with image (N, 3, 8h, 8w) in [-1, 1] and mask (N, 1, 8h, 8w) or neither -> (N, 3, 8h, 8w)."""
        h = self.mid_block(self.conv_in(latent))
        if image is None or self.condition_branch is None:
            for up_block in self.up_blocks:
                h = up_block(h)
        else:
            full, *features = self.condition_branch((1 - mask) * image)
            for up_block, feature in zip(self.up_blocks, reversed(features), strict=True):
                h = up_block(blend(h, feature, mask))
            h = blend(h, full, mask)
        return self.conv_out(self.conv_act(self.conv_norm_out(h)))


class AsymmetricVQGAN(ModelMixin, ConfigMixin):
    """A frozen encoder with an asymmetric decoder; saves and loads as safetensors in diffusers' folder layout.

    Args:
        encoder_width: Channels c of the encoder at full resolution (128 in Stable Diffusion).
        encoder_layers: ResBlocks per encoder level (2 in Stable Diffusion).
        width: Channels of the decoder at full resolution (128, 192, 256 officially).
        blocks: ResBlocks per decoder level (3, 4, 6 officially).
        groups: Groups of every GroupNorm (32 in Stable Diffusion).
        latent_channels: Channels of the latent.
        branch: Whether the decoder has a condition branch.
        scaling_factor: Brings the latent to unit variance for a diffusion model; `encode` and `decode` do not apply it.

    Example:
        >>> vqgan = AsymmetricVQGAN(encoder_width=8, encoder_layers=1, width=8, blocks=2, groups=4)
        >>> image, mask = torch.zeros(1, 3, 60, 65), torch.ones(60, 65)
        >>> vqgan.decode(vqgan.encode(image), image=image, mask=mask).shape
        torch.Size([1, 3, 60, 65])
    """

    factor = 8

    @register_to_config
    def __init__(
        self,
        encoder_width: int = 128,
        encoder_layers: int = 2,
        width: int = 128,
        blocks: int = 3,
        groups: int = 32,
        latent_channels: int = 4,
        branch: bool = True,
        scaling_factor: float = 0.18215,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(
            out_channels=latent_channels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            block_out_channels=(encoder_width, 2 * encoder_width, 4 * encoder_width, 4 * encoder_width),
            layers_per_block=encoder_layers,
            norm_num_groups=groups,
        )
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        self.decoder = AsymmetricDecoder(latent_channels, width, blocks, groups, branch)
        for module in (self.encoder, self.quant_conv, self.post_quant_conv):
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "AsymmetricVQGAN":
        """Switch the decoder's mode; everything else stays frozen and in eval mode."""
        super().train(False)
        self.decoder.train(mode)
        return self

    def posterior(self, image: torch.Tensor) -> DiagonalGaussianDistribution:
        """The encoder's Gaussian for (N, 3, H, W) in [-1, 1]; H and W are padded by replication to a multiple of 8."""
        _require_image(image)
        with torch.no_grad():
            return DiagonalGaussianDistribution(self.quant_conv(self.encoder(_pad(image, self.factor))))

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """The posterior's mean: (N, 3, H, W) in [-1, 1] -> (N, C, ceil(H/8), ceil(W/8)), not scaled.

        Raises:
            ValueError: `image` is not a finite float tensor (N, 3, H, W).
        """
        return self.posterior(image).mean

    def decode(self, latent: torch.Tensor, image: torch.Tensor | None = None, mask=None) -> torch.Tensor:
        """Decode, keeping the known pixels of `image` where `mask` is 0 as far as the branch can.

        Args:
            latent: (N, C, h, w), not scaled.
            image: (N, 3, H, W) or (1, 3, H, W) in [-1, 1], with ceil(H/8) = h and ceil(W/8) = w; or None.
            mask: What `normalise_mask` takes, 1 = hole; one mask or N. Given if and only if `image` is.

        Returns:
            (N, 3, H, W), not clamped; (N, 3, 8h, 8w) without a condition.

        Raises:
            ValueError: Only one of image and mask is given, or sizes do not fit.

        Source: official `my_decoder.py` `Decoder.forward`; without a condition `Decoder_wocondition.forward`.
        """
        if (image is None) != (mask is None):
            given, missing = ("image", "mask") if mask is None else ("mask", "image")
            raise ValueError(f"{missing}: got None with an {given}, expected both or neither")
        if latent.ndim != 4 or latent.shape[1] != self.config.latent_channels:
            raise ValueError(f"latent: got {tuple(latent.shape)}, expected (N, {self.config.latent_channels}, h, w)")
        latent = self.post_quant_conv(latent)
        if image is None:
            return self.decoder(latent)
        _require_image(image)
        height, width = image.shape[-2:]
        mask = normalise_mask(mask, height, width).to(image)
        image, mask = _pad(image, self.factor), _pad(mask, self.factor)
        if image.shape[-2:] != tuple(self.factor * side for side in latent.shape[-2:]):
            raise ValueError(
                f"image: got {height} x {width}, expected the size of a latent {tuple(latent.shape[-2:])} x 8"
            )
        return self.decoder(latent, _repeat(image, len(latent), "image"), _repeat(mask, len(latent), "mask"))[
            ..., :height, :width
        ]

    def branch_and_trunk(self) -> dict[str, list[nn.Parameter]]:
        """The trainable parameters by learning rate: the condition branch, and the rest of the decoder."""
        parts: dict[str, list[nn.Parameter]] = {"branch": [], "trunk": []}
        for name, parameter in self.decoder.named_parameters():
            parts["branch" if name.startswith("condition_branch") else "trunk"].append(parameter)
        return parts


def asymmetric_vqgan(
    first_stage: AutoencoderKL, width: int, blocks: int, branch: bool, inherit: bool, seed: int
) -> AsymmetricVQGAN:
    """Put an asymmetric decoder on a frozen first stage.

    Args:
        first_stage: The autoencoder whose encoder, `quant_conv` and `post_quant_conv` are copied bit for bit.
        width: Channels of the decoder at full resolution.
        blocks: ResBlocks per decoder level.
        branch: Whether there is a condition branch.
        inherit: Start from the vanilla decoder's weights (officially the base; 1.5x and 2x start from scratch).
        seed: Seed of the new weights.

    Raises:
        ValueError: `inherit` is asked for but width or depth differ from the vanilla decoder's.
    """
    config = first_stage.config
    vanilla = (config.block_out_channels[0], config.layers_per_block + 1)
    if inherit and (width, blocks) != vanilla:
        raise ValueError(f"inherit: got width {width} and {blocks} blocks, expected the vanilla decoder's {vanilla}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vqgan = AsymmetricVQGAN(
            config.block_out_channels[0],
            config.layers_per_block,
            width,
            blocks,
            config.norm_num_groups,
            config.latent_channels,
            branch,
            config.scaling_factor,
        )
    for part in ("encoder", "quant_conv", "post_quant_conv"):
        getattr(vqgan, part).load_state_dict(getattr(first_stage, part).state_dict())
    if inherit:
        missing = vqgan.decoder.load_state_dict(first_stage.decoder.state_dict(), strict=False)
        assert not missing.unexpected_keys and all(k.startswith("condition_branch") for k in missing.missing_keys)
    return vqgan.eval()


def load_vqgan(path: str | Path) -> AsymmetricVQGAN:
    """Load what `save_pretrained` wrote; eval mode.

    Raises:
        FileNotFoundError: The folder has no config.json.
    """
    if not (Path(path) / "config.json").is_file():
        raise FileNotFoundError(f"decoder {path} is missing; expected a folder with config.json, `make repro` makes it")
    return AsymmetricVQGAN.from_pretrained(path, local_files_only=True).eval()


def scaled_size(first_stage: AutoencoderKL, scale: str) -> tuple[int, int]:
    """Width and ResBlocks per level of `base`, `large_1.5x` or `large_2x` relative to the first stage's own decoder."""
    width, depth = SCALES[scale]
    return int(first_stage.config.block_out_channels[0] * width), round(
        (first_stage.config.layers_per_block + 1) * depth
    )


def _pad(tensor: torch.Tensor, factor: int) -> torch.Tensor:
    height, width = tensor.shape[-2:]
    return pad(tensor, (0, -width % factor, 0, -height % factor), mode="replicate")


def _repeat(tensor: torch.Tensor, count: int, name: str) -> torch.Tensor:
    if len(tensor) not in (1, count):
        raise ValueError(f"{name}: got {len(tensor)}, expected 1 or as many as the {count} latents")
    return tensor.expand(count, -1, -1, -1)


def _require_image(image: torch.Tensor) -> None:
    if not isinstance(image, torch.Tensor) or image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        came = tuple(image.shape) if isinstance(image, torch.Tensor) else type(image).__name__
        raise ValueError(f"image: got {came}, expected a float tensor (N, 3, H, W) in [-1, 1]")
    if not torch.isfinite(image).all():
        raise ValueError("image: got NaN or infinite values, expected finite values in [-1, 1]")

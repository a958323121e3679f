"""The asymmetric VQGAN: a frozen encoder, and a decoder that is told the known pixels.

The decoder is diffusers' own `Decoder` with a condition branch beside it. Before every level, and once more before the
last normalisation, known cells of the trunk are *replaced* by the branch's features; the hole keeps the trunk's. That
is the paper's; `Condition` says what else can be done with the known pixels. Without any it is the plain decoder, with
the same weights. `models.construction` puts one on a first stage.
"""

import json
from pathlib import Path

import diffusers
import torch
from diffusers import AsymmetricAutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, Decoder, DiagonalGaussianDistribution, Encoder
from torch import nn

from asymlib.files import save_pretrained
from asymlib.masks import normalise_mask
from asymlib.models.condition import Condition, ConditionBranch
from asymlib.models.first_stage import computing_type, decoder_input, without_variance
from asymlib.models.interchange import AsymmetricVAE, repeat_to
from asymlib.models.tiling import decode_tiles
from asymlib.pixels import pad_to_multiple


class AsymmetricDecoder(Decoder):
    """diffusers' `Decoder` with an optional condition branch, `condition_encoder` in diffusers' naming.

    Args:
        condition: How the known pixels reach it, or None without a condition branch.
        decoder: The arguments of diffusers' `Decoder`.
    """

    def __init__(self, condition: Condition | None, **decoder) -> None:
        super().__init__(**decoder)
        self.condition_encoder = ConditionBranch(decoder["block_out_channels"], condition) if condition else None
        if condition and not condition.output_norm:
            self.conv_norm_out = nn.Identity()

    def forward(
        self, latent: torch.Tensor, image: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(N, C, h, w), with image (N, 3, 8h, 8w) in [-1, 1] and mask (N, 1, 8h, 8w) or neither -> (N, 3, 8h, 8w)."""
        h = self._run(self.mid_block, self.conv_in(latent))
        if image is None or self.condition_encoder is None:
            for up_block in self.up_blocks:
                h = self._run(up_block, h)
            return self._out(h)
        branch = self.condition_encoder
        features = self._run(branch, image, mask)
        for i, up_block in zip(range(len(self.up_blocks), 0, -1), self.up_blocks, strict=True):
            h = self._run(up_block, branch.blend(i, h, features, mask))
        return branch.finish(self._out(branch.blend(0, h, features, mask)), image, mask)

    def _out(self, h: torch.Tensor) -> torch.Tensor:
        return self.conv_out(self.conv_act(self.conv_norm_out(h)))

    def _run(self, part: nn.Module, *inputs: torch.Tensor):
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(part, *inputs)
        return part(*inputs)


class AsymmetricVQGAN(ModelMixin, AutoencoderMixin, ConfigMixin):
    """A frozen encoder with an asymmetric decoder; saved as safetensors in the layout of `AsymmetricAutoencoderKL`.

    Args:
        down_block_types: diffusers' encoder blocks.
        down_block_out_channels: Channels of the encoder by level, full resolution first.
        layers_per_down_block: ResBlocks per encoder level.
        up_block_types: diffusers' decoder blocks.
        up_block_out_channels: Channels of the decoder by level, full resolution first (officially 128, 256, 512, 512
            and 1.5 or 2 times that).
        layers_per_up_block: ResBlocks per decoder level, less one (2, 3, 5 officially).
        latent_channels: Channels of the latent.
        norm_num_groups: Groups of every GroupNorm.
        scaling_factor: Brings the latent to unit variance for a diffusion model, see `scale`.
        force_upcast: Whether half precision overflows in this autoencoder (SDXL's): it then computes in float32.
        branch: Whether the decoder has a condition branch.
        first_stage: Class and config of a frozen first stage that is not an `AutoencoderKL` of Stable Diffusion's make
            (VQ, tiny, no 1 x 1 convolutions, shifted latents); its encoder is then built from them.
        condition: Where the branch differs from the paper's, the arguments of `Condition`.

    Example:
        >>> widths = {"down_block_out_channels": (8, 16, 32, 32), "up_block_out_channels": (8, 16, 32, 32)}
        >>> vqgan = AsymmetricVQGAN(**widths, layers_per_down_block=1, layers_per_up_block=1, norm_num_groups=4)
        >>> image, mask = torch.zeros(1, 3, 60, 65), torch.ones(60, 65)
        >>> vqgan.decode(vqgan.encode(image), image=image, mask=mask).shape
        torch.Size([1, 3, 60, 65])
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",) * 4,
        down_block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        layers_per_down_block: int = 2,
        up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",) * 4,
        up_block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        layers_per_up_block: int = 2,
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        scaling_factor: float = 0.18215,
        force_upcast: bool = False,
        branch: bool = True,
        first_stage: dict | None = None,
        condition: dict | None = None,
    ) -> None:
        super().__init__()
        if condition and not branch:
            raise ValueError(
                f"condition: got {condition} with branch False, expected None: there is nothing to condition"
            )
        if first_stage is None:
            self.encoder = Encoder(
                out_channels=latent_channels,
                down_block_types=down_block_types,
                block_out_channels=down_block_out_channels,
                layers_per_block=layers_per_down_block,
                norm_num_groups=norm_num_groups,
            )
            self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
            self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
            self.quantize = None
        else:
            frozen = getattr(diffusers, first_stage["_class_name"]).from_config(first_stage)
            self.encoder = frozen.encoder
            self.quant_conv = getattr(frozen, "quant_conv", None)
            self.post_quant_conv = getattr(frozen, "post_quant_conv", None)
            self.quantize = getattr(frozen, "quantize", None)
        self.decoder = AsymmetricDecoder(
            Condition(**(condition or {})) if branch else None,
            in_channels=latent_channels,
            out_channels=3,
            up_block_types=up_block_types,
            block_out_channels=tuple(up_block_out_channels),
            layers_per_block=layers_per_up_block,
            norm_num_groups=norm_num_groups,
            mid_block_add_attention=(first_stage or {}).get("mid_block_add_attention", True),
        )
        self.use_slicing = self.use_tiling = False
        self.tile_size, self.tile_overlap = 512, 64  # pixels; see `decode_tiles`
        for module in self.frozen_parts.values():
            module.requires_grad_(False)

    def save_pretrained(self, save_directory: str | Path, **options) -> None:
        """diffusers' `save_pretrained`, whole or not at all: a full disk leaves what was there before."""
        save_pretrained(super(), save_directory, **options)

    @property
    def factor(self) -> int:
        """Pixels per latent cell along a side: 8 with four levels."""
        return 2 ** (len(self.config.up_block_out_channels) - 1)

    @property
    def frozen_parts(self) -> dict[str, nn.Module]:
        """The first stage's modules by name: everything but the decoder."""
        parts = {name: getattr(self, name) for name in ("encoder", "quant_conv", "quantize", "post_quant_conv")}
        return {name: module for name, module in parts.items() if module is not None}

    def train(self, mode: bool = True) -> "AsymmetricVQGAN":
        """Switch the decoder's mode; everything else stays frozen and in eval mode."""
        super().train(False)
        self.decoder.train(mode)
        return self

    def posterior(self, image: torch.Tensor) -> DiagonalGaussianDistribution:
        """The encoder's Gaussian for (N, 3, H, W) in [-1, 1]; H and W are padded by replication to a multiple of 8.

        The encoder of a VQ or a tiny autoencoder gives one latent: its Gaussian has the least variance there is.
        """
        _require_image(image)
        with torch.no_grad():
            image = image.to(self.device, computing_type(self))
            moments = self.encoder(pad_to_multiple(image, self.factor))
            if self.quant_conv is not None:
                moments = self.quant_conv(moments)
            if (self.config.first_stage or {}).get("_class_name") in ("VQModel", "AutoencoderTiny"):
                moments = without_variance(moments)
            return DiagonalGaussianDistribution(moments)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """The posterior's mean: (N, 3, H, W) in [-1, 1] -> (N, C, ceil(H/8), ceil(W/8)), not scaled.

        Raises:
            ValueError: `image` is not a finite float tensor (N, 3, H, W).
        """
        return self.posterior(image).mean

    def decode(self, latent: torch.Tensor, image: torch.Tensor | None = None, mask=None) -> torch.Tensor:
        """Decode, keeping the known pixels of `image` where `mask` is 0 as far as the branch can.

        With `enable_slicing()` one latent after the other is decoded, with `enable_tiling()` one tile after the other.

        Args:
            latent: (N, C, h, w), not scaled; of any float type and on any device, as image and mask.
            image: (N, 3, H, W) in [-1, 1], with ceil(H/8) = h and ceil(W/8) = w; or None.
            mask: What `normalise_mask` takes, 1 = hole. Given if and only if `image` is. A value between 0 and 1 fades
                from the branch to the trunk at every level. Fewer of one serve more of the others, see `repeat_to`.

        Returns:
            (N, 3, H, W), not clamped; (N, 3, 8h, 8w) without a condition.

        Raises:
            ValueError: Only one of image and mask is given, or sizes do not fit.

        Source: official `my_decoder.py` `Decoder.forward`; without a condition `Decoder_wocondition.forward`.
        """
        if (image is None) != (mask is None):
            given, missing = ("an image", "mask") if mask is None else ("a mask", "image")
            raise ValueError(f"{missing}: got None with {given}, expected both or neither")
        channels = self.latent_channels
        if not isinstance(latent, torch.Tensor) or latent.ndim != 4 or latent.shape[1] != channels:
            came = tuple(latent.shape) if isinstance(latent, torch.Tensor) else type(latent).__name__
            raise ValueError(f"latent: got {came}, expected a tensor (N, {channels}, h, w)")
        here = {"device": self.device, "dtype": computing_type(self)}
        latent = latent.to(**here)
        if image is None:
            return self._decode_parts(latent)
        _require_image(image)
        height, width = image.shape[-2:]
        mask = normalise_mask(mask, height, width)
        image, mask = (pad_to_multiple(tensor.to(**here), self.factor) for tensor in (image, mask))
        if image.shape[-2:] != tuple(self.factor * side for side in latent.shape[-2:]):
            cells = tuple(latent.shape[-2:])
            raise ValueError(f"image: got {height} x {width}, expected the size of a latent {cells} x {self.factor}")
        return self._decode_parts(*_broadcast(latent=latent, image=image, mask=mask))[..., :height, :width]

    forward = decode  # a wrapped model (DistributedDataParallel) runs its hooks in `forward` alone

    def _decode_parts(self, *inputs: torch.Tensor) -> torch.Tensor:
        if self.use_slicing and len(inputs[0]) > 1:
            return torch.cat([self._decode_whole(*part) for part in zip(*(i.split(1) for i in inputs), strict=True)])
        return self._decode_whole(*inputs)

    def _decode_whole(self, latent: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        latent = decoder_input(self, latent)
        if self.use_tiling:
            return decode_tiles(self.decoder, latent, condition, self.factor, self.tile_size, self.tile_overlap)
        return self.decoder(latent, *condition)

    @property
    def latent_channels(self) -> int:
        """Channels of what `encode` gives and `decode` takes."""
        return (self.config.first_stage or {}).get("vq_embed_dim") or self.config.latent_channels

    def scale(self, latent: torch.Tensor) -> torch.Tensor:
        """From the first stage's latent to the diffusion model's: (latent - shift) / deviation x scaling_factor."""
        shift, deviation = self._statistics(latent)
        return (latent - shift) / deviation * self.config.scaling_factor

    def unscale(self, latent: torch.Tensor) -> torch.Tensor:
        """From the diffusion model's latent to what `decode` takes; the inverse of `scale`."""
        shift, deviation = self._statistics(latent)
        return latent / self.config.scaling_factor * deviation + shift

    def branch_and_trunk(self) -> dict[str, list[nn.Parameter]]:
        """The trainable parameters by learning rate: the condition branch, and the rest of the decoder."""
        parts: dict[str, list[nn.Parameter]] = {"branch": [], "trunk": []}
        for name, parameter in self.decoder.named_parameters():
            parts["branch" if name.startswith("condition_encoder") else "trunk"].append(parameter)
        return parts

    def to_diffusers(self) -> AsymmetricVAE:
        """The same weights as diffusers' class: `vae=` of `StableDiffusionInpaintPipeline`.

        Raises:
            ValueError: diffusers' class cannot express this decoder; the message says why.
        """
        c = self.config.up_block_out_channels[0]
        if self.config.first_stage is not None:
            name = self.config.first_stage["_class_name"]
            raise ValueError(
                f"first_stage: got an {name}, expected Stable Diffusion's layout, the only one of diffusers' class"
            )
        if self.config.condition:
            raise ValueError(f"condition: got {self.config.condition}, expected the paper's, the only one of diffusers")
        if not self.config.branch or tuple(self.config.up_block_out_channels) != (c, 2 * c, 4 * c, 4 * c):
            came = "no branch" if not self.config.branch else f"widths {tuple(self.config.up_block_out_channels)}"
            raise ValueError(
                f"decoder: got {came}, expected a branch and widths c, 2c, 4c, 4c, which diffusers' class has; "
                "`decode_with` takes any"
            )
        vae = AsymmetricVAE.from_config({k: v for k, v in self.config.items() if k in _SHARED_CONFIG})
        vae.load_state_dict(self.state_dict())
        return vae.to(self.device, self.dtype).eval()

    @classmethod
    def from_diffusers(cls, vae: AsymmetricAutoencoderKL) -> "AsymmetricVQGAN":
        """The same weights from diffusers' class.

        Raises:
            ValueError: It is not an `AsymmetricAutoencoderKL`, or its branch does not fit its decoder.
        """
        if not isinstance(vae, AsymmetricAutoencoderKL):
            raise ValueError(f"vae: got {type(vae).__name__}, expected AsymmetricAutoencoderKL")
        vqgan = cls(**{k: v for k, v in vae.config.items() if k in _SHARED_CONFIG})
        ours, theirs = vqgan.state_dict(), vae.state_dict()
        if {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}:
            raise ValueError(
                f"vae: got widths {vae.config.up_block_out_channels}, to which diffusers' branch does not fit"
            )
        vqgan.load_state_dict(theirs)
        return vqgan.to(vae.device, vae.dtype).eval()

    def _statistics(self, latent: torch.Tensor) -> tuple:
        config = self.config.first_stage or {}
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            return tuple(latent.new_tensor(config[key]).view(1, -1, 1, 1) for key in ("latents_mean", "latents_std"))
        return config.get("shift_factor") or 0.0, 1.0


LEVEL = 2 / 255  # what rounding and resampling may leave the range by
_SHARED_CONFIG = (
    "down_block_types down_block_out_channels layers_per_down_block up_block_types up_block_out_channels "
    "layers_per_up_block latent_channels norm_num_groups scaling_factor force_upcast"
).split()


# as which a config.json names weights that this class reads
CLASSES = ("AsymmetricVQGAN", "AsymmetricVAE", "AsymmetricAutoencoderKL")


def load_vqgan(path: str | Path) -> AsymmetricVQGAN:
    """Load what `save_pretrained`, ours or that of diffusers' `AsymmetricAutoencoderKL`, wrote; eval mode.

    Raises:
        FileNotFoundError: The folder has no config.json.
        ValueError: Its config.json names another class, whose weights this one would leave as they were drawn.
    """
    config = Path(path) / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"decoder {path} is missing; expected a folder with config.json, `make repro` makes it")
    kind = json.loads(config.read_text()).get("_class_name")
    if kind not in CLASSES:
        raise ValueError(f"decoder {path}: got {kind}, expected one of {', '.join(CLASSES)}")
    return AsymmetricVQGAN.from_pretrained(path, local_files_only=True).eval()


def _broadcast(**tensors: torch.Tensor) -> list[torch.Tensor]:
    count = max(map(len, tensors.values()))
    return [repeat_to(tensor, count, name) for name, tensor in tensors.items()]


def _require_image(image: torch.Tensor) -> None:
    if not isinstance(image, torch.Tensor) or image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        came = tuple(image.shape) if isinstance(image, torch.Tensor) else type(image).__name__
        raise ValueError(f"image: got {came}, expected a float tensor (N, 3, H, W) in [-1, 1]")
    if not torch.isfinite(image).all():
        raise ValueError("image: got NaN or infinite values, expected finite values in [-1, 1]")
    if image.numel() and image.abs().max() > 1 + LEVEL:
        low, high = image.min().item(), image.max().item()
        raise ValueError(f"image: got values from {low:g} to {high:g}, expected [-1, 1]; see `to_tensor`")

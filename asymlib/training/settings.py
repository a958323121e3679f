"""What a training of a decoder can be told."""

from dataclasses import dataclass
from typing import Literal

PERCEPTUAL = ("none", "effnet_lite0", "lpips_vgg")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of `train_decoder`; the defaults are a short training on a CPU, the paper's are named where they differ.

    Args:
        steps: Optimiser steps.
        batch: Images of a step, of all processes together.
        lr_branch: Rate of the condition branch.
        lr_inherited: Rate of a trunk that starts as the vanilla decoder; 0 leaves it as it is. Officially a tenth.
        lr_scratch: Rate of a trunk that starts from nothing, and of the discriminator.
        warmup: Steps of linear warm-up (officially 5,000).
        lr_floor: Where the cosine ends, relative to the rate.
        full_mask_share: Share of the masks that are all hole, from which decoding without a mask is learned.
        swapped_share: Share of the latents whose hole is another image's; officially 0.
        inpainted_share: Share of the latents whose hole a diffusion model has filled; officially 0.
        ring_weight: Weight of the hole's outermost 4 pixels in the loss; officially 1.
        perceptual: The perceptual distance in the loss: `lpips_vgg` (officially; needs torchvision's VGG16 weights),
            `effnet_lite0` (needs no download), or `none`.
        perceptual_weight: Its weight, 1 officially.
        kl_weight: Weight of the KL, which has no gradient: the encoder is frozen.
        gan_start: Step from which on there is a discriminator (officially 50,001), or None for never.
        gan_weight: Weight of the adversarial loss, on top of its adaptive one.
        discriminator_width: Channels of the discriminator's first layer.
        ema: Decay of the weights' moving average, or None for none (as officially).
        clip: Largest norm of the gradient, or None for no limit.
        validate_every: Steps between two points of the curve.
        accumulate: Parts in which a process takes its share of a batch, one after the other.
        mixed_precision: `no`, `bf16` or `fp16`.
        gradient_checkpointing: Whether activations are computed again in the backward pass, to save memory.

    Raises:
        ValueError: A value out of its range.
    """

    steps: int = 1000
    batch: int = 8
    lr_branch: float = 8e-3
    lr_inherited: float = 4e-4
    lr_scratch: float = 6e-4
    warmup: int = 20
    lr_floor: float = 0.01
    full_mask_share: float = 0.5
    swapped_share: float = 0.0
    inpainted_share: float = 0.0
    ring_weight: float = 1.0
    perceptual: Literal["none", "effnet_lite0", "lpips_vgg"] = "none"
    perceptual_weight: float = 1.0
    kl_weight: float = 1e-6
    gan_start: int | None = None
    gan_weight: float = 0.8
    discriminator_width: int = 64
    ema: float | None = 0.998
    clip: float | None = None
    validate_every: int = 100
    accumulate: int = 1
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = False

    __pydantic_config__ = {"extra": "forbid"}  # where a file fills it: refuse what is not known

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "discriminator_width", "validate_every", "accumulate", "ring_weight"):
            self._require(name, 1, float("inf"))
        for name in ("lr_branch", "lr_inherited", "lr_scratch", "warmup", "perceptual_weight", "kl_weight"):
            self._require(name, 0, float("inf"))
        for name in ("full_mask_share", "swapped_share", "inpainted_share", "lr_floor"):
            self._require(name, 0, 1)
        for name, known in (("perceptual", PERCEPTUAL), ("mixed_precision", ("no", "bf16", "fp16"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(known)}")

    def _require(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            expected = f"at least {low}" if high == float("inf") else f"{low} to {high}"
            raise ValueError(f"{name}: got {value}, expected {expected}")

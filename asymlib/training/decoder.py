"""The one training loop of all decoders: official losses, two learning rates, masks drawn anew at every step.

What the official recipe fixes (`autoencoder.py`, `lr_scheduler.py`):
Adam (0.5, 0.9), warm-up then cosine, sampled posterior of the *full* image,
a full mask with probability 0.5, GAN and its discriminator switched on together at a start step, from which the
discriminator has a schedule of its own.

The same loop runs in one process and, under `accelerate launch`, in many: see `training.distributed`.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.training_utils import EMAModel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from asymlib.masks import training_masks
from asymlib.metrics import curve_point
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.features import perceptual_loss
from asymlib.pixels import to_tensor
from asymlib.training.checkpoints import ResumeState, code_hash, forget, weights_hash
from asymlib.training.distributed import (
    average_buffers,
    make_accelerator,
    require_divisible,
    require_same_start,
    synchronised,
)
from asymlib.training.latents import Crops, swap_holes
from asymlib.training.losses import (
    PatchDiscriminator,
    adaptive_weight,
    generator_loss,
    hinge_loss,
    reconstruction_loss,
    ring_weights,
)
from asymlib.training.schedules import warmup_then_cosine
from asymlib.training.settings import TrainingSettings


class Validation(NamedTuple):
    """One fixed batch: image (N, 3, s, s) in [-1, 1], its latent (posterior mean) and mask (N, 1, s, s), 1 = hole."""

    image: torch.Tensor
    latent: torch.Tensor
    mask: torch.Tensor


Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def batches(
    crops: Crops, settings: TrainingSettings, seed: int, start: int, process: int = 0, processes: int = 1
) -> Iterator[Batch]:
    """Endless (image, latent, mask, kl) from step `start` on: one process's share of every batch.

    Batch i depends on (seed, i) alone, so that a resumed run sees the same ones, and any number of processes together.
    Officially every latent is the image's own; `swapped_share` and `inpainted_share` say how many are not.
    """
    share = settings.batch // processes
    own = slice(process * share, (process + 1) * share)
    step = start
    while True:
        rng = np.random.default_rng([seed, 3, step])
        chosen = torch.from_numpy(rng.integers(0, len(crops.image), settings.batch))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        posterior = DiagonalGaussianDistribution(crops.moments[chosen])
        mask = training_masks(settings.batch, crops.image.shape[-1], settings.full_mask_share, rng)
        image, latent = to_tensor(crops.image[chosen]), posterior.sample(generator)
        if settings.swapped_share:
            swapped = torch.from_numpy(rng.random(settings.batch) < settings.swapped_share)
            following = torch.arange(settings.batch).roll(-1)
            image, latent = swap_holes(image, latent, mask * swapped[:, None, None, None], following)
        if settings.inpainted_share:
            edited = torch.from_numpy(rng.random(settings.batch) < settings.inpainted_share)
            chosen = torch.from_numpy(rng.integers(0, len(crops.edits.image), int(edited.sum())))
            image[edited], mask[edited] = to_tensor(crops.edits.image[chosen]), crops.edits.mask[chosen].float()
            latent[edited] = crops.edits.latent[chosen]
        yield image[own], latent[own], mask[own], posterior.kl().mean()
        step += 1


def train_decoder(
    vqgan: AsymmetricVQGAN,
    source: Crops | Callable[[int], Iterator[Batch]],
    settings: TrainingSettings | None = None,
    validation: Validation | None = None,
    seed: int = 0,
    inherits: bool = True,
    out: Path | None = None,
    resume_path: Path | None = None,
    data_hash: str = "",
    accelerator: Accelerator | None = None,
) -> list[dict]:
    """Train the decoder in place; encoder, `quant_conv` and `post_quant_conv` are never touched.

    Every process of a launch calls this with the same arguments and ends with the same weights and the same curve.

    Args:
        vqgan: From `asymmetric_vqgan`; ends with the trained weights (their moving average if `settings.ema`).
        source: Training crops with cached moments, or a function from the first step to this process's share of the
            batches, as `batches` makes them.
        settings: How; by default that of `TrainingSettings()`.
        validation: The fixed batch of the curve; without one it has the loss alone.
        seed: Seed of batches, masks, posterior samples and the discriminator.
        inherits: Whether the trunk started from the vanilla decoder: its rate is then lr_inherited, else lr_scratch.
            What has a rate of 0 is not trained.
        out: Folder that gets the trained model, one process saving it; None leaves that to the caller.
        resume_path: Where to keep what a killed run needs to continue; None keeps nothing. It is removed once the model
            lies in `out`, and stays where there is no `out`.
        data_hash: Identity of the data, so that a state of other data is not continued.
        accelerator: From `make_accelerator`; None trains in this process, on the CPU.

    Returns:
        The curve: rows of {step, loss, pre_error, hole_psnr} on the validation batch, step 0 included.

    Raises:
        FileNotFoundError, ImportError: The perceptual distance that the settings name cannot be had.
        FloatingPointError: The loss is not finite; the message names the step.
        ValueError: The batch does not go evenly into the processes, or a GAN with a trunk that is not trained (its
            weight is taken at the trunk's last convolution).
    """
    settings = settings or TrainingSettings()
    accelerator = accelerator or make_accelerator(settings, cpu=True)
    require_divisible(settings, accelerator)
    if settings.gan_start is not None and inherits and not settings.lr_inherited:
        raise ValueError(f"gan_start: got {settings.gan_start}, expected null where the trunk is not trained")
    main, device = accelerator.is_main_process, accelerator.device
    mean = partial(accelerator.reduce, reduction="mean")

    # optimisers: inherited weights slower than new ones; the discriminator has its own
    rates = {"branch": settings.lr_branch, "trunk": settings.lr_inherited if inherits else settings.lr_scratch}
    groups = vqgan.branch_and_trunk().items()
    for name, p in groups:
        for parameter in p:
            parameter.requires_grad_(rates[name] > 0)
    parameters = [
        {"params": p, "lr": rates[name], "initial_lr": rates[name]} for name, p in groups if p and rates[name]
    ]
    optimiser = torch.optim.Adam(parameters, betas=(0.5, 0.9))
    trained = [p for group in parameters for p in group["params"]]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        discriminator = PatchDiscriminator(settings.discriminator_width)
    discriminator_optimiser = torch.optim.Adam(discriminator.parameters(), lr=settings.lr_scratch, betas=(0.5, 0.9))
    ema = EMAModel(trained, decay=settings.ema or 0.0, use_ema_warmup=False)

    # continue a run that was killed: every process reads the state, one writes it
    identity = {
        "settings": asdict(settings),
        "seed": seed,
        "inherits": inherits,
        "start": weights_hash(vqgan),
        "config": dict(vqgan.config),
        "data": data_hash,
        "processes": accelerator.num_processes,
        "device": device.type,
        "code": code_hash(),
    }
    modules = {
        "decoder": vqgan.decoder,
        "discriminator": discriminator,
        "ema": ema,
        "optimiser": optimiser,
        "discriminator_optimiser": discriminator_optimiser,
    }
    if accelerator.scaler is not None:
        modules["scaler"] = accelerator.scaler
    state = ResumeState(resume_path, identity, modules)
    start, history = state.restore()
    require_same_start(start, accelerator)

    # wrap what is trained: only a call of `decode` and `judge` themselves averages gradients over the processes
    if settings.gradient_checkpointing:
        vqgan.enable_gradient_checkpointing()
    decode, judge = accelerator.prepare(vqgan, discriminator)
    optimiser, discriminator_optimiser = accelerator.prepare(optimiser, discriminator_optimiser)
    ema.to(device)
    perceptual = perceptual_loss(settings.perceptual if settings.perceptual_weight else "none", device)
    validation = validation and Validation(*(t.to(device) for t in validation))
    if isinstance(source, Crops):
        if settings.inpainted_share and source.edits is None:
            raise ValueError(f"inpainted_share: got {settings.inpainted_share}, expected 0 without edits to train on")
        shares = {"process": accelerator.process_index, "processes": accelerator.num_processes}
        source = partial(batches, source, settings, seed, **shares)

    vqgan.train()
    if not history:
        history.append({"step": 0, "loss": float("nan")} | _validate(vqgan, validation))
    parts = settings.accumulate
    steps = range(start, settings.steps)
    progress = tqdm(steps, initial=start, total=settings.steps, mininterval=5, disable=not main)
    for step, (*batch, kl) in zip(progress, source(start), strict=False):
        factor = warmup_then_cosine(step, settings.steps, settings.warmup, settings.lr_floor)
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor
        adversarial = settings.gan_start is not None and step >= settings.gan_start

        # decoder: the whole image counts, in the hole and outside it; the discriminator is not trained by it
        discriminator.requires_grad_(False)
        optimiser.zero_grad(set_to_none=True)
        made, loss = [], torch.zeros((), device=device)
        for i, (image, latent, mask) in enumerate(zip(*(t.to(device).chunk(parts) for t in batch), strict=True)):
            with synchronised(accelerator, decode, i + 1 == parts):
                image_hat = decode(latent, image, mask)
                weight = ring_weights(mask, settings.ring_weight) if settings.ring_weight > 1 else None
                reconstruction = reconstruction_loss(image_hat, image, perceptual, settings.perceptual_weight, weight)
                part = reconstruction + settings.kl_weight * kl.to(device)
                if adversarial:
                    g = generator_loss(discriminator(image_hat))
                    balance = adaptive_weight(reconstruction, g, vqgan.decoder.conv_out.weight, mean)
                    part = part + settings.gan_weight * balance * g
                accelerator.backward(part / parts)
            made.append((image, image_hat.detach()))
            loss += part.detach() / parts
        loss = mean(loss)  # of all processes, so that all of them stop where one is not finite
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss: got {loss.item()} at step {step}, expected a finite value; lower the rates"
            )
        if settings.clip is not None:
            accelerator.clip_grad_norm_(trained, settings.clip)
        optimiser.step()
        ema.step(trained)

        # discriminator, on what the decoder just made; officially it warms up on its own from its first step on
        if adversarial:
            discriminator.requires_grad_(True)
            since, left = step - settings.gan_start, settings.steps - settings.gan_start
            own_factor = warmup_then_cosine(since, left, settings.warmup, settings.lr_floor)
            discriminator_optimiser.param_groups[0]["lr"] = settings.lr_scratch * own_factor
            discriminator_optimiser.zero_grad(set_to_none=True)
            for i, (image, image_hat) in enumerate(made):
                with synchronised(accelerator, judge, i + 1 == parts):
                    accelerator.backward(hinge_loss(judge(image), judge(image_hat)) / parts)
            discriminator_optimiser.step()
            average_buffers(discriminator, accelerator)

        # curves, on a batch that never changes
        if (step + 1) % settings.validate_every == 0 or step + 1 == settings.steps:
            ema.store(trained)
            ema.copy_to(trained)
            history.append({"step": step + 1, "loss": loss.item() / image[0].numel()} | _validate(vqgan, validation))
            ema.restore(trained)
            progress.set_postfix({k: f"{v:.3g}" for k, v in history[-1].items() if k != "step"})
        if main:
            state.keep(step + 1, history, last=step + 1 == settings.steps)
    ema.copy_to(trained)
    accelerator.wait_for_everyone()
    accelerator.unwrap_model(decode, keep_fp32_wrapper=False).eval()
    if out is not None and main:
        vqgan.save_pretrained(out)
        forget(resume_path)  # only now: a full disk loses no training
    return history


@torch.no_grad()
def _validate(vqgan: AsymmetricVQGAN, batch: Validation | None) -> dict[str, float]:
    if batch is None:
        return {}
    point = curve_point(batch.image, vqgan.eval().decode(batch.latent, batch.image, batch.mask), batch.mask)
    vqgan.train()
    return point


@torch.no_grad()
def decode_macs(vqgan: AsymmetricVQGAN, size: int) -> int:
    """Multiply-accumulates of one conditioned decode at `size` px (half of what torch counts as FLOPs).

    A training step costs about three times that for each image: forward, and backward for inputs and weights.
    """
    device, side = vqgan.decoder.conv_out.weight.device, size // vqgan.factor
    latent = torch.zeros(1, vqgan.config.latent_channels, side, side, device=device)
    image, mask = (torch.zeros(1, channels, size, size, device=device) for channels in (3, 1))
    with FlopCounterMode(display=False) as counter:
        vqgan.decoder(latent if vqgan.post_quant_conv is None else vqgan.post_quant_conv(latent), image, mask)
    return counter.get_total_flops() // 2

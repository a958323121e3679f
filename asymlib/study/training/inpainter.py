"""Train the latent inpainter: velocity prediction on the cached latents, conditioned on mask and masked latent, and
half of the time on what the hole holds."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel, compute_snr
from torch.nn.functional import interpolate, mse_loss
from tqdm import tqdm

from asymlib.masks import training_masks
from asymlib.models.first_stage import FirstStage, encode_means, pretrained
from asymlib.models.inpainter import LatentInpainter, latent_statistics
from asymlib.models.words import present_words
from asymlib.pixels import to_tensor
from asymlib.study.params import Inpainter
from asymlib.study.training.loop import descend
from asymlib.training.checkpoints import (
    ResumeState,
    code_hash,
    forget,
    load_tensors,
    save_tensors,
    weights_hash,
)
from asymlib.training.latents import Crops, Edits

CHUNK = 256  # pictures that are held as floats at a time; a multiple of the encoder's batch


class Examples(NamedTuple):
    """What the inpainter is trained on: latent and masked latent (N, C, h, w), posterior means, not scaled; mask
    (N, 1, 8h, 8w) uint8, 1 = hole; and what the hole holds: prompt (N, 6), 1 for every word that describes a part of
    it, and reference (N, 2 C), mean and deviation of its latent, not scaled."""

    latent: torch.Tensor
    masked_latent: torch.Tensor
    mask: torch.Tensor
    prompt: torch.Tensor
    reference: torch.Tensor


def make_examples(
    first_stage: AutoencoderKL, images: torch.Tensor, masks_per_image: int, full_mask_share: float, seed: int
) -> Examples:
    """Draw official masks for the training images, encode what they leave, and describe what they hide.

    Args:
        first_stage: The frozen autoencoder.
        images: (N, 3, H, H) uint8.
        masks_per_image: How many masks each image gets.
        full_mask_share: Share of masks that leave nothing, from which the model learns to generate.
        seed: Seed of the masks.

    Returns:
        N x masks_per_image examples.
    """
    turns = [range(i, min(i + CHUNK, len(images))) for i in range(0, len(images), CHUNK)] * masks_per_image
    masks = training_masks(
        len(images) * masks_per_image, images.shape[-1], full_mask_share, np.random.default_rng([seed, 7])
    )
    latents = torch.cat([encode_means(first_stage, to_tensor(part)) for part in images.split(CHUNK)])
    masked, prompt = [], []
    for rows, mask in tqdm(
        zip(turns, masks.split([len(rows) for rows in turns]), strict=True),
        total=len(turns),
        desc="masked latents",
        mininterval=5,
    ):
        image = to_tensor(images[rows.start : rows.stop])
        masked.append(encode_means(first_stage, (1 - mask) * image))
        prompt.append(present_words(image, mask))
    latent = latents.repeat(masks_per_image, 1, 1, 1)
    reference = latent_statistics(latent, interpolate(masks, size=latent.shape[-2:], mode="nearest"))
    return Examples(latent, torch.cat(masked), masks.byte(), torch.cat(prompt), reference)


def read_examples(
    first_stage: FirstStage, images: torch.Tensor, settings: Inpainter, seed: int, path: Path
) -> Examples:
    """`make_examples`, kept in a file for a training that is resumed: encoding so many pictures takes a while.

    Args:
        first_stage: The frozen autoencoder.
        images: (N, 3, H, H) uint8; with `flips` each also counts mirrored.
        settings: The `inpainter` section of params.yaml.
        seed: Seed of the masks.
        path: A safetensors file; made anew where it is of other images, settings or weights.
    """
    facts = [seed, settings.masks_per_image, settings.full_mask_share, settings.flips, weights_hash(first_stage)]
    digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    identity = {"identity": json.dumps([*facts, digest])}
    if path.is_file():
        tensors, metadata = load_tensors(path)
        if metadata == identity:
            return Examples(**tensors)
    images = torch.cat([images, images.flip(-1)]) if settings.flips else images
    examples = make_examples(first_stage, images, settings.masks_per_image, settings.full_mask_share, seed)
    save_tensors(path, examples._asdict(), identity)
    return examples


def make_edits(
    first_stage: AutoencoderKL, inpainter: LatentInpainter, crops: Crops, count: int, steps: int, seed: int
) -> Edits:
    """Let the diffusion model fill a hole in some of the training crops.

    Args:
        first_stage: The frozen autoencoder.
        inpainter: Trained.
        crops: Training crops of the decoders.
        count: How many of them, at most.
        steps: DDIM steps.
        seed: Seed of the choice, the official masks and the noise.
    """
    rng = np.random.default_rng([seed, 8])
    image = crops.image[torch.from_numpy(rng.permutation(len(crops.image))[:count])]
    mask = training_masks(len(image), image.shape[-1], 0.0, rng)
    masked_latent = encode_means(first_stage, (1 - mask) * to_tensor(image))
    parts = zip(masked_latent.split(128), mask.split(128), strict=True)
    latent = torch.cat([inpainter.sample(*part, steps, seed + i) for i, part in enumerate(parts)])
    return Edits(image, latent, mask.byte())


def bundled_inpainter(first_stage: FirstStage) -> LatentInpainter:
    """The diffusion model that ships, for `inpainter.source: bundled`.

    Raises:
        ValueError: `first_stage` is not the one whose latents it was trained on.
    """
    folder = pretrained("inpainter")
    record = json.loads((folder / "record.json").read_text())
    if record["first_stage"] != weights_hash(first_stage):
        raise ValueError(
            "inpainter.source: got 'bundled' with another first stage than the bundled KL one, expected 'train'"
        )
    return LatentInpainter.load(folder)


def train_inpainter(
    inpainter: LatentInpainter,
    examples: Examples,
    settings: Inpainter,
    seed: int,
    out: Path | None = None,
    resume_path: Path | None = None,
) -> list[dict]:
    """Train in place.

    The loss is the mean square error of the velocity, times `hole_weight` in the hole's cells, and, with `snr_gamma`,
    times min(SNR, gamma) / (SNR + 1) of the example's timestep.

    Args:
        inpainter: From `LatentInpainter.build`; ends with the moving average of the weights.
        examples: From `make_examples`. Prompt and reference are each dropped half of the time, so that the model also
            works without.
        settings: The `inpainter` section of params.yaml.
        seed: Seed of batches, noise and timesteps.
        out: Folder that gets the trained model; None leaves that to the caller.
        resume_path: Where to keep what a killed run needs to continue; removed once the model lies in `out`.

    Returns:
        The curve: rows of {step, loss}, means over 50 steps.

    Source: min-SNR weights for velocities, Hang et al. 2023, section 3.4.
    """
    # a transformer in eval mode: in training mode it would leave out its one class at random
    denoiser = inpainter.denoiser.train(isinstance(inpainter.denoiser, UNet2DModel))
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=settings.lr)
    ema = EMAModel(denoiser.parameters(), decay=settings.ema)
    noising = DDPMScheduler.from_config(inpainter.scheduler.config)
    identity = {
        "settings": settings.model_dump(),
        "seed": seed,
        "start": weights_hash(denoiser),
        "scaling_factor": inpainter.scaling_factor,
        "data": hashlib.sha256(b"".join(part.numpy().tobytes() for part in examples)).hexdigest(),
        "code": code_hash(*Path(__file__).parent.glob("*.py")),
    }
    state = ResumeState(resume_path, identity, {"denoiser": denoiser, "ema": ema, "optimiser": optimiser})

    def loss_of(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, 4, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        chosen = torch.from_numpy(rng.integers(0, len(examples.latent), settings.batch))
        latent, masked_latent, mask, prompt, reference = (part[chosen] for part in examples)
        clean = latent * inpainter.scaling_factor
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.randint(0, noising.config.num_train_timesteps, (len(clean),), generator=generator)
        noisy = noising.add_noise(clean, noise, t)
        kept = (torch.rand(2, len(clean), 1, generator=generator) < 0.5).float()
        wish = torch.cat([prompt * kept[0], reference * inpainter.scaling_factor * kept[1]], dim=1)
        known = inpainter.known(masked_latent, mask)
        velocity = inpainter.predict(noisy, t, known, wish)
        weight = 1 + (settings.hole_weight - 1) * known[:, :1]
        if settings.snr_gamma is not None:
            snr = compute_snr(noising, t)[:, None, None, None]
            weight = weight * snr.clamp(max=settings.snr_gamma) / (snr + 1)
        return (weight * mse_loss(velocity, noising.get_velocity(clean, noise, t), reduction="none")).mean()

    history = descend(
        loss_of,
        optimiser,
        settings.steps,
        settings.lr,
        "inpainter",
        state,
        after=lambda: ema.step(denoiser.parameters()),
    )
    ema.copy_to(denoiser.parameters())
    denoiser.eval()
    if out is not None:
        inpainter.save(out)
        forget(resume_path)  # only now: a full disk loses no training
    return history

"""Train the first stage from a linear start, in four phases (none of it in the paper, which takes SD's autoencoder).

1. `encoder`: regress the encoder onto the whitened PCA code of the 8 x 8 patches, log-variance pulled to -6;
2. `decoder`: train the decoder alone from the exact PCA code plus a little noise;
3. `joint`: train both with the sampled posterior, MSE + kl_weight KL;
4. `refine`: the same from the moving average of the weights, on half-size images alone, where the detail is finest.

A linear start that takes two minutes is worth hours of training from scratch on a small machine. A vector-quantised
first stage (`kind: vq`) goes through the same phases, with the nearest code in place of the posterior's sample and the
commitment loss in place of the KL; its codes are placed by k-means when `joint` begins. Either kind may start from a
trained KL first stage instead (`start_from`), whose weights make the first two phases needless.
"""

import hashlib
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from diffusers.training_utils import EMAModel
from torch.nn.functional import mse_loss
from tqdm import tqdm

from asymlib.files import save_pretrained
from asymlib.models.first_stage import (
    build_first_stage,
    fetch_first_stage,
    inherit_first_stage,
    load_first_stage,
    normalise_stream,
    pretrained,
)
from asymlib.pixels import shrink
from asymlib.study.dataset.photographs import folder_photographs, packaged_photographs, readable_pixels
from asymlib.study.dataset.procedural import procedural_image
from asymlib.study.params import FirstStage
from asymlib.study.training.codebook import Codebook, perplexity, quantise
from asymlib.study.training.pca import PatchPCA
from asymlib.training.checkpoints import ResumeState, code_hash, forget, weights_hash
from asymlib.training.schedules import cosine_with_warmup

START_LOG_VARIANCE = -6.0
LARGEST = 512  # pixels of a photograph's shorter side; crops are of 64 px, most of them at half size
LATENT_NOISE = 0.02


def first_stage_images(settings: FirstStage, seed: int) -> list[np.ndarray]:
    """What the first stage is trained on: a folder's photographs (or the packaged ones) except the held-out ones, and
    procedural pictures of 256 px."""
    if settings.folder:
        photographs, _ = folder_photographs(settings.folder, smallest=2 * settings.crop)
    else:
        photographs = packaged_photographs()
    drawn = [procedural_image(256, np.random.default_rng([seed, 0, i])) for i in range(settings.procedural)]
    return [_at_most(i, LARGEST) for i in readable_pixels(p for p in photographs if p.split != "test")] + drawn


def _at_most(pixels: np.ndarray, side: int) -> np.ndarray:
    """A photograph whose shorter side has at most `side` pixels: all of a folder's stay in memory while it trains."""
    short = min(pixels.shape[:2])
    if short <= side:
        return pixels
    return shrink(pixels, *(round(extent * side / short) for extent in pixels.shape[:2]))


def provide_first_stage(
    settings: FirstStage, seed: int, home: Path, resume_path: Path | None = None
) -> AutoencoderKL | AutoencoderTiny | VQModel:
    """Put the first stage that a profile asks for into a folder, and load it.

    A bundled one is copied, one of the hub or of another folder fetched, a new one trained, with its curve beside it.

    Args:
        settings: The `first_stage` or `first_stage_vq` section of params.yaml.
        seed: Seed of a training.
        home: The folder.
        resume_path: Where a training keeps what it needs to continue.
    """
    if settings.source == "bundled":
        shutil.copytree(pretrained(settings.bundled), home, dirs_exist_ok=True)
    elif settings.source == "hub":
        fetch_first_stage(settings.repository, settings.revision, settings.subfolder, home)
    else:
        history = make_first_stage(settings, seed, home, resume_path)
        pd.DataFrame(history).to_csv(home / "curve.csv", index=False, float_format="%.6g")
    return load_first_stage(home)


def make_first_stage(settings: FirstStage, seed: int, out: Path, resume_path: Path | None = None) -> list[dict]:
    """Train a first stage, from nothing or from a trained one, and save it in diffusers' layout.

    Args:
        settings: The `first_stage` or `first_stage_vq` section of params.yaml.
        seed: Seed of everything.
        out: Folder for config.json and the safetensors file.
        resume_path: Where to keep what a killed run needs to continue.

    Returns:
        The training curve, see `train_first_stage`.
    """
    images = first_stage_images(settings, seed)
    codes = settings.codes if settings.kind == "vq" else None
    model = build_first_stage(settings.width, settings.layers, settings.groups, seed, codes)
    if settings.start_from:
        inherit_first_stage(model, load_first_stage(pretrained(settings.start_from)))
    ema, history = train_first_stage(model, images, settings, seed, resume_path)
    ema.copy_to(model.parameters())
    finish_first_stage(model.eval(), images, settings, seed)
    save_pretrained(model, out)
    forget(resume_path)  # only now: a full disk loses no training
    return history


def sample_crops(
    images: Sequence[np.ndarray],
    half_size: Sequence[np.ndarray],
    size: int,
    count: int,
    half_share: float,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Random square crops, mirrored at random: (count, 3, size, size) in [-1, 1]; a share of half-size images."""
    crops = []
    for _ in range(count):
        source = half_size if rng.random() < half_share else images
        image = source[rng.integers(len(source))]
        y, x = rng.integers(0, image.shape[0] - size + 1), rng.integers(0, image.shape[1] - size + 1)
        crop = image[y : y + size, x : x + size]
        crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_first_stage(
    model: AutoencoderKL | VQModel,
    images: Sequence[np.ndarray],
    settings: FirstStage,
    seed: int,
    resume_path: Path | None = None,
) -> tuple[EMAModel, list[dict]]:
    """Train in place and return the moving average of the weights with the curve.

    Args:
        model: From `build_first_stage`; a `VQModel` trains its codebook too.
        images: uint8 RGB arrays, each side at least twice `settings.crop`.
        settings: The `first_stage` section of params.yaml.
        seed: Seed of crops and noise; batches depend on (seed, step) alone.
        resume_path: Where to keep what a killed run needs to continue.

    Returns:
        The EMA (copy it into the model with `copy_to`) and rows of {step, phase, loss, psnr}, and for a
        `VQModel` the perplexity of the codes' average use.
    """
    half_size = [cv2.resize(i, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for i in images]
    rng = np.random.default_rng([seed, 1])
    pca = PatchPCA(sample_crops(images, half_size, settings.crop, 1024, settings.half_share, rng))
    ema = EMAModel(model.parameters(), decay=settings.ema)
    encoder_part = [*model.encoder.parameters(), *model.quant_conv.parameters()]
    decoder_part = [*model.post_quant_conv.parameters(), *model.decoder.parameters()]
    both = [*encoder_part, *decoder_part]
    codebook = None
    if isinstance(model, VQModel):
        codes = model.quantize.embedding.weight
        codebook = Codebook(codes, settings.code_decay, settings.dead_below)
        codes.requires_grad_(settings.codebook == "gradient")
        both += [codes] if codes.requires_grad else []
    phases = [
        ("encoder", settings.encoder_steps, settings.lr_warm, encoder_part),
        ("decoder", settings.decoder_steps, settings.lr_warm, decoder_part),
        ("joint", settings.joint_steps, settings.lr_joint, both),
        ("refine", settings.refine_steps, settings.lr_refine, both),
    ][2 if settings.start_from else 0 :]
    optimisers = {name: torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.99)) for name, _, lr, parameters in phases}
    identity = {
        "settings": settings.model_dump(),
        "seed": seed,
        "start": weights_hash(model),
        "images": hashlib.sha256(b"".join(map(np.ascontiguousarray, images))).hexdigest(),
        "code": code_hash(*Path(__file__).parent.glob("*.py")),
    }
    modules = {"model": model, "ema": ema, **optimisers} | ({"codebook": codebook} if codebook else {})
    state = ResumeState(resume_path, identity, modules)
    start, history = state.restore()

    total = sum(steps for _, steps, _, _ in phases)
    schedule = [(name, i, steps, lr) for name, steps, lr, _ in phases for i in range(steps)]
    progress = tqdm(range(start, total), initial=start, total=total, desc="first stage", mininterval=5)
    for step in progress:
        phase, i, steps, lr = schedule[step]
        rng = np.random.default_rng([seed, 2, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        half_share = 1.0 if phase == "refine" else settings.half_share
        image = sample_crops(images, half_size, settings.crop, settings.batch, half_share, rng)
        if phase == "refine" and i == 0:
            ema.copy_to(model.parameters())
        optimiser = optimisers[phase]
        optimiser.param_groups[0]["lr"] = cosine_with_warmup(lr, i, steps)
        if codebook and phase == "joint" and i == 0:
            _fit_codebook(model, codebook, images, half_size, settings, seed)

        if phase == "encoder":
            mean, pull = _encode(model, image)
            loss = mse_loss(mean, pca.encode(image)) + 0.01 * pull
            error = mse_loss(pca.decode(mean.detach()), image)
        else:
            if phase == "decoder":
                latent, penalty = pca.encode(image), 0.0
                latent = latent + LATENT_NOISE * torch.randn(latent.shape, generator=generator)
            elif codebook:
                before = model.encode(image).latents
                quantised = quantise(before, codes)
                latent, penalty = quantised.latent, settings.commitment * quantised.commitment
                if codes.requires_grad:
                    penalty = penalty + quantised.codebook
            else:
                posterior = model.encode(image).latent_dist
                latent, penalty = posterior.sample(generator), settings.kl_weight * posterior.kl().mean()
            image_hat = model.decoder(model.post_quant_conv(latent))
            error = mse_loss(image_hat, image)
            loss = error + penalty
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
        optimiser.step()
        if codebook and phase in ("joint", "refine"):
            codebook.follow(before, quantised.index, average=not codes.requires_grad)
            codebook.revive(before, generator)
        ema.step(model.parameters())

        if step % 50 == 49:
            row = {"step": step + 1, "phase": phase, "loss": loss.item(), "psnr": 10 * math.log10(4 / error.item())}
            if codebook:
                row["perplexity"] = perplexity(codebook.share)
            history.append(row)
            progress.set_postfix(phase=phase, psnr=f"{row['psnr']:.2f}")
        state.keep(step + 1, history, last=step + 1 == total)
    return ema, history


def _encode(model: AutoencoderKL | VQModel, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | float]:
    """What becomes the latent, (N, C, h, w), and how far a posterior's log-variance is from where it starts."""
    if isinstance(model, VQModel):
        return model.encode(image).latents, 0.0
    posterior = model.encode(image).latent_dist
    return posterior.mean, (posterior.logvar - START_LOG_VARIANCE).square().mean()


@torch.no_grad()
def _fit_codebook(model: VQModel, codebook: Codebook, images, half_size, settings: FirstStage, seed: int) -> None:
    """Place the codes by k-means on the latents of 512 crops."""
    crops = sample_crops(images, half_size, settings.crop, 512, settings.half_share, np.random.default_rng([seed, 3]))
    latents = torch.cat([model.encode(part).latents for part in crops.split(32)])
    codebook.fit(latents, torch.Generator().manual_seed(seed))


@torch.no_grad()
def finish_first_stage(
    model: AutoencoderKL | VQModel, images: Sequence[np.ndarray], settings: FirstStage, seed: int
) -> None:
    """Bring the decoder's stream to unit deviation (see `normalise_stream`), and store the factor that does it for the
    latent: 1 / standard deviation of the encoder's output (posterior mean, or before quantisation) on 256 crops."""
    crops = sample_crops(images, images, settings.crop, 256, 0.0, np.random.default_rng([seed, 5]))
    latent, _ = _encode(model, crops)
    entry = model.quantize(latent)[0] if isinstance(model, VQModel) else latent
    normalise_stream(model.decoder, model.post_quant_conv(entry))
    model.register_to_config(scaling_factor=float(1 / latent.std()))

"""Known pixels before the decoder is trained: the layers that make them, fitted to features computed once.

Beyond a pixel from the hole, a known pixel is made by two convolutions and the normalisation between them (see
`models.decoder`): the branch's first layer and the decoder's last. To learn these through a whole decoder costs over a
hundred times as much a step as to learn them alone, on the trunk's last features, which stay as they are meanwhile.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import l1_loss, mse_loss
from tqdm import tqdm

from asymlib.masks import training_masks
from asymlib.models.decoder import AsymmetricDecoder, AsymmetricVQGAN
from asymlib.models.first_stage import decoder_input
from asymlib.training.checkpoints import code_hash, load_tensors, save_tensors, weights_hash
from asymlib.training.decoder import decode_macs
from asymlib.training.schedules import warmup_then_cosine

WINDOW = 64  # pixels a side of what is kept of a picture, so that 1,024 of them take 2 GiB at Stable Diffusion's width
WARMUP, LR_FLOOR = 20, 0.01
LR_BRANCH = 2e-3  # of the branch in the training that follows: a quarter of an unfitted one's kept known pixels better
FULL_MASK_SHARE = 0.1  # enough for the last layers not to forget what the hole needs of them


@dataclass(frozen=True)
class FittingSettings:
    """How `fit_known_pixels` fits.

    Args:
        pictures: Of which the features are kept.
        steps: Optimiser steps.
        batch: Pictures of a step.
        lr: Adam's rate.
    """

    pictures: int = 1024
    steps: int = 8000
    batch: int = 8
    lr: float = 1e-2


def fit_known_pixels(
    vqgan: AsymmetricVQGAN,
    batches: Iterator[tuple],
    settings: FittingSettings = FittingSettings(),
    seed: int = 0,
    kept: Path | None = None,
    data_hash: str = "",
) -> None:
    """Fit the branch's first layer with its blend, and the decoder's last normalisation and convolution, in place.

    The loss is of the whole picture, so that the hole keeps what the trunk makes of the latent. The branch's deeper
    layers are not heard yet: where they replace the trunk's features, untrained ones disturb the hole afterwards.

    Args:
        vqgan: From `asymmetric_vqgan`, its trunk trained.
        batches: Of (image, latent, ...) as `training.decoder.batches` makes them.
        settings: How.
        seed: Seed of windows, choices and masks.
        kept: A file for what was fitted: a training that was killed goes on from the very same weights. Whoever trains
            removes it at the end.
        data_hash: Identity of the data, so that a fit to others is not taken from there.

    Raises:
        ValueError: There is no condition branch, or its blend mixes channels, or an image is not its latent's size.
    """
    decoder = vqgan.decoder
    if decoder.condition_encoder is None:
        raise ValueError("vqgan: got a decoder without a condition branch, expected one to fit")
    blend = decoder.condition_encoder.condition.blend
    if blend not in ("replace", "gate"):
        raise ValueError(f"blend: got {blend!r}, expected 'replace' or 'gate', which leave channels apart, for a fit")
    identity = {"start": weights_hash(vqgan), "settings": json.dumps(asdict(settings)), "seed": str(seed)}
    identity |= {"data": data_hash, "code": code_hash()}
    if kept is not None and kept.is_file():
        tensors, of = load_tensors(kept)
        if of == identity:
            decoder.load_state_dict(tensors, strict=False)
            return
    _fit(vqgan, batches, settings, seed)
    if kept is not None:
        fitted = {name for name, _ in _fitted(decoder)}
        save_tensors(kept, {n: tensor for n, tensor in decoder.state_dict().items() if n in fitted}, identity)


def _fitted(decoder: AsymmetricDecoder) -> list[tuple[str, nn.Parameter]]:
    of = ("condition_encoder.layers.0.", "condition_encoder.blends.0.", "conv_norm_out.", "conv_out.")
    return [(name, parameter) for name, parameter in decoder.named_parameters() if name.startswith(of)]


def _fit(vqgan: AsymmetricVQGAN, batches: Iterator[tuple], settings: FittingSettings, seed: int) -> None:
    decoder = vqgan.decoder
    rng = np.random.default_rng([seed, 61])
    image, features = _pictures_and_features(vqgan, batches, settings.pictures, rng)
    unit = _unit(features, decoder.conv_norm_out)
    features /= unit  # what the normalisation undoes; the branch starts at unit size, and Adam's steps are of that size
    branch, was = decoder.condition_encoder, {p: p.requires_grad for p in decoder.parameters()}
    fitted = [parameter for _, parameter in _fitted(decoder)]
    for parameter in was:
        parameter.requires_grad_(False)
    for parameter in fitted:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(fitted, betas=(0.9, 0.99))
    for step in tqdm(range(settings.steps), desc="known pixels", mininterval=5):
        optimiser.param_groups[0]["lr"] = settings.lr * warmup_then_cosine(step, settings.steps, WARMUP, LR_FLOOR)
        chosen = torch.from_numpy(rng.integers(0, len(image), settings.batch))
        mask = training_masks(settings.batch, image.shape[-1], FULL_MASK_SHARE, rng).to(image.device)
        image_hat = _last_layers(decoder, features[chosen], image[chosen], mask)
        loss = l1_loss(image_hat, image[chosen]) + mse_loss(image_hat, image[chosen]) / 2
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    for parameter, learns in was.items():
        parameter.requires_grad_(learns)
    with torch.no_grad():
        branch.layers[0].weight *= unit.view(-1, 1, 1, 1)
        branch.layers[0].bias *= unit.view(-1)


def fitting_macs(vqgan: AsymmetricVQGAN, settings: FittingSettings, side: int) -> int:
    """Multiply-accumulates of a fit: the trunk once for each picture, then forward and backward of two convolutions.

    Args:
        vqgan: The model.
        settings: How.
        side: Of the pictures in pixels.
    """
    side = min(side, WINDOW)
    last = vqgan.decoder.condition_encoder.layers[0].weight.numel() + vqgan.decoder.conv_out.weight.numel()
    return settings.pictures * decode_macs(vqgan, side) + 3 * settings.steps * settings.batch * last * side**2


@torch.no_grad()
def _pictures_and_features(vqgan: AsymmetricVQGAN, batches, pictures: int, rng) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of as many pictures, in [-1, 1], and what the last normalisation is given there without a condition."""
    device, seen, features = vqgan.decoder.conv_out.weight.device, [], []
    with vqgan.decoder.conv_norm_out.register_forward_pre_hook(lambda _, given: features.append(given[0])):
        while sum(map(len, seen)) < pictures:
            image, latent = (part.to(device) for part in next(batches)[:2])
            size = tuple(vqgan.factor * cells for cells in latent.shape[-2:])
            if tuple(image.shape[-2:]) != size:
                came = " x ".join(map(str, image.shape[-2:]))
                raise ValueError(f"image: got {came}, expected {size[0]} x {size[1]}, the size of its latent")
            cells = min(latent.shape[-1], WINDOW // vqgan.factor)
            y, x = rng.integers(0, latent.shape[-1] - cells + 1, 2)
            vqgan.decoder(decoder_input(vqgan, latent[..., y : y + cells, x : x + cells]))
            top, left, side = (extent * vqgan.factor for extent in (y, x, cells))
            seen.append(image[..., top : top + side, left : left + side])
    return torch.cat(seen), torch.cat(features)


def _unit(features: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    """(C, 1, 1): the deviation of each channel's group; 1 where no normalisation follows."""
    if not isinstance(norm, nn.GroupNorm):
        return features.new_ones(features.shape[1], 1, 1)
    deviation = features.unflatten(1, (norm.num_groups, -1)).std((0, 2, 3, 4))
    return deviation.repeat_interleave(features.shape[1] // norm.num_groups).view(-1, 1, 1)


def _last_layers(decoder: AsymmetricDecoder, features, image, mask) -> torch.Tensor:
    branch = decoder.condition_encoder
    known = branch.layers[0](branch.seen(image, mask))
    return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(branch.blend(0, features, [known], mask))))

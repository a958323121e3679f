"""How good a latent inpainter is, on photographs that it was not trained on.

    python -m asymlib.study.evaluation.inpainter MODEL [MODEL ...] --folder photos [--sheet SHEET]

prints the numbers of its card for each model, on the photographs of photos/val: all models get the same photographs,
masks, noise and timesteps. With --sheet it also writes what a judge needs who shall not know which model is which.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from asymlib import metrics
from asymlib.editing.compositing import paste_hard
from asymlib.files import written_folder
from asymlib.masks import training_masks
from asymlib.models.first_stage import FirstStage, encode_means, load_first_stage, pretrained
from asymlib.models.inpainter import LatentInpainter
from asymlib.pixels import to_picture, to_uint8
from asymlib.study.dataset.photographs import folder_photographs
from asymlib.study.evaluation.distribution import PooledEffNet, kid
from asymlib.study.evaluation.generation import decode_all
from asymlib.study.evaluation.protocol import plain
from asymlib.study.evaluation.reconstruction import half_scale_crops, reconstruct
from asymlib.study.training.inpainter import Examples, make_examples

HOLE_SIDE = 64  # pixels that a hole's crop is brought to
STEPS = 20


@torch.no_grad()
def validation_loss(inpainter: LatentInpainter, examples: Examples, seed: int, draws: int = 8) -> float:
    """Mean square error of the velocity, unweighted and without a wish.

    Args:
        inpainter: The model.
        examples: From `make_examples`, of pictures that it was not trained on.
        seed: Seed of noise and timesteps.
        draws: How many of both for each example; the timesteps are spread evenly over all.
    """
    clean = examples.latent * inpainter.scaling_factor
    known = inpainter.known(examples.masked_latent, examples.mask)
    wish = torch.zeros(len(clean), inpainter.denoiser.config.in_channels - clean.shape[1] - known.shape[1])
    generator, last = torch.Generator().manual_seed(seed), inpainter.scheduler.config.num_train_timesteps
    places = torch.randperm(draws * len(clean), generator=generator).add(0.5).div(draws * len(clean))
    losses = []
    for t in (places * last).long().split(len(clean)):
        noise = torch.randn(clean.shape, generator=generator)
        noisy = inpainter.scheduler.add_noise(clean, noise, t)
        velocity = inpainter.predict(noisy, t, known, wish)
        losses.append((velocity - inpainter.scheduler.get_velocity(clean, noise, t)).square().mean())
    return torch.stack(losses).mean().item()


@torch.no_grad()
def fill(
    inpainter: LatentInpainter, first_stage: FirstStage, masked_latent: torch.Tensor, mask: torch.Tensor, seed: int
) -> torch.Tensor:
    """What the vanilla decoder makes of the model's latents for (N, C, h, w) and (N, 1, H, W): (N, 3, H, W)."""
    latent = inpainter.sample(masked_latent, mask, STEPS, seed)
    return decode_all(plain(first_stage), latent, 8)


def known_ratio(image: torch.Tensor, filled: torch.Tensor, own: torch.Tensor, mask: torch.Tensor) -> float:
    """Mean square error of known pixels over that of own latents, both decoded: what a nine-channel model does to what
    it should leave alone. 1 is the least that a decoder without a branch can have.

    Args:
        image: (N, 3, H, W) in [-1, 1].
        filled: The same shape, from `fill`.
        own: The same shape, reconstructed from the photographs' own latents.
        mask: (N, 1, H, W), 1 = hole.
    """
    errors = [metrics.pre_error((image + 1) / 2, (other + 1) / 2, mask).mean() for other in (filled, own)]
    return (errors[0] / errors[1]).item()


def hole_crops(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The square around each hole, brought to HOLE_SIDE: (N, 3, H, W) and (N, 1, H, W) -> (N, 3, 64, 64).

    The square has the longer side of the hole's box, at least HOLE_SIDE / 2, and lies inside the picture.
    """
    crops = []
    for picture, hole in zip(image, mask[:, 0] > 0, strict=True):
        places = hole.nonzero()
        low, high = places.amin(0), places.amax(0) + 1
        side = min(int((high - low).max().clamp(min=HOLE_SIDE // 2)), *picture.shape[1:])
        room = torch.tensor(picture.shape[1:]) - side
        y, x = torch.minimum(((low + high - side) // 2).clamp(min=0), room).tolist()
        cut = picture[None, :, y : y + side, x : x + side]
        crops.append(interpolate(cut, size=HOLE_SIDE, mode="bilinear", antialias=True)[0])
    return torch.stack(crops)


def numbers(
    inpainter: LatentInpainter, first_stage: FirstStage, image: torch.Tensor, masks_per_image: int, seed: int
) -> dict[str, float]:
    """The numbers of a card: `loss`, `known_ratio`, and `kid` of hole crops, known pixels pasted back, with its
    deviation between subsets.

    Args:
        inpainter: The model.
        first_stage: The frozen autoencoder.
        image: (N, 3, H, W) in [-1, 1], photographs that it was not trained on; at least 64.
        masks_per_image: Official masks for each.
        seed: Seed of masks, noise and timesteps.
    """
    examples = make_examples(first_stage, to_uint8((image + 1) / 2), masks_per_image, 0.0, seed)
    image, mask = image.repeat(masks_per_image, 1, 1, 1), examples.mask.float()
    filled = fill(inpainter, first_stage, examples.masked_latent, mask, seed)
    pasted = paste_hard(image, filled, mask)
    distance, deviation = kid(hole_crops(pasted, mask), hole_crops(image, mask), PooledEffNet(), 100, 64, seed)
    return {
        "pictures": len(image),
        "loss": validation_loss(inpainter, examples, seed),
        "known_ratio": known_ratio(image, filled, reconstruct(first_stage, image), mask),
        "kid": distance,
        "kid_deviation": deviation,
    }


def write_sheet(
    inpainters: dict[str, LatentInpainter],
    first_stage: FirstStage,
    image: torch.Tensor,
    count: int,
    seed: int,
    folder: Path,
) -> None:
    """Write `count` holes filled by two models, for a judge: hole_00.png with the picture and its hole, then the two in
    random order, known pixels pasted back; key.json says which was which.

    Args:
        inpainters: Two models by their names.
        first_stage: The frozen autoencoder.
        image: (N, 3, H, W) in [-1, 1].
        count: How many are drawn.
        seed: Draws photographs, masks, noise and the order.
        folder: Where to.
    """
    rng = np.random.default_rng([seed, 20])
    chosen = torch.from_numpy(rng.permutation(len(image))[:count])
    image, mask = image[chosen], training_masks(count, image.shape[-1], 0.0, rng)
    with torch.no_grad():
        masked = encode_means(first_stage, (1 - mask) * image)
    filled = {
        name: paste_hard(image, fill(model, first_stage, masked, mask, seed), mask)
        for name, model in inpainters.items()
    }
    key = {}
    with written_folder(folder) as temporary:
        for i in range(count):
            order = [list(filled)[j] for j in rng.permutation(len(filled))]
            shown = [torch.where(mask[i] > 0, 1.0, image[i]), *(filled[name][i] for name in order)]
            picture = to_picture(torch.cat(shown, dim=2)[None])
            large = (picture.width * 3, picture.height * 3)
            picture.resize(large, Image.Resampling.NEAREST).save(temporary / f"hole_{i:02d}.png")
            key[f"hole_{i:02d}"] = order
        (temporary / "key.json").write_text(json.dumps(key, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m asymlib.study.evaluation.inpainter", description="Numbers of a diffusion model's card."
    )
    parser.add_argument("models", nargs="+", type=Path, help="folders of models")
    parser.add_argument("--folder", type=Path, default=Path("photos"), help="photographs, see study/dataset/public.py")
    parser.add_argument("--masks", type=int, default=4, help="masks for each photograph")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="write twenty holes of two models there, for a judge")
    arguments = parser.parse_args()
    first_stage = load_first_stage(pretrained("first_stage"))
    image = half_scale_crops(p for p in folder_photographs(arguments.folder)[0] if p.split == "val")
    inpainters = {str(folder): LatentInpainter.load(folder) for folder in arguments.models}
    if arguments.sheet:
        write_sheet(inpainters, first_stage, image, 20, arguments.seed, arguments.sheet)
        return
    for name, inpainter in inpainters.items():
        values = numbers(inpainter, first_stage, image, arguments.masks, arguments.seed)
        print(json.dumps({"model": name} | {key: round(value, 4) for key, value in values.items()}), flush=True)


if __name__ == "__main__":
    main()

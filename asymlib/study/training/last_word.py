"""Train the last word on simulated artefacts: `python -m asymlib.study.training.last_word`, the stage `last_word`."""

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL
from torch.nn.functional import l1_loss, mse_loss

from asymlib.files import content_hash, save_pretrained
from asymlib.masks import dilate
from asymlib.models.first_stage import load_first_stage, pretrained
from asymlib.models.last_word import Carried, LastWord, calibrate
from asymlib.pixels import to_tensor
from asymlib.study import edits as contents
from asymlib.study.dataset import artefacts
from asymlib.study.dataset.artefacts import (
    Artefacts,
    Codec,
    autoencoder_codec,
    fixed_codecs,
    simulate,
    small_autoencoder,
)
from asymlib.study.dataset.images import load_images
from asymlib.study.params import LastWordSettings, Profile, load_params
from asymlib.study.provenance import provenance, write_json
from asymlib.study.reporting.tables import write_table
from asymlib.study.training.loop import descend
from asymlib.training.checkpoints import ResumeState, code_hash, forget, load_tensors, save_tensors, weights_hash

# small autoencoders that are trained for minutes: factor, channels, width, loss. The first is of far better quality.
SMALL = {
    "small_f4_c8": (4, 8, 24, l1_loss),
    "small_f8_c16": (8, 16, 24, mse_loss),
    "small_f8_c4": (8, 4, 16, l1_loss),
    "small_f16_c32": (16, 32, 16, mse_loss),
}
SIDE = 128  # pixels; a step sees as many as in `batch` edits of this size
WINDOW = 64  # pixels a side of what the convolutions are trained on
LEAST = 1 / 255  # of the errors that others are measured by: half a level of 255


def read_codecs(params: Profile, images: torch.Tensor) -> dict[str, Codec]:
    """Every codec of a profile; the small autoencoders are trained where they are not there yet.

    Args:
        params: The profile.
        images: (N, 3, S, S) uint8, its training images.
    """
    first_stages = {
        name: load_first_stage(params.checkpoints / name)
        for name in ("first_stage", "first_stage_vq")
        if (params.checkpoints / name).is_dir()
    }
    codecs = fixed_codecs(first_stages, images)
    for name, (factor, channels, width, loss) in SMALL.items():
        home = params.checkpoints / "codecs" / name
        if not (home / "config.json").is_file():
            model = small_autoencoder(factor, channels, width, params.seed)
            train_autoencoder(model, images, loss, params.last_word.codec_steps, params.seed)
            save_pretrained(model, home)
        codecs[name] = autoencoder_codec(AutoencoderKL.from_pretrained(home).eval(), images)
    return codecs


def train_autoencoder(model: AutoencoderKL, images: torch.Tensor, loss, steps: int, seed: int, crop: int = 64) -> None:
    """Train a small autoencoder on random crops, without noise in its latent, Adam at 2e-3.

    Args:
        model: From `small_autoencoder`.
        images: (N, 3, S, S) uint8.
        loss: Of (result, picture).
        steps: Of 8 crops.
        seed: Seed of the crops.
        crop: Side of a crop in pixels.
    """
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)

    def loss_of(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, 51, step])
        picture = torch.cat([_crop(images, crop, rng) for _ in range(8)])
        return loss(model.decode(model.encode(picture).latent_dist.mean).sample, picture)

    model.train()
    descend(loss_of, optimiser, steps, 2e-3, "small autoencoder")
    model.eval()


def _crop(images: torch.Tensor, size: int, rng: np.random.Generator) -> torch.Tensor:
    image = images[int(rng.integers(len(images)))]
    y, x = rng.integers(0, image.shape[-1] - size + 1, 2)
    return to_tensor(image[None, :, y : y + size, x : x + size])


def read_edits(
    codecs: dict[str, Codec], images: torch.Tensor, counts: dict[int, int], seed: int, path: Path
) -> dict[int, Artefacts]:
    """`simulate`, kept in a file: it takes as long as a training, which may be killed, or want another seed.

    Arguments as `simulate`'s; path, of a safetensors file, which is made anew where it is of others.
    """
    digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    code = code_hash(*(Path(module.__file__) for module in (artefacts, contents)))
    identity = json.dumps([seed, sorted(counts.items()), list(codecs), digest, code])
    if path.is_file():
        tensors, kept = load_tensors(path)
        if kept["identity"] == identity:
            kinds = {int(size): [tuple(kind) for kind in of] for size, of in json.loads(kept["kinds"]).items()}
            planes = {size: [tensors[f"{size}_{plane}"] for plane in Artefacts._fields[:4]] for size in kinds}
            return {size: Artefacts(*planes[size], kinds[size]) for size in kinds}
    made = simulate(codecs, images, counts, seed)
    tensors = {f"{size}_{plane}": getattr(of, plane) for size, of in made.items() for plane in Artefacts._fields[:4]}
    kinds = json.dumps({size: of.kinds for size, of in made.items()})
    save_tensors(path, tensors, {"identity": identity, "kinds": kinds})
    return made


def leave_out(edits: dict[int, Artefacts], kind: str) -> dict[int, Artefacts]:
    """The edits that have no codec, content or colour change of that name, to see whether it is missed.

    Raises:
        ValueError: None has one.
    """
    left = {size: of.without(kind) for size, of in edits.items()}
    if all(len(left[size].kinds) == len(of.kinds) for size, of in edits.items()):
        named = {part for of in edits.values() for kinds in of.kinds for part in "+".join(kinds).split("+") if part}
        raise ValueError(f"without is one of {', '.join(sorted(named))}, got {kind!r}")
    return left


def train_last_word(
    model: LastWord,
    edits: dict[int, Artefacts],
    settings: LastWordSettings,
    seed: int,
    out: Path | None = None,
    resume_path: Path | None = None,
) -> list[dict]:
    """Train on simulated edits; the convolutions on a window at the rim, all else on the whole picture.

    The loss compares three errors with the smaller of those that pasting leaves, of the edit as it is and calibrated:
    the hole within 4 px of the rim, the differences across the rim, and the hole's root mean square. It is the
    logarithm of their ratio: a picture that is easy counts as much as one that is not, one that went wrong no more than
    one that went right, and what pasting does better than the network is seen.

    Args:
        model: New.
        edits: From `simulate`.
        settings: The section `last_word` of params.yaml.
        seed: Seed of batches and windows.
        out: Where to save the model.
        resume_path: Where to keep what a killed run needs to continue; removed once the model lies in `out`.

    Returns:
        The curve: rows of {step, loss}, means over 50 steps.
    """
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.lr)
    identity = {
        "settings": settings.model_dump(),
        "seed": seed,
        "start": weights_hash(model),
        "data": hashlib.sha256(b"".join(p.numpy().tobytes() for e in edits.values() for p in e[:4])).hexdigest(),
        "code": code_hash(*Path(__file__).parent.glob("*.py")),
    }
    state = ResumeState(resume_path, identity, {"model": model, "optimiser": optimiser})
    weight = np.array([len(of.photo) * size**2 for size, of in edits.items()], float)

    def loss_of(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, 52, step])
        size = int(rng.choice(list(edits), p=weight / weight.sum()))
        chosen = rng.integers(0, len(edits[size].photo), max(1, round(settings.batch * SIDE**2 / size**2)))
        return _loss(model, *_batch(edits[size], chosen), rng)

    history = descend(loss_of, optimiser, settings.steps, settings.lr, "last word", state)
    if out is not None:
        save_pretrained(model, out)
        forget(resume_path)  # only now: a full disk loses no training
    return history


def _batch(edits: Artefacts, chosen: np.ndarray) -> list[torch.Tensor]:
    """Photo, edited and meant in [-1, 1], and the mask."""
    return [to_tensor(plane[chosen]) for plane in edits[:3]] + [edits.mask[chosen].float()]


def _loss(model: LastWord, photo, edited, meant, mask, rng: np.random.Generator) -> torch.Tensor:
    known = 1 - mask
    whole, film = model.carry(photo, edited, known)
    pasted = [edited, calibrate(photo, edited, mask)]
    loss = _relative(
        _errors(whole.edited, meant, mask, whole.inside), [_errors(p, meant, mask, whole.inside) for p in pasted]
    )
    corners = [_window(hole, rng) for hole in mask]
    part = Carried(*(_windows(plane, corners) for plane in whole))
    meant, *pasted = (_windows(plane, corners) for plane in (meant, *pasted))
    hole = 1 - part.known
    finished = part.edited + model.give_back(part, film)
    errors = [_errors(picture, meant, hole, part.inside) for picture in (finished, *pasted)]
    return loss + _relative(errors[0], errors[1:])


def _errors(picture, meant, hole, inside) -> torch.Tensor:
    """(3, N): absolute within 4 px of the rim, differences across the rim, and root mean square of the hole."""
    error = hole * (picture.clamp(-1, 1) - meant)
    rim = hole * (inside <= 4)
    absolute = (error.abs() * rim).sum((1, 2, 3)) / (3 * rim.sum((1, 2, 3))).clamp(min=1)
    edge = hole * dilate(1 - hole, 1)
    down, across = (torch.diff(error, dim=dim, prepend=error.narrow(dim, 0, 1)).abs() for dim in (2, 3))
    steps = ((down + across) * edge).sum((1, 2, 3)) / (3 * edge.sum((1, 2, 3))).clamp(min=1)
    square = error.square().sum((1, 2, 3)) / (3 * hole.sum((1, 2, 3))).clamp(min=1)
    return torch.stack([absolute, steps, (square + LEAST**2).sqrt()])


def _relative(errors: torch.Tensor, others: list[torch.Tensor]) -> torch.Tensor:
    """Mean logarithm of the errors as a share of the smallest of others."""
    return ((errors + LEAST) / (torch.stack(others).amin(0).detach() + LEAST)).log().mean()


def _window(mask: torch.Tensor, rng: np.random.Generator) -> tuple[int, int]:
    """The corner of a window around a pixel of the rim of (1, H, W)."""
    rim = (mask * dilate(1 - mask[None], 1)[0])[0].nonzero()
    at = rim[int(rng.integers(len(rim)))].tolist() if len(rim) else [extent // 2 for extent in mask.shape[-2:]]
    return tuple(
        int(np.clip(place - rng.integers(WINDOW), 0, max(0, extent - WINDOW)))
        for place, extent in zip(at, mask.shape[-2:], strict=True)
    )


def _windows(plane: torch.Tensor, corners: list[tuple[int, int]]) -> torch.Tensor:
    return torch.stack([p[:, y : y + WINDOW, x : x + WINDOW] for p, (y, x) in zip(plane, corners, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m asymlib.study.training.last_word", description=__doc__)
    parser.add_argument("--profile", default="default")
    parser.add_argument("--seed", type=int, help="of weights and batches; the profile's if not given")
    parser.add_argument("--without", help="a codec, content or colour change to leave out")
    parser.add_argument("--out", type=Path, help="where to write; the profile's checkpoints if not given")
    arguments = parser.parse_args()
    try:
        params = load_params(arguments.profile)
        run(params, params.seed if arguments.seed is None else arguments.seed, arguments.without, arguments.out)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def run(params: Profile, seed: int, without: str | None = None, out: Path | None = None) -> None:
    """The stage: codecs, edits, training, or what ships; the model in checkpoints, its record and curve in results.

    With `out` all three lie there, as in what ships.
    """
    torch.set_num_threads(params.threads)
    settings = params.last_word
    home, results = out or params.checkpoints / "last_word", out or params.results / "last_word"
    results.mkdir(parents=True, exist_ok=True)
    if settings.source == "bundled":
        bundled = pretrained("last_word")
        save_pretrained(LastWord.from_pretrained(bundled), home)
        for name in ("record.json", "curve.csv"):
            shutil.copy(bundled / name, results / name)
        return
    images, _ = load_images(params.data / "images", "train")
    data = content_hash(params.data / "images" / "manifest.csv")
    record = provenance(settings=settings.model_dump(), seed=seed, without=without, data=data)
    codecs = read_codecs(params, images)
    kept = params.resume_path("edits").with_suffix(".safetensors")
    edits = read_edits(codecs, images, settings.edits, params.seed, kept)
    if without:
        edits = leave_out(edits, without)
    model = LastWord(settings.width, seed=seed)
    curve = train_last_word(model, edits, settings, seed, home, params.resume_path(home.name))
    write_table(pd.DataFrame(curve), results / "curve.csv")
    write_json(record | {"codecs": list(codecs), "loss": curve[-1]["loss"]}, results / "record.json")


if __name__ == "__main__":
    main()

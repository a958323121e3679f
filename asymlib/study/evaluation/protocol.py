"""How decoders are compared: one latent, one mask and, where the hole has a right answer, one reference for all.

The sources of the latent are those of `study.sources`. Known pixels are compared with the photograph. The hole is
compared with its reference where it has one, and everywhere with what the vanilla decoder makes of the same latent.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from PIL import Image
from tqdm import tqdm

from asymlib import metrics
from asymlib.editing.compositing import paste_hard
from asymlib.files import written
from asymlib.models.decoder import load_vqgan
from asymlib.models.features import EffNetFeatures
from asymlib.models.first_stage import FirstStage, encode_means
from asymlib.models.inpainter import LatentInpainter
from asymlib.models.last_word import LastWord
from asymlib.study.dataset.images import Pairs
from asymlib.study.edits import recoloured, removed
from asymlib.study.params import Profile
from asymlib.study.sources import EDGED
from asymlib.training.latents import swap_holes

Decode = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Paste = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
HARD: dict[str, Paste] = {"paste_hard": paste_hard}


class Task(NamedTuple):
    """What a decoder is given, the latent, and what it should return, the reference (N, 3, H, W) in [-1, 1]: outside
    the hole the photograph, in it what `study.sources.REFERENCES` says; None where the hole has no right answer."""

    latent: torch.Tensor
    reference: torch.Tensor | None = None


def make_tasks(
    first_stage: FirstStage, inpainter: LatentInpainter | None, pairs: Pairs, sampling_steps: int, seed: int
) -> dict[str, Task]:
    """The latents of `sources.SOURCES`, with the references of those that have one.

    Args:
        first_stage: The frozen autoencoder.
        inpainter: The latent diffusion model of its latents; without one there is no `inpainted` and no `blended`.
        pairs: Images and masks.
        sampling_steps: DDIM steps.
        seed: Seed of the colours of `recoloured` and of the diffusion model's noise.
    """
    own = encode_means(first_stage, pairs.image)
    other = other_photograph(pairs.table["photograph"].tolist(), pairs.table["stratum"].tolist())
    reference, swapped = swap_holes(pairs.image, own, pairs.mask, other)
    tasks = {"own": Task(own, pairs.image), "swapped": Task(swapped, reference)}
    edited = {"removed": removed(pairs.image, pairs.mask), "recoloured": recoloured(pairs.image, pairs.mask, seed)}
    tasks |= {source: Task(encode_means(first_stage, picture), picture) for source, picture in edited.items()}
    if inpainter is not None:
        for source, keep in {"inpainted": None, "blended": own}.items():
            tasks[source] = Task(fill_holes(first_stage, inpainter, pairs, sampling_steps, seed, keep))
    return tasks


def fill_holes(
    first_stage: FirstStage,
    inpainter: LatentInpainter,
    pairs: Pairs,
    sampling_steps: int,
    seed: int,
    keep: torch.Tensor | None = None,
) -> torch.Tensor:
    """The diffusion model's latents (N, C, h, w) of the masked images, not scaled.

    Arguments as in `make_tasks`, and `keep` as in `LatentInpainter.sample`.
    """
    masked = encode_means(first_stage, (1 - pairs.mask) * pairs.image)
    return inpainter.sample(masked, pairs.mask, sampling_steps, seed, keep=keep)


def other_photograph(photographs: list[str], strata: list[str]) -> list[int]:
    """For each index, one of the same stratum whose photograph differs: the first from half-way round on.

    Raises:
        ValueError: A stratum has one photograph only.
    """
    others = []
    for i, (photograph, stratum) in enumerate(zip(photographs, strata, strict=True)):
        around = [(i + len(photographs) // 2 + j) % len(photographs) for j in range(len(photographs))]
        fitting = [j for j in around if strata[j] == stratum and photographs[j] != photograph]
        if not fitting:
            raise ValueError(
                f"photographs: got only {photograph!r} in stratum {stratum!r}, expected at least two to swap between"
            )
        others.append(fitting[0])
    return others


def plain(first_stage: FirstStage) -> Decode:
    """The first stage's own decoder, `vanilla`, which makes nothing of image and mask."""
    return lambda latent, image, mask: first_stage.decode(latent).sample


def read_decoders(params: Profile, first_stage: FirstStage, on: str = "first_stage") -> dict[str, Decode]:
    """Every decoder of a profile on one of its first stages by its name, `vanilla` first.

    They compute on a GPU where there is one, whatever they are given, and give back what lies where the latent lies.

    Raises:
        FileNotFoundError: A trained decoder is missing.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    first_stage = first_stage.to(device)
    decoders = {"vanilla": plain(first_stage)}
    for name in (name for name, row in params.decoders.items() if row.first_stage == on):
        decoders[name] = load_vqgan(params.checkpoints / "decoders" / name).to(device).decode
    return {name: partial(_decode_on, device, decode) for name, decode in decoders.items()}


def finished(params: Profile, vanilla: Decode) -> Decode:
    """The plain decoder and the last word, which was not trained for it but for many, as one decoder."""
    last_word = LastWord.from_pretrained(params.checkpoints / "last_word").eval()
    return lambda latent, image, mask: last_word(image, vanilla(latent, image, mask), mask)


def _decode_on(device: str, decode: Decode, latent: torch.Tensor, *condition: torch.Tensor | None) -> torch.Tensor:
    moved = [None if tensor is None else tensor.to(device) for tensor in (latent, *condition)]
    return decode(*moved).to(latent.device)


@torch.no_grad()
def decode_in_batches(decode: Decode, task: Task, pairs: Pairs, batch: int) -> torch.Tensor:
    """Decode every latent with its image and mask: (N, 3, H, W), clamped to [-1, 1]."""
    parts = zip(task.latent.split(batch), pairs.image.split(batch), pairs.mask.split(batch), strict=True)
    return torch.cat([decode(latent, image, mask) for latent, image, mask in parts]).clamp(-1, 1)


def evaluate(
    decoders: dict[str, Decode],
    vanilla: Decode,
    tasks: dict[str, Task],
    pairs: Pairs,
    batch: int,
    seed: int,
    pastes: dict[str, Paste] = HARD,
    accelerator: Accelerator | None = None,
) -> pd.DataFrame:
    """Decode every task with every decoder and measure the result, as it comes and with the known pixels pasted back.

    Args:
        decoders: From `read_decoders`.
        vanilla: The plain decoder of the same first stage, which `seam_added` and `hole_changed` compare with; it may
            be one of `decoders` and is decoded once either way.
        tasks: From `make_tasks`.
        pairs: Images and masks.
        batch: Images that are decoded at a time.
        seed: For the rows.
        pastes: The ways of pasting back by their names.
        accelerator: Shares the work between the processes of a launch, which all get the whole table. A process takes
            whole batches, so that the numbers are those of one process to the last digit.

    Returns:
        Rows as `rows_of` makes them, for each source with the metrics that mean something there, see `measure`; a
        pasted variant of NAME is NAME_PASTE, such as vanilla_paste_poisson.
    """
    process, processes, device = 0, 1, torch.device("cpu")
    if accelerator is not None:
        process, processes, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    features, parts = EffNetFeatures().to(device), []
    positions = torch.arange(len(pairs.image)).split(batch)
    work = [(source, i) for source in tasks for i in range(process, len(positions), processes)]
    measured = []
    for source, i in tqdm(work, desc="batches", disable=process > 0):
        some, edged = _part(tasks[source], pairs, positions[i], device), source in EDGED
        measured.append((source, i, _measure_batch(decoders, vanilla, pastes, *some, features, edged)))
    if processes > 1:
        measured = sorted(gather_object(measured), key=lambda part: part[1])
    for variant in (name + suffix for name in decoders for suffix in ["", *(f"_{paste}" for paste in pastes)]):
        for source in tasks:
            values = [of_variants[variant] for of, _, of_variants in measured if of == source]
            whole = {metric: torch.cat([v[metric] for v in values]) for metric in values[0]}
            parts.append(rows_of(whole, pairs, variant, source, seed))
    return pd.concat(parts, ignore_index=True)


def _part(
    task: Task, pairs: Pairs, chosen: torch.Tensor, device: torch.device
) -> tuple[Task, torch.Tensor, torch.Tensor]:
    """Some of a task's pairs on a device: task, image and mask."""
    latent, image, mask = (tensor[chosen].to(device) for tensor in (task.latent, pairs.image, pairs.mask))
    return Task(latent, None if task.reference is None else task.reference[chosen].to(device)), image, mask


@torch.no_grad()
def _measure_batch(
    decoders: dict[str, Decode],
    vanilla: Decode,
    pastes: dict[str, Paste],
    task: Task,
    image: torch.Tensor,
    mask: torch.Tensor,
    features: EffNetFeatures,
    edged: bool,
) -> dict[str, dict[str, torch.Tensor]]:
    """Variant -> metrics of some pairs. All variants are measured together: they have the references in common."""
    plainly, results = vanilla(task.latent, image, mask).clamp(-1, 1), {}
    for name, decode in decoders.items():
        results[name] = plainly if decode is vanilla else decode(task.latent, image, mask).clamp(-1, 1)
        results |= {f"{name}_{paste}": put_back(image, results[name], mask) for paste, put_back in pastes.items()}
    together = torch.stack(list(results.values()))
    measured = measure(image, task.reference, plainly, together, mask, features, edged)
    return {variant: {metric: v[i].cpu() for metric, v in measured.items()} for i, variant in enumerate(results)}


@torch.no_grad()
def store_results(
    decoders: dict[str, Decode],
    task: Task,
    pairs: Pairs,
    variants: list[str],
    chosen: list[int],
    batch: int,
    folder: Path,
) -> None:
    """Write some results as pictures, 8 bits a channel, so that their metrics can be computed again: PAIR_VARIANT.png,
    PAIR_mask.png, and what they are compared with as PAIR_reference.png.

    That is the photograph outside the hole. Inside it is the reference of the task; the photograph again, and no right
    answer, where the task has none. `vanilla` among the variants is what `seam_added` and `hole_changed` need. Results
    are decoded in the batches of `evaluate`: alone, the last bits of a float would be others.

    Args:
        decoders: From `read_decoders`.
        task: The latents of one source.
        pairs: Images and masks.
        variants: Decoders; a name that ends in `_paste_hard` is pasted back.
        chosen: Which of the pairs.
        batch: Images that `evaluate` decoded at a time.
        folder: Where to.
    """
    for i in chosen:
        start = i // batch * batch
        latent, image, mask = (t[start : start + batch] for t in (task.latent, pairs.image, pairs.mask))
        reference = pairs.image if task.reference is None else task.reference
        pictures = {"reference": reference[i], "mask": 2 * pairs.mask[i].expand(3, -1, -1) - 1}
        for variant in variants:
            name = variant.removesuffix("_paste_hard")
            image_hat = decoders[name](latent, image, mask).clamp(-1, 1)
            pictures[variant] = (image_hat if name == variant else paste_hard(image, image_hat, mask))[i - start]
        for variant, picture in pictures.items():
            with written(folder / f"{pairs.table['mask'].iloc[i]}_{variant}.png") as temporary:
                pixels = metrics.to_uint8((picture + 1) / 2).permute(1, 2, 0).numpy()
                Image.fromarray(pixels).save(temporary, format="png")


@torch.no_grad()
def measure(
    image: torch.Tensor,
    reference: torch.Tensor | None,
    vanilla: torch.Tensor,
    image_hat: torch.Tensor,
    mask: torch.Tensor,
    features: EffNetFeatures,
    edged: bool = False,
) -> dict[str, torch.Tensor]:
    """All metrics per image that mean something there.

    Args:
        image: The photograph, (N, 3, H, W) in [-1, 1].
        reference: What the result should be, likewise, or None where the hole has no right answer: then nothing is
            measured that compares a pixel of the hole with one.
        vanilla: The vanilla decoder's picture of the same latent, likewise.
        image_hat: (N, 3, H, W) in [-1, 1], or several results (V, N, 3, H, W).
        mask: (N, 1, H, W), 1 = hole.
        features: The feature network of the perceptual distances.
        edged: Whether the picture has an edge of its own along the mask's, see EDGED.

    Returns:
        Metric -> (N,), or (V, N).
    """
    values = measure_known(image, image_hat, mask) | measure_added(vanilla, image_hat, mask, edged)
    if reference is not None:
        values |= measure_against(reference, image_hat, mask, features)
    return values


def measure_known(image: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """What became of the known pixels; arguments and result as `measure`'s."""
    x, y = (image + 1) / 2, (image_hat + 1) / 2
    return {
        "pre_error": metrics.pre_error(x, y, mask),
        "pre_error_all": metrics.pre_error_all(x, y, mask),
        "pre_error_uint8": metrics.pre_error(x, metrics.to_uint8(y).float() / 255, mask),
        "rounding_floor": metrics.rounding_floor(y, mask),
        "psnr_kept": metrics.psnr_kept(x, y, mask),
        "max_abs_uint8": metrics.max_abs_uint8(x, y, mask),
        "changed_pixels": metrics.changed_pixels(x, y, mask),
    }


def measure_added(
    vanilla: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor, edged: bool = False
) -> dict[str, torch.Tensor]:
    """What was added to the vanilla decoder's picture, no reference needed; arguments and result as `measure`'s."""
    v, y = (vanilla + 1) / 2, (image_hat + 1) / 2
    values = {"hole_changed": metrics.hole_changed(v, y, mask)}
    return values if edged else values | {"seam_added": metrics.seam_added(v, y, mask)}


def measure_against(
    reference: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor, features: EffNetFeatures
) -> dict[str, torch.Tensor]:
    """How far the hole and its rim are from what belongs there; arguments and result as `measure`'s."""
    x, y = (reference + 1) / 2, (image_hat + 1) / 2
    return {
        "seam_grad": metrics.seam_grad(x, y, mask),
        "ring_l1_2": metrics.ring_l1(x, y, mask, 2),
        "ring_l1_4": metrics.ring_l1(x, y, mask, 4),
        "ring_l1_8": metrics.ring_l1(x, y, mask, 8),
        "hole_psnr": metrics.hole_psnr(x, y, mask),
        "hole_effnet_distance": metrics.hole_effnet_distance(x, y, mask, features),
        "effnet_distance": metrics.effnet_distance(x, y, features),
    }


def rows_of(values: dict[str, torch.Tensor], pairs: Pairs, variant: str, source: str, seed: int) -> pd.DataFrame:
    """Rows of one pair and metric each: variant, seed, source, mask_kind, stratum, photograph, pair, metric, value."""
    table = pairs.table.rename(columns={"kind": "mask_kind", "mask": "pair"})[
        ["mask_kind", "stratum", "photograph", "pair"]
    ]
    names = np.repeat(list(values), len(table))
    whole = torch.cat(list(values.values())).double().numpy()
    return pd.concat([table] * len(values), ignore_index=True).assign(
        variant=variant, seed=seed, source=source, metric=names, value=whole
    )

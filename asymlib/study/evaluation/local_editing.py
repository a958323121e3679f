"""How well an edit was decoded: the known pixels against the photograph, the hole against the vanilla decoder's picture
of the edit, and how far the inside followed the wish. Nothing compares the inside with the photograph, which an edit is
meant to change: a decoder that undoes the edit would win."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import avg_pool2d, cosine_similarity, interpolate
from tqdm import tqdm

from asymlib.editing.compositing import paste_hard, paste_poisson
from asymlib.editing.local_editing import Edit
from asymlib.metrics import bounding_crop
from asymlib.models.words import CELL, WORDS, cell_words, describe, mean_colour, word_scores
from asymlib.pixels import to_uint8
from asymlib.study.dataset.images import Pairs
from asymlib.study.evaluation.distribution import PooledEffNet
from asymlib.study.evaluation.protocol import (
    Decode,
    Task,
    decode_in_batches,
    measure_added,
    measure_known,
    rows_of,
)

# What is measured of known pixels, and what the decoder added to the edit as the vanilla one shows it.
OUTSIDE = ("pre_error", "pre_error_uint8", "psnr_kept", "max_abs_uint8", "changed_pixels")
ADDED = ("seam_added", "hole_changed")
REPLACEMENTS = {
    "red": ("blue", "green"),
    "green": ("red", "blue"),
    "blue": ("red", "green"),
    "bright": ("dark", "blue"),
    "dark": ("bright", "red"),
    "grey": ("red", "blue"),
}
Inside = Callable[[torch.Tensor], dict[str, torch.Tensor]]


class Request(NamedTuple):
    """An edit of image number `image`: its prompt with the word `old` replaced by `new`."""

    image: int
    source: str
    target: str
    old: str
    new: str


def make_requests(image: torch.Tensor) -> list[Request]:
    """For every image of more than one word, replace the word that covers closest to a third of it.

    Args:
        image: (N, 3, H, W) in [-1, 1].

    Raises:
        ValueError: No image has a word to replace.
    """
    share, requests = cell_words(image).mean((2, 3)), []
    for i, source in enumerate(describe(image, torch.ones_like(image[:, :1]))):
        words = source.split()
        if len(words) > 1:
            old = min(words, key=lambda word: abs(share[i, WORDS.index(word)].item() - 1 / 3))
            new = next((word for word in REPLACEMENTS[old] if word not in words), None)
            if new is not None:
                requests.append(Request(i, source, " ".join(new if w == old else w for w in words), old, new))
    if not requests:
        raise ValueError(f"image: got {len(image)} pictures of one word each, expected one of several words at least")
    return requests


def choose(pairs: Pairs, chosen: list[int], mask: torch.Tensor | None = None) -> Pairs:
    """Some of the pairs; with `mask` (their number, 1, H, W) in the place of theirs, whose kind is then `found`."""
    table = pairs.table.iloc[chosen].reset_index(drop=True)
    if mask is None:
        return Pairs(pairs.image[chosen], pairs.mask[chosen], table)
    return Pairs(pairs.image[chosen], mask, table.assign(kind="found"))


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` indices below `count`, evenly spread."""
    return np.linspace(0, count - 1, min(count, limit)).round().astype(int).tolist()


def mask_agreement(mask: torch.Tensor, image: torch.Tensor, words: list[str]) -> dict[str, torch.Tensor]:
    """How well a found region meets the cells that a word describes.

    Args:
        mask: (N, 1, H, W), 1 = found.
        image: (N, 3, H, W) in [-1, 1].
        words: The word for each image.

    Returns:
        `precision` and `recall`, (N,), and `chance`, the precision of a region drawn blindly. Precision is 0 for none.
    """
    index = torch.tensor([WORDS.index(word) for word in words])
    meant = cell_words(image)[torch.arange(len(words)), index]
    both = (avg_pool2d(mask, CELL)[:, 0] * meant).sum((1, 2))
    found, there = avg_pool2d(mask, CELL).sum((1, 2, 3)), meant.sum((1, 2))
    return {
        "precision": both / found.clamp(min=1e-6),
        "recall": both / there.clamp(min=1e-6),
        "chance": meant.mean((1, 2)),
    }


def followed_prompt(image: torch.Tensor, mask: torch.Tensor, words: list[str]) -> dict[str, torch.Tensor]:
    """How well the hole meets the word that the prompt asks for.

    Args:
        image: (N, 3, H, W) in [-1, 1].
        mask: (N, 1, H, W), 1 = hole.
        words: The word for each image.

    Returns:
        `word_score`, of the hole's mean colour, see `word_scores`, and `word_share`, the share of the hole that the
        word describes, (N,) each.
    """
    index, everything = torch.tensor([WORDS.index(word) for word in words]), torch.arange(len(words))
    area = avg_pool2d(mask, CELL)[:, 0]
    share = (cell_words(image)[everything, index] * area).sum((1, 2)) / area.sum((1, 2)).clamp(min=1e-6)
    return {"word_score": word_scores(image, mask)[everything, index], "word_share": share}


@torch.no_grad()
def followed_example(
    image: torch.Tensor, mask: torch.Tensor, photograph: torch.Tensor, example: torch.Tensor, network: PooledEffNet
) -> dict[str, torch.Tensor]:
    """How far the hole is from the example.

    Args:
        image: (N, 3, H, W) in [-1, 1].
        mask: (N, 1, H, W), 1 = hole.
        photograph: (N, 3, H, W) in [-1, 1], what was there before.
        example: (N, 3, H', W') in [-1, 1].
        network: For the second distance.

    Returns:
        `example_colour_distance`, Euclidean, between the mean colours in [0, 1], and `example_effnet_distance`, one
        minus the cosine of pooled features of the example and the hole's bounding crop, with the photograph pasted
        outside the hole, (N,) each.
    """
    colour = mean_colour(image, mask) - mean_colour(example, torch.ones_like(example[:, :1]))
    size, crops = example.shape[-2:], []
    for picture, hole in zip(torch.where(mask > 0, image, photograph), mask, strict=True):
        rows, columns = bounding_crop(hole, smallest=32)
        crops.append(interpolate(picture[None, :, rows, columns], size=size, mode="bilinear", antialias=True))
    features = [network(to_uint8((x + 1) / 2)) for x in (torch.cat(crops), example)]
    return {"example_colour_distance": colour.norm(dim=1), "example_effnet_distance": 1 - cosine_similarity(*features)}


def edit_rows(
    decoders: dict[str, Decode],
    vanilla: Decode,
    edit: Edit,
    pairs: Pairs,
    inside: Inside,
    source: str,
    batch: int,
    seed: int,
) -> pd.DataFrame:
    """Decode an edit with every decoder, and measure known pixels against the photograph, what was added to the vanilla
    decoder's picture, and the inside by `inside`.

    Args:
        decoders: From `read_decoders`.
        vanilla: The plain decoder of the same first stage; it may be one of `decoders`, see `protocol.evaluate`.
        edit: Latents and masks; every mask has a hole and a known pixel.
        pairs: The images, with the edit's masks.
        inside: (N, 3, H, W) -> metric -> (N,).
        source: Name of the kind of edit, for the column of that name.
        batch: Latents decoded at once.
        seed: For the column of that name.

    Returns:
        Rows as `rows_of` makes them; `photograph` is the unedited image, seen from the inside only.
    """
    task, parts = Task(edit.latent), [rows_of(inside(pairs.image), pairs, "photograph", source, seed)]
    plainly = decode_in_batches(vanilla, task, pairs, batch)
    for name, decode in tqdm(decoders.items(), desc=f"decoders, {source}"):
        image_hat = plainly if decode is vanilla else decode_in_batches(decode, task, pairs, batch)
        results = {name: image_hat}
        if name == "vanilla":
            ways = {"paste_hard": paste_hard, "paste_poisson": paste_poisson}
            results |= {f"vanilla_{way}": put(pairs.image, image_hat, pairs.mask) for way, put in ways.items()}
        for variant, result in results.items():
            measured = measure_known(pairs.image, result, pairs.mask)
            measured |= measure_added(plainly, result, pairs.mask)
            values = {metric: measured[metric] for metric in (*OUTSIDE, *ADDED)} | inside(result)
            parts.append(rows_of(values, pairs, variant, source, seed))
    return pd.concat(parts, ignore_index=True)

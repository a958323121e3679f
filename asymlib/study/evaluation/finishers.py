"""What comes after a decoder, compared on any autoencoder and any photographs:

    python -m asymlib.study.evaluation.finishers AUTOENCODER PHOTOGRAPHS --out FOLDER

takes an autoencoder (a folder, a name that ships or one on the hub) and a folder of photographs and writes rows.csv,
table.csv and regret.csv: every finisher on every source of edits, and how far the last word is behind the best other.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from asymlib.editing.compositing import Paste
from asymlib.masks import KINDS, evaluation_mask
from asymlib.metrics import ring_l1
from asymlib.models.features import EffNetFeatures
from asymlib.models.first_stage import FirstStage, find_first_stage
from asymlib.models.inpainter import LatentInpainter
from asymlib.models.shipped import load
from asymlib.pixels import centre_square, shrink, to_tensor
from asymlib.study.dataset.images import Pairs
from asymlib.study.dataset.photographs import every_photograph, folder_photographs, readable_pixels
from asymlib.study.edits import TINTS, change_colours
from asymlib.study.evaluation.protocol import decode_in_batches, make_tasks, measure, plain, rows_of
from asymlib.study.finishers import UNFAIR, finishers
from asymlib.study.reporting.tables import comparisons, summarise, write_rows, write_table
from asymlib.study.sources import EDGED

TABLES = ("rows.csv", "table.csv", "regret.csv")
STEPS = 20  # of the diffusion model, where there is one
# of the means of `ring_l1_4` and `seam_grad` a ratio, of PSNR a difference in dB
REGRETS = {"ring_l1_4": "ratio", "seam_grad": "ratio", "hole_psnr": "difference"}

Measures = dict[str, torch.Tensor]  # metric -> (finishers, images)


class Edit(NamedTuple):
    """Edited pictures, (N, 3, H, W) in [-1, 1], and what their holes should show, or None."""

    edited: torch.Tensor
    reference: torch.Tensor | None


def make_edits(
    first_stage: FirstStage, inpainter: LatentInpainter | None, pairs: Pairs, steps: int, seed: int
) -> dict[str, Edit]:
    """The decoded pictures of every source, and own ones under each colour change, `tinted_KIND`.

    Args:
        first_stage: The autoencoder, which decodes them.
        inpainter: The diffusion model of its latents; without one there is no `inpainted` and no `blended`.
        pairs: Images and masks.
        steps: Of the diffusion model.
        seed: Of all choices.
    """
    tasks, vanilla = make_tasks(first_stage, inpainter, pairs, steps, seed), plain(first_stage)
    edits = {s: Edit(decode_in_batches(vanilla, task, pairs, 4), task.reference) for s, task in tasks.items()}
    own = (edits["own"].edited + 1) / 2
    for kind in TINTS:
        changed = [change_colours(p, kind, np.random.default_rng([seed, 32, i])) for i, p in enumerate(own)]
        edits[f"tinted_{kind}"] = Edit(torch.stack(changed).clamp(0, 1) * 2 - 1, pairs.image)
    return edits


def evaluate_finishers(edits: dict[str, Edit], pairs: Pairs, ways: dict[str, Paste], seed: int) -> pd.DataFrame:
    """Rows of every finisher on every source, see `protocol.measure`; what they are given is the vanilla picture there.

    Args:
        edits: From `make_edits`.
        pairs: Images and masks.
        ways: From `study.finishers`.
        seed: For the rows.
    """
    features = EffNetFeatures()

    def measured(source: str, edit: Edit, image: torch.Tensor, results: torch.Tensor, mask: torch.Tensor) -> Measures:
        return measure(image, edit.reference, edit.edited, results, mask, features, source in EDGED)

    return _measured_rows(edits, pairs, ways, seed, measured)


def evaluate_rim(edits: dict[str, Edit], pairs: Pairs, ways: dict[str, Paste], seed: int) -> pd.DataFrame:
    """As `evaluate_finishers`, `ring_l1_4` alone, of the edits with a reference: of larger pictures, where all the
    measures take longer than what is measured."""
    referred = {source: edit for source, edit in edits.items() if edit.reference is not None}

    def measured(source: str, edit: Edit, image: torch.Tensor, results: torch.Tensor, mask: torch.Tensor) -> Measures:
        return {"ring_l1_4": ring_l1((edit.reference + 1) / 2, (results + 1) / 2, mask, 4)}

    return _measured_rows(referred, pairs, ways, seed, measured)


@torch.no_grad()
def _measured_rows(
    edits: dict[str, Edit], pairs: Pairs, ways: dict[str, Paste], seed: int, measured: Callable[..., Measures]
) -> pd.DataFrame:
    """One scene at a time, so that what the pastes of one mask have in common is made once."""
    values = {source: [] for source in edits}
    for i in tqdm(range(len(pairs.image)), desc="scenes", mininterval=5):
        image, mask = pairs.image[i : i + 1], pairs.mask[i : i + 1]
        for source, edit in edits.items():
            one = Edit(*(None if pictures is None else pictures[i : i + 1] for pictures in edit))
            results = torch.stack([way(image, one.edited, mask).clamp(-1, 1) for way in ways.values()])
            values[source].append(measured(source, one, image, results, mask))
    parts = []
    for source, of_scenes in values.items():
        for v, name in enumerate(ways):
            of_way = {metric: torch.cat([of[metric][v] for of in of_scenes]) for metric in of_scenes[0]}
            parts.append(rows_of(of_way, pairs, name, source, seed))
    return pd.concat(parts, ignore_index=True)


def regret(rows: pd.DataFrame, ours: str = "last_word") -> pd.DataFrame:
    """How far `ours` is behind the best other finisher, chosen for each source and measure on these same scenes.

    Returns:
        A tidy table, see `tables.comparisons`, with the column `best`: ours over the best one (`ring_l1_4`,
        `seam_grad`) or minus it (`hole_psnr`); a ratio below 1 and a difference above 0 mean that ours is ahead.
    """
    fair = rows[~rows["variant"].isin(UNFAIR)]
    parts = []
    for (_, metric), group in fair[fair["metric"].isin(REGRETS)].groupby(["source", "metric"], sort=False):
        means = group[group["variant"] != ours].groupby("variant")["value"].mean()
        best = means.idxmax() if REGRETS[metric] == "difference" else means.idxmin()
        two = group[group["variant"].isin([ours, best])]
        name = f"{metric}_{REGRETS[metric]}_to_best"
        parts.append(comparisons(two, metric, best, REGRETS[metric]).assign(metric=name, best=best))
    return pd.concat(parts, ignore_index=True)


def finishers_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Means of every measure, and every finisher compared with hard pasting and with Poisson blending."""
    return pd.concat(
        [
            summarise(rows),
            comparisons(rows, "ring_l1_4", "paste_hard", "ratio"),
            comparisons(rows, "hole_psnr", "paste_hard", "difference"),
            comparisons(rows, "seam_added", "paste_hard", "ratio"),
            comparisons(rows, "seam_added", "paste_poisson", "ratio"),
            comparisons(rows, "hole_changed", "paste_poisson", "ratio"),
        ]
    )


def scenes_of(folder: Path, count: int, size: int, seed: int, split: str | None) -> Pairs:
    """Middle squares of a folder's photographs with one mask each, the five kinds in turn.

    Args:
        folder: See `folder_photographs`.
        count: How many, or as many as there are.
        size: Side in pixels.
        seed: Of the masks.
        split: Of the photographs; None for all of them, whatever their split.

    Raises:
        FileNotFoundError, ValueError: There is no such folder, or it has fewer than two.
    """
    photographs = every_photograph(folder, size)[0] if split is None else folder_photographs(folder, size)[0]
    chosen = [p for p in photographs if split in (None, p.split)][:count]
    squares = [shrink(centre_square(pixels), size, size) for pixels in readable_pixels(chosen)]
    if len(squares) < 2:
        raise ValueError(f"photos: got {folder} with {len(squares)} of {size} px or more, expected two at least")
    kinds = [KINDS[i % len(KINDS)] for i in range(len(squares))]
    masks = [evaluation_mask(kind, size, np.random.default_rng([seed, 33, i])) for i, kind in enumerate(kinds)]
    named = {"mask": [p.name for p in chosen], "photograph": [p.scene for p in chosen]}  # near-copies are one scene
    table = pd.DataFrame({"kind": kinds, **named, "stratum": "photograph"})
    return Pairs(to_tensor(np.stack(squares)), torch.from_numpy(np.stack(masks))[:, None].float(), table)


def compare_finishers(
    autoencoder: str,
    photographs: Path,
    out: Path,
    scenes: int,
    size: int,
    seed: int,
    split: str | None,
    revision: str = "main",
    subfolder: str = "",
) -> pd.DataFrame:
    """Write rows.csv, table.csv and regret.csv to `out`; returns the last one's columns for reading.

    Args:
        autoencoder: See `find_first_stage`; one from the hub is kept in OUT.first_stage.
        photographs: See `scenes_of`.
        out: Where to.
        scenes: How many.
        size: Side in pixels, a multiple of 8.
        seed: Of masks and edits.
        split: Of the photographs.
        revision: Of the autoencoder, on the hub.
        subfolder: In which it lies there.

    Raises:
        FileNotFoundError, ValueError: Either cannot be had, or the size is none.
    """
    if size % 8:
        raise ValueError(f"size: got {size}, expected a multiple of 8")
    first_stage = find_first_stage(autoencoder, out.with_name(out.name + ".first_stage"), revision, subfolder)
    pairs = scenes_of(photographs, scenes, size, seed, split)
    inpainter = load("inpainter") if autoencoder == "first_stage" else None  # the others' latents have none here
    edits = make_edits(first_stage, inpainter, pairs, STEPS, seed)
    rows = evaluate_finishers(edits, pairs, finishers(load("last_word")), seed)
    out.mkdir(parents=True, exist_ok=True)
    behind = regret(rows)
    of_rows, table, of_regret = TABLES
    write_rows(rows, out / of_rows)
    write_table(finishers_table(rows), out / table)
    write_table(behind, out / of_regret)
    return behind[["source", "metric", "best", "value", "low", "high"]].round(3)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m asymlib.study.evaluation.finishers",
        description="Compare what comes after a decoder, on any autoencoder and any photographs.",
    )
    parser.add_argument("autoencoder", help="AutoencoderKL, VQModel or AutoencoderTiny: a folder, or a name on the hub")
    parser.add_argument("photographs", type=Path, help="a folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="where to write the tables")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--size", type=int, default=256, help="side in pixels, a multiple of 8")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=["val", "test"], help="of the photographs; all if not given")
    parser.add_argument("--revision", default="main", help="of the autoencoder on the hub")
    parser.add_argument("--subfolder", default="", help="in which it lies there, such as vae")
    try:
        print(compare_finishers(**vars(parser.parse_args())).to_string(index=False))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

"""The images of a profile: crops of photographs and procedural pictures, each with its origin, split and checksum.

Photographs and procedural pictures are separate strata. Whole scenes are held out: `test` and `gallery` never share a
photograph with `train` or `val`.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from asymlib.masks import KINDS, evaluation_mask, thick_mask
from asymlib.pictures import UNREADABLE
from asymlib.pixels import centre_square, shrink, to_tensor
from asymlib.study.dataset.photographs import Photograph, folder_photographs, packaged_photographs, reason
from asymlib.study.dataset.procedural import procedural_image
from asymlib.study.params import Images

SPLITS = ("train", "val", "test", "gallery")
EVALUATED = ("val", "test")
# the module's name when the hashes of the committed data were taken
PROCEDURAL_ORIGIN = "asymlib.data.procedural"


class Cut(NamedTuple):
    """A crop to be written: a square of `size` px at `corner` (y, x) of a photograph brought to `shape` (height,
    width), or, where `shape` is None, the photograph's middle square brought to that size."""

    name: str
    photograph: Photograph
    scale: float
    shape: tuple[int, int] | None
    corner: tuple[int, int]
    size: int


class Pairs(NamedTuple):
    """Images with their masks: image (N, 3, H, W) in [-1, 1], mask (N, 1, H, W) with 1 = hole, and for each pair a
    table row with (at least) the columns mask, photograph, stratum and kind."""

    image: torch.Tensor
    mask: torch.Tensor
    table: pd.DataFrame


def make_images(settings: Images, seed: int, folder: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Write every image as folder/SPLIT/NAME.png, with folder/manifest.csv and folder/skipped.json.

    Args:
        settings: The `images` section of params.yaml.
        seed: Seed of crops and drawings.
        folder: Where to write.

    Returns:
        The manifest (image, split, photograph, stratum, scale, origin, licence, sha256), and file -> reason of what a
        folder source skipped; a file that proves broken when it is read is skipped with all its crops.

    Raises:
        FileNotFoundError, ValueError: See `folder_photographs`; or a split that is asked for has no photograph.
    """
    photographs, skipped = _photographs(settings)
    shown = packaged_photographs() if settings.gallery == "packaged" else photographs
    rows = []
    for split in SPLITS:
        sources = [p for p in photographs if p.split == split]
        if split == "gallery":
            sources = [p for p in shown if p.split == "test"]
        rng = np.random.default_rng([seed, SPLITS.index(split)])
        if split == "gallery":
            cuts = _middle_squares(sources, settings.gallery_size)
        else:
            cuts = _cuts(settings, split, sources, rng)
        rows += _write_cuts(cuts, folder, split, skipped)
        rows += _draw(folder, split, *_procedural_size_and_count(settings, split), rng)
    return _write_manifest(folder, rows, skipped), skipped


def make_larger(settings: Images, seed: int, folder: Path) -> pd.DataFrame:
    """Write larger scenes, for what comes after a decoder: `larger_scenes` of `val` and of `test` in each of the sizes
    `larger`, the splits val_256, test_256 and so on, with manifest and skipped.json as `make_images`.

    A scene is a photograph's middle square, enlarged where the photograph is smaller; the photographs are spread over
    their split. Without photographs they are procedural pictures.

    Raises:
        FileNotFoundError, ValueError: See `folder_photographs`.
    """
    photographs, skipped = _photographs(settings)
    rows, count = [], settings.larger_scenes
    for split in EVALUATED:
        sources = [p for p in photographs if p.split == split]
        chosen = [sources[i * len(sources) // count] for i in range(count)] if len(sources) > count else sources
        for size in settings.larger:
            name = f"{split}_{size}"
            rows += _write_cuts(_middle_squares(chosen, size), folder, name, skipped)
            if settings.source == "procedural":
                rng = np.random.default_rng([seed, 40, EVALUATED.index(split), size])
                rows += _draw(folder, name, size, count, rng)
    return _write_manifest(folder, rows, skipped)


def make_masks(manifest: pd.DataFrame, images: Path, masks_per_image: int, seed: int, folder: Path) -> pd.DataFrame:
    """Write masks (white = hole) for all images but those of `train`, with folder/manifest.csv.

    `val` gets the official training distribution, all others go through the five kinds in turn.

    Returns:
        The manifest: mask, image, split, kind, hole_area (share of the pixels), sha256.
    """
    rows = []
    for i, row in enumerate(manifest[manifest["split"] != "train"].itertuples()):
        size = Image.open(images / row.split / f"{row.image}.png").width
        for j in range(1 if row.split == "val" else masks_per_image):
            rng = np.random.default_rng([seed, 10, i, j])
            kind = "official" if row.split == "val" else KINDS[(i + j) % len(KINDS)]
            mask = thick_mask(size, rng) if row.split == "val" else evaluation_mask(kind, size, rng)
            name = f"{row.image}_{j}"
            rows.append(
                _write(folder, row.split, name, mask * 255)
                | {"mask": name, "image": row.image, "kind": kind, "hole_area": mask.mean().round(6)}
            )
    table = pd.DataFrame(rows)[["mask", "image", "split", "kind", "hole_area", "sha256"]]
    table.to_csv(folder / "manifest.csv", index=False)
    return table


def load_images(folder: Path, split: str) -> tuple[torch.Tensor, pd.DataFrame]:
    """The images of a split, (N, 3, H, W) uint8, and their rows of the manifest.

    Raises:
        FileNotFoundError: No manifest in `folder`.
        ValueError: The split has no image.
    """
    table = _manifest(folder)
    table = table[table["split"] == split].reset_index(drop=True)
    if table.empty:
        raise ValueError(
            f"split: got {split!r} without an image in {folder}, expected one of {', '.join(SPLITS)} with images"
        )
    pixels = [np.asarray(Image.open(folder / split / f"{name}.png").convert("RGB")) for name in table["image"]]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), table


def load_pairs(images: Path, masks: Path, split: str) -> Pairs:
    """Every mask of a split with its image, see `Pairs`; the table has the columns of both manifests."""
    pixels, table = load_images(images, split)
    pairs = _manifest(masks).query("split == @split").drop(columns=["split", "sha256"])
    pairs = pairs.merge(table.reset_index(names="position"), on="image", validate="many_to_one")
    mask = np.stack([np.asarray(Image.open(masks / split / f"{name}.png")) for name in pairs["mask"]])
    hole = torch.from_numpy(mask > 127)[:, None].float()
    return Pairs(to_tensor(pixels[pairs["position"].tolist()]), hole, pairs.drop(columns="position"))


def _manifest(folder: Path) -> pd.DataFrame:
    if not (folder / "manifest.csv").is_file():
        raise FileNotFoundError(
            f"manifest {folder / 'manifest.csv'} is missing; expected what stage images writes, run `make repro`"
        )
    names = dict.fromkeys(("image", "mask", "photograph"), str)  # a photo may be called 01, or nan
    return pd.read_csv(folder / "manifest.csv", dtype=names, na_filter=False)


def _photographs(settings: Images) -> tuple[list[Photograph], dict[str, str]]:
    if settings.source == "procedural":
        return [], {}
    if settings.source == "packaged":
        return packaged_photographs(), {}
    return folder_photographs(settings.folder, smallest=max(settings.train_size, settings.val_size, settings.test_size))


def _procedural_size_and_count(settings: Images, split: str) -> tuple[int, int]:
    return {
        "train": (settings.train_size, settings.train_procedural),
        "val": (settings.val_size, settings.val_procedural),
        "test": (settings.test_size, settings.test_procedural),
        "gallery": (settings.gallery_size, 2),
    }[split]


def _middle_squares(sources: list[Photograph], size: int) -> list[Cut]:
    return [Cut(p.name, p, size / min(p.size), None, (0, 0), size) for p in sources]


def _cuts(settings: Images, split: str, sources: list[Photograph], rng: np.random.Generator) -> list[Cut]:
    """Where a split's crops lie: photographs and scales in turn, positions at random, none twice; a photograph whose
    crops are all cut gives no more. No photograph is read."""
    size = {"train": settings.train_size, "val": settings.val_size, "test": settings.test_size}[split]
    count = {
        "train": settings.train_photograph_crops,
        "val": settings.val_photograph_crops,
        "test": settings.test_crops * len(sources),
    }[split]
    if count and not sources:
        if settings.source == "procedural":
            raise ValueError(f"source: got 'procedural' with {count} photograph crops asked for in {split}, expected 0")
        raise ValueError(f"folder: got no photograph for the split {split}, expected at least one")
    cuts: list[Cut] = []
    taken: dict[tuple[str, float], set[tuple[int, int]]] = {}
    rounds = -(-count // max(len(sources), 1))
    for turn, photograph in [(turn, photograph) for turn in range(rounds) for photograph in sources][:count]:
        free = _free_scales(photograph, size, settings.scales, taken)
        if not free:
            continue
        scale = free[turn % len(free)]
        height, width = _scaled(photograph, scale)
        places = taken.setdefault((photograph.origin, scale), set())
        corner = None
        while corner is None or corner in places:
            corner = int(rng.integers(0, height - size + 1)), int(rng.integers(0, width - size + 1))
        places.add(corner)
        cuts.append(Cut(f"{photograph.name}_{turn:03d}", photograph, scale, (height, width), corner, size))
    return cuts


def _free_scales(
    photograph: Photograph, size: int, scales: list[float], taken: dict[tuple[str, float], set]
) -> list[float]:
    """The scales at which a photograph has a crop that was not cut yet; its own size where all others are too small."""
    fitting = [scale for scale in scales if min(photograph.size) * scale >= size] or [1.0]
    places = {scale: math.prod(extent - size + 1 for extent in _scaled(photograph, scale)) for scale in fitting}
    return [scale for scale in fitting if len(taken.get((photograph.origin, scale), ())) < places[scale]]


def _scaled(photograph: Photograph, scale: float) -> tuple[int, int]:
    height, width = photograph.size
    return int(height * scale), int(width * scale)


def _write_cuts(cuts: list[Cut], folder: Path, split: str, skipped: dict[str, str]) -> list[dict]:
    """Write the crops and return their rows in the order of `cuts`; one photograph at a time is read, and once."""
    rows: dict[str, dict] = {}
    by_photograph: dict[str, list[Cut]] = {}
    for cut in cuts:
        by_photograph.setdefault(cut.photograph.origin, []).append(cut)
    for origin, of_photograph in by_photograph.items():
        try:
            pixels = of_photograph[0].photograph.pixels
        except UNREADABLE as error:
            skipped[origin.removeprefix("folder:")] = reason(error, of_photograph[0].photograph.file.parent)
            continue
        scaled: dict[tuple[int, int], np.ndarray] = {}
        for cut in of_photograph:
            if cut.shape is None:
                crop = _resized(centre_square(pixels), cut.size)
            else:
                if cut.shape not in scaled:
                    scaled[cut.shape] = shrink(pixels, *cut.shape)
                y, x = cut.corner
                crop = scaled[cut.shape][y : y + cut.size, x : x + cut.size]
            p = cut.photograph
            rows[cut.name] = (
                _write(folder, split, cut.name, crop)
                | {"photograph": p.scene, "stratum": "photograph", "scale": cut.scale}
                | {"origin": p.origin, "licence": p.licence}
            )
    return [rows[cut.name] for cut in cuts if cut.name in rows]


def _resized(square: np.ndarray, size: int) -> np.ndarray:
    """(S, S, 3) -> (size, size, 3): means of what becomes one pixel, or Lanczos where it is enlarged."""
    if len(square) >= size:
        return shrink(square, size, size)
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.LANCZOS))


def _draw(folder: Path, split: str, size: int, count: int, rng: np.random.Generator) -> list[dict]:
    """Write procedural pictures and return their rows."""
    return [
        _write(folder, split, f"procedural_{i:04d}", procedural_image(size, rng))
        | {"photograph": f"{split}_procedural_{i:04d}", "stratum": "procedural", "scale": 1.0}
        | {"origin": PROCEDURAL_ORIGIN, "licence": "Apache-2.0"}
        for i in range(count)
    ]


def _write_manifest(folder: Path, rows: list[dict], skipped: dict[str, str]) -> pd.DataFrame:
    manifest = pd.DataFrame(rows)[["image", "split", "photograph", "stratum", "scale", "origin", "licence", "sha256"]]
    manifest.to_csv(folder / "manifest.csv", index=False)
    (folder / "skipped.json").write_text(json.dumps(skipped, indent=1, sort_keys=True) + "\n")
    return manifest


def _write(folder: Path, split: str, name: str, pixels: np.ndarray) -> dict[str, str]:
    """Save a PNG; the checksum is of the pixels' bytes, which no version of a PNG writer changes."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / split / f"{name}.png")
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
    return {"image": name, "split": split, "sha256": digest}

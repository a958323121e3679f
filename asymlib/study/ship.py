"""Take what a run trained to what ships with the package:

    python -m asymlib.study.ship PROFILE NAME --folder photos

writes asymlib/pretrained/NAME, of the diffusion model (`inpainter`), a decoder, or `last_word`: the weights (large ones
in half precision), config, the run's record and curve, and a card (cards/) with numbers measured on what ships.
"""

import argparse
import json
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file

from asymlib.files import written_folder
from asymlib.masks import training_masks
from asymlib.models.decoder import AsymmetricVQGAN, load_vqgan
from asymlib.models.first_stage import PRETRAINED, load_first_stage, pretrained
from asymlib.models.inpainter import LatentInpainter
from asymlib.models.last_word import LastWord
from asymlib.models.shipped import load
from asymlib.study.dataset.photographs import folder_photographs
from asymlib.study.evaluation.finishers import STEPS, evaluate_finishers, make_edits, regret, scenes_of
from asymlib.study.evaluation.inpainter import numbers
from asymlib.study.evaluation.reconstruction import half_scale_crops
from asymlib.study.finishers import finishers
from asymlib.study.profiles import folder_of
from asymlib.study.project import project_root

SCENES = 25  # of the last word's card
ALLOWED = 0.02  # dB that half precision may cost
WHAT = {
    "base": "It is told which pixels are known, and shown them.",
    "vanilla_finetuned": "It is the control of `base`: trained on the same pictures, but without the branch.",
}
CARDS = Path(__file__).with_name("cards")  # NAME.md, with the places for facts and numbers in braces


def ship_inpainter(root: Path, profile: str, photographs: Path, out: Path) -> dict[str, float]:
    """Write the diffusion model of a run to `out`.

    Args:
        root: The project.
        profile: Whose run.
        photographs: The folder `photos`, for the numbers of the card.
        out: What `asymlib.models.first_stage.pretrained` finds.

    Returns:
        The numbers of its card.

    Raises:
        FileNotFoundError: The profile has not trained one, or no such photographs.
    """
    place = folder_of(profile, root)
    model, made = place / "checkpoints" / profile / "inpainter", place / "results" / profile / "inpainter"
    if not (made / "curve.csv").is_file():
        raise FileNotFoundError(
            f"profile: got {profile} without {made / 'curve.csv'}, expected a trained diffusion model; "
            f"`make repro PROFILE={profile} STAGE=inpainter` trains it"
        )
    record, curve = json.loads((made / "record.json").read_text()), pd.read_csv(made / "curve.csv")
    with written_folder(out) as temporary:
        for name in ("config.json", "scheduler_config.json"):
            shutil.copy(model / name, temporary / name)
        weights = {name: weight.half() for name, weight in load_file(model / SAFETENSORS_WEIGHTS_NAME).items()}
        save_file(weights, temporary / SAFETENSORS_WEIGHTS_NAME, {"format": "pt"})
        shutil.copy(made / "record.json", temporary / "record.json")
        curve.to_csv(temporary / "curve.csv", index=False, float_format="%.4g")
        image = half_scale_crops(p for p in folder_photographs(photographs)[0] if p.split == "val")
        values = numbers(LatentInpainter.load(temporary), load_first_stage(pretrained("first_stage")), image, 4, 0)
        write_card("inpainter", temporary, profile, record, **values)
    return values


def ship_decoder(root: Path, profile: str, name: str, photographs: Path, out: Path) -> dict[str, float]:
    """Write a decoder of a run to `out`, in half precision where that costs at most ALLOWED dB, else in float32.

    Arguments as `ship_inpainter`'s, and the decoder's name.

    Returns:
        `cost`, of half precision in dB: by how much known pixels or hole, whichever loses more, are farther off.

    Raises:
        FileNotFoundError: The profile has not trained it, or no such photographs.
    """
    place = folder_of(profile, root)
    model, results = place / "checkpoints" / profile / "decoders" / name, place / "results" / profile
    vqgan = load_vqgan(model)
    record = json.loads((results / "provenance" / f"{name}.json").read_text())
    image = half_scale_crops(p for p in folder_photographs(photographs)[0] if p.split == "val")
    with written_folder(out) as temporary:
        shutil.copy(model / "config.json", temporary / "config.json")
        weights = load_file(model / SAFETENSORS_WEIGHTS_NAME)
        halved = {key: weight.half() for key, weight in weights.items()}
        save_file(halved, temporary / SAFETENSORS_WEIGHTS_NAME, {"format": "pt"})
        cost = decibels_lost(vqgan, load_vqgan(temporary), image)
        if cost > ALLOWED:
            save_file(weights, temporary / SAFETENSORS_WEIGHTS_NAME, {"format": "pt"})
        (temporary / "record.json").write_text(json.dumps(record, indent=1) + "\n")
        shutil.copy(results / "curves" / f"{name}.csv", temporary / "curve.csv")
        facts = {"name": name, "what": WHAT[name], "decoder_parameters": record["decoder_parameters"]}
        facts |= {"cost": cost if cost <= ALLOWED else 0.0, "photographs": photographs_of(place, profile)}
        facts |= {"precision": "half precision" if cost <= ALLOWED else "float32"}
        write_card("decoder", temporary, profile, record, **facts)
    return {"cost": cost}


def write_card(card: str, folder: Path, profile: str, record: dict, **facts) -> None:
    """Fill in cards/CARD.md beside the weights in a folder: what all cards say, and `facts`."""
    settings = record["settings"]
    common = {"profile": profile, "commit": record["commit"], "seed": record["seed"]}
    common |= {"steps": settings["steps"], "batch": settings["batch"]}
    common |= {"parameters": sum(w.numel() for w in load_file(folder / SAFETENSORS_WEIGHTS_NAME).values())}
    (folder / "README.md").write_text((CARDS / f"{card}.md").read_text().format(**common, **facts))


def photographs_of(place: Path, profile: str) -> int:
    """How many photographs a profile trains on."""
    manifest = pd.read_csv(place / "data" / profile / "images" / "manifest.csv")
    chosen = manifest[(manifest["split"] == "train") & (manifest["stratum"] == "photograph")]
    return chosen["photograph"].nunique()


@torch.no_grad()
def decibels_lost(vqgan: AsymmetricVQGAN, halved: AsymmetricVQGAN, image: torch.Tensor, seed: int = 0) -> float:
    """By how many dB PSNR falls, of known pixels or of the hole, whichever loses more, over all of the pictures.

    Args:
        vqgan: As trained.
        halved: The same after a way through half precision.
        image: (N, 3, H, W) in [-1, 1].
        seed: Seed of the official masks.
    """
    mask = training_masks(len(image), image.shape[-1], 0.0, np.random.default_rng([seed, 21]))
    error = torch.zeros(2, 2)
    for part, hole in zip(image.split(8), mask.split(8), strict=True):
        latent = vqgan.encode(part)
        for i, decoder in enumerate((vqgan, halved)):
            square = (decoder.decode(latent, image=part, mask=hole) - part).square()
            error[i] += torch.stack([(square * (1 - hole)).sum(), (square * hole).sum()])
    return (10 * torch.log10(error[1] / error[0])).max().item()


def ship_last_word(root: Path, profile: str, photographs: Path, out: Path) -> dict[str, float]:
    """Write the last word of a run to `out`, float32.

    Arguments as `ship_inpainter`'s.

    Returns:
        `worst`, over all sources and measures: how far it is behind the best other finisher, as a share.

    Raises:
        FileNotFoundError: The profile has not trained one, or no such photographs.
    """
    place = folder_of(profile, root)
    model, made = place / "checkpoints" / profile / "last_word", place / "results" / profile / "last_word"
    record, curve = json.loads((made / "record.json").read_text()), pd.read_csv(made / "curve.csv")
    pairs = scenes_of(photographs, SCENES, 128, 0, "val")
    first_stage, inpainter = (load(name) for name in ("first_stage", "inpainter"))
    edits = make_edits(first_stage, inpainter, pairs, STEPS, 0)
    behind = regret(evaluate_finishers(edits, pairs, finishers(LastWord.from_pretrained(model)), 0))
    with written_folder(out) as temporary:
        for name in ("config.json", SAFETENSORS_WEIGHTS_NAME):
            shutil.copy(model / name, temporary / name)
        shutil.copy(made / "record.json", temporary / "record.json")
        curve.to_csv(temporary / "curve.csv", index=False, float_format="%.4g")
        facts = {"scenes": len(pairs.image), "codecs": ", ".join(record["codecs"])}
        facts |= {"edits": sum(record["settings"]["edits"].values())}
        shown = behind[["source", "metric", "best", "value", "low", "high"]].round(3)
        write_card(
            "last_word", temporary, profile, record, table=shown.to_markdown(index=False, tablefmt="github"), **facts
        )
    ratios = behind[behind["metric"].str.contains("_ratio_")]
    return {"worst": float(ratios["value"].max()) - 1}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m asymlib.study.ship", description="Take what a run trained to asymlib/pretrained."
    )
    parser.add_argument("profile", help="whose run")
    parser.add_argument("name", choices=["inpainter", "last_word", *WHAT], help="what of it")
    parser.add_argument("--folder", type=Path, default=Path("photos"), help="photographs, see study/dataset/public.py")
    arguments = parser.parse_args()
    try:
        others = {"inpainter": ship_inpainter, "last_word": ship_last_word}
        ship = others.get(arguments.name) or partial(ship_decoder, name=arguments.name)
        values = ship(project_root(), arguments.profile, photographs=arguments.folder, out=PRETRAINED / arguments.name)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()

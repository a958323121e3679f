"""Take what a run trained to what ships with the package:

    python -m asymlib.study.ship PROFILE inpainter --folder photos

writes asymlib/pretrained/inpainter: the weights in half precision, config, the run's record and curve, and a card
(cards/inpainter.md) with the model's numbers, measured on the weights that ship.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import pandas as pd
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file

from asymlib.files import written_folder
from asymlib.models.first_stage import PRETRAINED, load_first_stage, pretrained
from asymlib.models.inpainter import LatentInpainter
from asymlib.study.dataset.photographs import folder_photographs
from asymlib.study.evaluation.inpainter import numbers
from asymlib.study.evaluation.reconstruction import half_scale_crops
from asymlib.study.profiles import folder_of
from asymlib.study.project import project_root

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
        facts = {"profile": profile, "commit": record["commit"], "seed": record["seed"]}
        facts |= {"steps": record["settings"]["steps"], "batch": record["settings"]["batch"]}
        parameters = sum(weight.numel() for weight in weights.values())
        card = (CARDS / "inpainter.md").read_text()
        (temporary / "README.md").write_text(card.format(parameters=parameters, **facts, **values))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m asymlib.study.ship", description="Take what a run trained to asymlib/pretrained."
    )
    parser.add_argument("profile", help="whose run")
    parser.add_argument("name", choices=["inpainter"], help="what of it")
    parser.add_argument("--folder", type=Path, default=Path("photos"), help="photographs, see study/dataset/public.py")
    arguments = parser.parse_args()
    try:
        values = ship_inpainter(project_root(), arguments.profile, arguments.folder, PRETRAINED / arguments.name)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()

"""Last words of other seeds, or trained without something, on the scenes of notebook 12:

    python -m asymlib.study.evaluation.last_words PROFILE FOLDER... --out TABLE

Each FOLDER is one that `asymlib.study.training.last_word --out FOLDER` wrote; its name is the variant's. The stages of
the profile up to `last_word` have been run. The committed table is results/long_runs/last_words.csv; the JSON file
beside it says what it was made of.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from asymlib.files import content_hash
from asymlib.models.first_stage import load_first_stage
from asymlib.models.last_word import LastWord
from asymlib.study.diffusion import load_diffusion
from asymlib.study.evaluation.finishers import evaluate_finishers, make_edits, regret
from asymlib.study.evaluation.readings import read_pairs, thin
from asymlib.study.finishers import finishers
from asymlib.study.params import Profile, load_params
from asymlib.study.provenance import provenance, write_json
from asymlib.study.reporting.comparison import read_json
from asymlib.study.reporting.tables import comparisons, write_table

# of a variant over another way
COMPARED = {
    "ring_l1_4": ("paste_hard", "ratio"),
    "seam_added": ("paste_hard", "ratio"),
    "hole_changed": ("paste_poisson", "ratio"),
}


def evaluate_last_words(params: Profile, models: dict[str, LastWord]) -> pd.DataFrame:
    """Rows of `evaluate_finishers`, of all finishers and these, on every scene of notebook 12.

    Args:
        params: The profile, whose first stage, diffusion model and test scenes are used.
        models: By name.
    """
    first_stage = load_first_stage(params.checkpoints / "first_stage")
    inpainter = load_diffusion(params.checkpoints / "inpainter", first_stage)
    pairs = thin(read_pairs(params, "last_words"), every=1)
    edits = make_edits(first_stage, inpainter, pairs, params.inpainter.sampling_steps, params.seed)
    return evaluate_finishers(edits, pairs, finishers(None) | models, params.seed)


def compare_last_words(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """How far each is behind the best other way (`regret`), and its seam and change beside pasting's and Poisson's.

    Args:
        rows: From `evaluate_last_words`.
        names: Of the models; none is another's competitor.
    """
    parts = []
    for name in names:
        beside = rows[~rows["variant"].isin({*names} - {name})]
        parts.append(regret(beside, name))
        for metric, (against, how) in COMPARED.items():
            two = beside[beside["variant"].isin([name, against])]
            parts.append(comparisons(two, metric, against, how))
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m asymlib.study.evaluation.last_words", description=__doc__.splitlines()[0]
    )
    parser.add_argument("profile")
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="the table to write")
    arguments = parser.parse_args()
    try:
        params = load_params(arguments.profile)
        trained = {folder.name: read_json(folder / "record.json") for folder in arguments.folders}
        made_of = content_hash(params.data, params.checkpoints / "first_stage", params.checkpoints / "inpainter")
        record = provenance(profile=params.name, seed=params.seed, made_of=made_of, last_words=trained)
        models = {folder.name: LastWord.from_pretrained(folder).eval() for folder in arguments.folders}
        write_table(compare_last_words(evaluate_last_words(params, models), list(models)), arguments.out)
        write_json(record, arguments.out.with_suffix(".json"))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

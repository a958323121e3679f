"""The pairs that results are measured on, and who has looked at the test split: results/PROFILE/readings/READER.json.

While anything is being chosen, `evaluation.split` is `val`. A test split that is read again and again is a validation
split, so its readings are counted.
"""

import json

from asymlib.files import content_hash
from asymlib.study.dataset.images import Pairs, load_pairs
from asymlib.study.params import Profile
from asymlib.study.profiles import commit
from asymlib.study.project import project_root
from asymlib.study.provenance import write_json


def read_pairs(params: Profile, reader: str, larger: int | None = None) -> Pairs:
    """The pairs of the split that a profile evaluates on, `evaluation.split`; see `note_reading`.

    Args:
        params: The profile.
        reader: Who reads them: a notebook's name, or `ablations`, `long_runs`, `last_words`.
        larger: One of the sizes `images.larger`, for those scenes in place of the ordinary ones.

    Raises:
        FileNotFoundError, ValueError: As `load_pairs`.
    """
    folder, split = params.data, params.evaluation.split
    if larger is not None:
        folder, split = params.data / "larger", f"{split}_{larger}"
    pairs = load_pairs(folder / "images", folder / "masks", split)
    note_reading(params, reader)
    return pairs


def thin(pairs: Pairs, every: int) -> Pairs:
    """Every so many pairs of each scene, starting with its first; of the first stratum, the photographs.

    By position, pairs of whole scenes would go: photographs come in turn.

    Args:
        pairs: From `load_pairs`.
        every: 1 keeps all.
    """
    first = pairs.table["stratum"] == pairs.table["stratum"].iloc[0]
    turn = pairs.table.groupby("photograph").cumcount()
    chosen = (first & (turn % every == 0)).to_numpy().nonzero()[0]
    return Pairs(pairs.image[chosen], pairs.mask[chosen], pairs.table.iloc[chosen].reset_index(drop=True))


def note_reading(params: Profile, reader: str) -> None:
    """Note in results/PROFILE/readings/READER.json that the profile's split was read, where that is `test`.

    A reading is told by the commit (`+`: the working tree differed from it) and by the hash of the data, as a decoder's
    record has them; the same one again changes no byte. On `val` the file is kept as it is, or begun without a reading:
    a stage of dvc.yaml has it as an output, with `cache: false` since it belongs into git, and `persist: true`, without
    which DVC would delete the earlier readings.

    Args:
        params: The profile.
        reader: Names the file; one for each stage, since a file is the output of one.
    """
    path = params.results / "readings" / f"{reader}.json"
    known = json.loads(path.read_text())["readings"] if path.is_file() else []
    if params.evaluation.split == "test":
        data = content_hash(params.data / "images" / "manifest.csv")
        now = {"commit": commit(project_root()), "data": data}
        known = known if now in known else sorted([*known, now], key=lambda of: (of["commit"], of["data"]))
    write_json({"reader": reader, "split": "test", "readings": known}, path)

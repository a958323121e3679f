"""Compute the committed results again and compare: `make verify`, LEVEL=tables (a minute), metrics or all (retrains).

`tables` starts from the rows of every pair of image and mask and holds the records of provenance to params.yaml,
`metrics` starts from the stored pictures, `all` from nothing, in a fresh clone, with the short runs. What differs is
named: file, cell, committed and recomputed value; what is of other code or not recorded is counted apart.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from asymlib import metrics
from asymlib.study.evaluation.finishers import finishers_table, regret
from asymlib.study.evaluation.strata import AGAINST, where_table
from asymlib.study.params import Ablations, Profile, load_ablations, load_params
from asymlib.study.profiles import COMMIT_VARIABLE, COMMITTED
from asymlib.study.project import project_root
from asymlib.study.provenance import versions
from asymlib.study.reporting.budget import long_runs_table
from asymlib.study.reporting.claims import decide
from asymlib.study.reporting.comparison import (
    UNCHECKED,
    Cell,
    as_now,
    compare_records,
    compare_results,
    compare_short_runs,
    compare_tables,
    presence,
    read_json,
    report,
)
from asymlib.study.reporting.tables import inpainting_table, read_rows, read_table, short_runs_table

# What rounding a picture to 8 bits, half a level a pixel at most, can change in a metric of the unrounded one; nothing
# where the metric is defined on the rounded one, but for the last digit of a float.
ROUNDING = {
    "pre_error_uint8": 1e-12,
    "max_abs_uint8": 0.0,
    "changed_pixels": 0.0,
    "seam_added": 2.0,  # two means of differences of two pictures
    "hole_changed": 1.0,
}
# What of a record follows without data or checkpoints; the last three are the short runs'.
RECOMPUTED = ("decoder", "seed", "row", "settings", "stream", "versions", "split", "every", "sampling_steps")


def verify_tables(results: Path) -> Iterator[Cell]:
    """Every cell that follows from stored rows: `inpainting`, `where`, `claims` and the tables of finishers, short and
    long runs, of `width` and `condition` the means; and the names of the other tables."""
    checked = set()
    for cell in _cells_of_tables(results):
        checked.add(cell.file)
        yield cell
    for path in sorted((results / "tables").glob("*.csv")):
        if path.name not in checked:
            yield Cell(path.name, "all of it", "measured", "nothing, no rows are committed", otherwise=UNCHECKED)


def _cells_of_tables(results: Path) -> Iterator[Cell]:
    rows = read_rows(results / "rows" / "inpainting.csv.gz")
    recomputed = inpainting_table(rows)
    yield from compare_tables(results / "tables" / "inpainting.csv", recomputed)
    for name in ("width", "condition"):
        yield from compare_tables(results / "tables" / f"{name}.csv", recomputed, only_shared=True)
    described = read_table(results / "rows" / "pairs.csv")
    of_stratum = rows[rows["stratum"] == rows["stratum"].iloc[0]]
    committed = read_table(results / "tables" / "where.csv")
    of_where = of_stratum[of_stratum["variant"].isin([AGAINST, *committed["variant"]])]
    yield from compare_tables(results / "tables" / "where.csv", where_table(of_where, described))
    short = read_rows(project_root() / "results" / "ablations" / "rows.csv.gz")
    for name in ("ablations_width", "ablations_condition"):
        path = results / "tables" / f"{name}.csv"
        of_table = short[short["variant"].isin(read_table(path)["variant"])]
        yield from compare_tables(path, short_runs_table(of_table))
    finished = read_rows(results / "rows" / "finishers.csv.gz")
    yield from compare_tables(results / "tables" / "finishers.csv", finishers_table(finished))
    yield from compare_tables(results / "tables" / "regret.csv", regret(finished))
    long_runs = project_root() / "results" / "long_runs"
    told = long_runs_table(read_rows(long_runs / "rows.csv.gz"), read_json(long_runs / "provenance.json"))
    yield from compare_tables(results / "tables" / "long_runs.csv", told)
    yield from compare_tables(results / "tables" / "claims.csv", decide(results, rows["stratum"].iloc[0]))


def verify_metrics(results: Path) -> Iterator[Cell]:
    """The metrics of the stored pictures, which are 8-bit versions of what the rows were measured on.

    They are of the source `inpainted`, where known pixels and what was done to vanilla's picture are measured.

    Raises:
        FileNotFoundError: There are no stored pictures.
    """
    rows = read_rows(results / "rows" / "inpainting.csv.gz")
    rows = rows[rows["source"] == "inpainted"].set_index(["pair", "variant", "metric"])["value"]
    masks = sorted((results / "images").glob("*_mask.png"))
    if not masks:
        raise FileNotFoundError(
            f"pictures {results / 'images'} are missing; expected PAIR_mask.png, `make repro` makes them"
        )
    for path in masks:
        pair = path.name.removesuffix("_mask.png")
        x, m = _picture(path.with_name(f"{pair}_reference.png")), _picture(path)[:, :1]
        for picture in sorted(path.parent.glob(f"{pair}_*.png")):
            variant = picture.stem.removeprefix(f"{pair}_")
            if variant in ("mask", "reference"):
                continue
            y, vanilla = _picture(picture), _picture(path.with_name(f"{pair}_vanilla.png"))
            found = {"pre_error_uint8": metrics.pre_error(x, y, m)}
            found |= {name: getattr(metrics, name)(x, y, m) for name in ("max_abs_uint8", "changed_pixels")}
            found |= {name: getattr(metrics, name)(vanilla, y, m) for name in ("seam_added", "hole_changed")}
            for name, value in found.items():
                committed, recomputed = float(rows[pair, variant, name]), float(f"{value.item():.6g}")
                yield Cell(f"images/{picture.name}", name, committed, recomputed, ROUNDING[name])


def verify_provenance(results: Path, params: Profile) -> Iterator[Cell]:
    """What the decoders' records say and params.yaml says as well, and that no record is of uncommitted code.

    Args:
        results: A profile's folder of results.
        params: The profile.
    """
    made = {path.stem for path in (results / "provenance").glob("*.json")}
    for name in sorted(made | (params.decoders.keys() & params.training.keys())):
        file = f"provenance/{name}.json"
        if name in made and name in params.training:
            record = read_json(results / "provenance" / f"{name}.json")
            yield from _check_record(file, record, present_record(params, name, params.seed))
        else:
            yield presence(file, "the file", name in made, name in params.training)


def verify_short_runs(results: Path, ablations: Ablations, params: Profile) -> Iterator[Cell]:
    """`verify_provenance` for the runs of `study.ablations`.

    Args:
        results: Their folder.
        ablations: See `load_ablations`.
        params: Likewise.

    Raises:
        FileNotFoundError: There are no records.
    """
    path = results / "provenance.json"
    if not path.is_file():
        raise FileNotFoundError(f"record {path} is missing; expected JSON, `make {ablations.name}` makes it")
    records = read_json(path)
    runs = {f"{name}_{s}": (name, s) for name, row in ablations.rows.items() for s in row.seeds or ablations.seeds}
    measured = {"split": params.evaluation.split, "every": ablations.every}
    measured["sampling_steps"] = params.inpainter.sampling_steps
    file = f"{ablations.name}/provenance.json"
    for run in dict.fromkeys([*records, *runs]):
        if run in records and run in runs:
            yield from _check_record(file, records[run], present_record(params, *runs[run]) | measured, f"{run} ")
        else:
            yield presence(file, run, run in records, run in runs)


def present_record(params: Profile, name: str, seed: int) -> dict:
    """What the record of a run made now would say of RECOMPUTED.

    Args:
        params: The profile.
        name: The decoder's row.
        seed: The run's.
    """
    record = {
        "decoder": name,
        "seed": seed,
        "row": params.decoder(name).model_dump(mode="json"),
        "settings": asdict(params.training[name]),
        "versions": versions(),
    }
    return record | ({"stream": params.stream.model_dump(mode="json")} if params.stream else {})


def verify_all(root: Path, params: Profile) -> Iterator[Cell]:
    """Every table and record, of a run from nothing in a fresh clone: the pipeline and the short runs.

    Raises:
        FileNotFoundError: There are no committed tables.
        RuntimeError: A run fails.
    """
    results, short_runs = Path("results") / params.name, Path("results") / "ablations"
    if not (root / results / "tables").is_dir():
        raise FileNotFoundError(f"tables {root / results / 'tables'} are missing; `make repro` makes them")
    with tempfile.TemporaryDirectory() as place:
        _run(["git", "clone", "-q", str(root), place], root)
        shutil.rmtree(Path(place) / results, ignore_errors=True)  # what no stage makes would agree with itself
        _run([sys.executable, "-m", "asymlib.study.profiles", params.name], place)
        yield from compare_results(root / results, Path(place) / results)
        # As `make ablations`: they start from the default profile's checkpoints, whatever was run above.
        _run([sys.executable, "-m", "asymlib.study.profiles", COMMITTED, "inpainter"], place)
        shutil.rmtree(Path(place) / short_runs, ignore_errors=True)
        _run([sys.executable, "-m", "asymlib.study.ablations"], place)
        yield from compare_short_runs(root / short_runs, Path(place) / short_runs)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m asymlib.study.reporting.verify", description=__doc__.splitlines()[0]
    )
    parser.add_argument("level", choices=["tables", "metrics", "all"])
    parser.add_argument("--profile", default="default")
    arguments = parser.parse_args()
    root = project_root()
    try:
        params = load_params(arguments.profile)
        results = root / "results" / params.name
        cells = {
            "tables": lambda: chain(
                verify_tables(results),
                verify_provenance(results, params),
                verify_short_runs(root / "results" / "ablations", *load_ablations()),
                verify_short_runs(root / "results" / "long_runs", *load_ablations(section="long_runs")),
            ),
            "metrics": lambda: verify_metrics(results),
            "all": lambda: verify_all(root, params),
        }[arguments.level]()
        sys.exit(1 if report(cells) else 0)
    except (FileNotFoundError, ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def _check_record(file: str, committed: dict, present: dict, prefix: str = "") -> Iterator[Cell]:
    known = {key: entry for key, entry in as_now(committed).items() if key in RECOMPUTED}
    yield from compare_records(file, known, present, prefix)
    commit = committed.get("commit")  # which `commit` marks where the working tree differed from it
    yield Cell(file, f"{prefix}commit", commit, commit and commit.removesuffix("+"))


def _run(command: list[str], place: str | Path) -> None:
    """Run a command for hours, with a line that says so; the commit of its records is that of `place`."""
    print(f"runs {' '.join(command)} in {place}; pipeline and short runs take hours", flush=True)
    environment = {name: value for name, value in os.environ.items() if name != COMMIT_VARIABLE}
    if subprocess.run(command, cwd=place, env=environment).returncode:
        raise RuntimeError(f"run: got a failure of {' '.join(command)}, expected it to end")


def _picture(path: Path) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255


if __name__ == "__main__":
    main()

"""Compute the committed results again and compare: `make verify`, LEVEL=tables (seconds), metrics or all (retrains).

`tables` starts from the rows of every pair of image and mask, `metrics` from the stored pictures, `all` from nothing,
in a fresh clone. What differs is named: file, cell, committed and recomputed value.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from asymlib.evaluation import metrics
from asymlib.evaluation.claims import decide
from asymlib.evaluation.strata import AGAINST, where_table
from asymlib.evaluation.tables import inpainting_table, read_rows, read_table, short_runs_table
from asymlib.params import Profile, load_params
from asymlib.project import project_root

DIGITS = 2e-6  # relative: values are stored with six significant digits
# What rounding a picture to 8 bits, half a level a pixel at most, can change in a metric of the unrounded one; nothing
# where the metric is defined on the rounded one, but for the last digit of a float.
ROUNDING = {
    "pre_error_uint8": 1e-12,
    "max_abs_uint8": 0.0,
    "changed_pixels": 0.0,
    "ring_l1_2": 0.5,
    "ring_l1_4": 0.5,
    "ring_l1_8": 0.5,
    "seam_grad": 4.0,  # a Sobel filter adds eight pixels' worth of it
    "hole_psnr": 0.1,
}
KEYS = {"variant", "seed", "source", "mask_kind", "stratum", "metric", "whose", "claim", "table"}


class Cell(NamedTuple):
    """A number of a file, committed and recomputed, and by how much it may differ beside the digits stored."""

    file: str
    cell: str
    committed: float | str
    recomputed: float | str
    tolerance: float = 0.0

    @property
    def verdict(self) -> str:
        """`identical` (to the digits stored), `within tolerance` or `different`."""
        a, b = self.committed, self.recomputed
        if isinstance(a, str) or isinstance(b, str):
            return "identical" if a == b else "different"
        if a == b or (np.isnan(a) and np.isnan(b)) or abs(a - b) <= DIGITS * abs(a):
            return "identical"
        return "within tolerance" if abs(a - b) <= self.tolerance else "different"


def verify_tables(results: Path, params: Profile) -> Iterator[Cell]:
    """Every cell that follows from stored rows: `inpainting`, `where`, `claims` and the short runs' tables, and of the
    others the means."""
    rows = read_rows(results / "rows" / "inpainting.csv")
    resamples, seed = params.evaluation.bootstrap, params.seed
    recomputed = inpainting_table(rows, resamples, seed)
    yield from compare_tables(results / "tables" / "inpainting.csv", recomputed)
    for name in ("width", "condition", "retouch"):
        yield from compare_tables(results / "tables" / f"{name}.csv", recomputed, only_shared=True)
    described = read_table(results / "rows" / "pairs.csv")
    of_stratum = rows[rows["stratum"] == rows["stratum"].iloc[0]]
    committed = read_table(results / "tables" / "where.csv")
    of_where = of_stratum[of_stratum["variant"].isin([AGAINST, *committed["variant"]])]
    yield from compare_tables(results / "tables" / "where.csv", where_table(of_where, described, resamples, seed))
    short = read_rows(project_root() / "results" / "ablations" / "rows.csv")
    for name in ("ablations_width", "ablations_condition", "ablations_retouch"):
        path = results / "tables" / f"{name}.csv"
        of_table = short[short["variant"].isin(read_table(path)["variant"])]
        yield from compare_tables(path, short_runs_table(of_table, resamples, seed))
    yield from compare_tables(
        results / "tables" / "claims.csv", decide(results, rows["stratum"].iloc[0], resamples, seed)
    )


def verify_metrics(results: Path) -> Iterator[Cell]:
    """The metrics of the stored pictures, which are 8-bit versions of what the rows were measured on.

    Raises:
        FileNotFoundError: There are no stored pictures.
    """
    rows = read_rows(results / "rows" / "inpainting.csv")
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
            y = _picture(picture)
            found = {"pre_error_uint8": metrics.pre_error(x, y, m), "seam_grad": metrics.seam_grad(x, y, m)}
            found |= {f"ring_l1_{width}": metrics.ring_l1(x, y, m, width) for width in (2, 4, 8)}
            found |= {
                name: getattr(metrics, name)(x, y, m) for name in ("max_abs_uint8", "changed_pixels", "hole_psnr")
            }
            for name, value in found.items():
                committed, recomputed = float(rows[pair, variant, name]), float(f"{value.item():.6g}")
                yield Cell(f"images/{picture.name}", name, committed, recomputed, ROUNDING[name])


def verify_all(root: Path, params: Profile) -> Iterator[Cell]:
    """Every table, of a run from nothing in a fresh clone.

    Raises:
        RuntimeError: The run fails.
    """
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["git", "clone", "-q", str(root), place], check=True)
        command = [sys.executable, "-m", "asymlib.profiles", params.name]
        if subprocess.run(command, cwd=place).returncode:
            raise RuntimeError(f"run: got a failure of {' '.join(command[1:])}, expected it to end")
        yield from compare_results(root / "results" / params.name, Path(place) / "results" / params.name)


def compare_results(committed: Path, recomputed: Path) -> Iterator[Cell]:
    """Every table of one folder of results against that of another."""
    for path in sorted((committed / "tables").glob("*.csv")):
        yield from compare_tables(path, read_table(recomputed / "tables" / path.name))


def compare_tables(path: Path, recomputed: pd.DataFrame, only_shared: bool = False) -> Iterator[Cell]:
    """The numbers of a committed table against a recomputed one.

    Args:
        path: The committed table.
        recomputed: With the same columns.
        only_shared: Leave out rows that the recomputed table does not have.
    """
    committed = read_table(path)
    keys = [name for name in committed.columns if name in KEYS]
    old, new = (
        table.assign(**{k: table[k].fillna("").astype(str) for k in keys}).set_index(keys).to_dict("index")
        for table in (committed, recomputed)
    )
    for key in dict.fromkeys([*old, *new]):
        cell, here, there = " ".join(key), key in old, key in new
        if here and there:
            for column, value in old[key].items():
                yield Cell(path.name, f"{cell} {column}", _value(value), _value(new[key][column]))
        elif not only_shared:
            yield Cell(path.name, cell, "there" if here else "missing", "there" if there else "missing")


def report(cells: Iterator[Cell], most: int = 20) -> int:
    """Print how many cells of each file agree, and the first that do not.

    Returns:
        The number of cells that differ.
    """
    table = pd.DataFrame([(c.file.split("/")[0], c.verdict, c) for c in cells], columns=["file", "verdict", "cell"])
    for (file, verdict), group in table.groupby(["file", "verdict"], sort=False):
        print(f"{file}: {len(group)} {verdict}")
    different = table[table["verdict"] == "different"]["cell"]
    for cell in different.head(most):
        print(f"  {cell.file}, {cell.cell}: committed {cell.committed}, recomputed {cell.recomputed}")
    return len(different)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m asymlib.evaluation.verify", description=__doc__.splitlines()[0])
    parser.add_argument("level", choices=["tables", "metrics", "all"])
    parser.add_argument("--profile", default="default")
    arguments = parser.parse_args()
    root = project_root()
    try:
        params = load_params(arguments.profile)
        results = root / "results" / params.name
        cells = {
            "tables": lambda: verify_tables(results, params),
            "metrics": lambda: verify_metrics(results),
            "all": lambda: verify_all(root, params),
        }[arguments.level]()
        sys.exit(f"{different} different" if (different := report(cells)) else 0)
    except (FileNotFoundError, ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def _value(value: float | str | None) -> float | str:
    if isinstance(value, str):
        return value
    if value is None:
        return float("nan")
    return float(f"{value:.6g}")  # as `write_table` writes it


def _picture(path: Path) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255


if __name__ == "__main__":
    main()

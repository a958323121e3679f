"""Committed results against recomputed ones: numbers and records, cell by cell, and a printed account of them."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from asymlib.study.reporting.tables import read_table

DIGITS = 2e-6  # relative: values are stored with six significant digits
KEYS = {"variant", "seed", "source", "mask_kind", "stratum", "metric", "family", "claim", "table", "photograph", "pair"}
# What a record names beside what decides a run: results of older code or libraries are old, not wrong.
VERDICTS = {"commit": "other code", "code": "other code", "versions": "other versions", "seconds": "another time"}
UNCHECKED = "not computed again"
EXCUSED = ("other code", "other versions", "another time", "not recorded", UNCHECKED)


class Cell(NamedTuple):
    """A value of a file, committed and recomputed, and by how much it may differ beside the digits stored."""

    file: str
    cell: str
    committed: float | str | None  # None: the file is older than this entry
    recomputed: float | str
    tolerance: float = 0.0
    otherwise: str = "different"

    @property
    def verdict(self) -> str:
        """`identical` (to the digits stored), `within tolerance`, `not recorded` or `otherwise`."""
        a, b = self.committed, self.recomputed
        if a is None:
            return "not recorded"
        if isinstance(a, str) or isinstance(b, str):
            return "identical" if a == b else self.otherwise
        if np.isclose(b, a, rtol=DIGITS, atol=0, equal_nan=True):
            return "identical"
        return "within tolerance" if np.isclose(b, a, rtol=0, atol=self.tolerance) else self.otherwise


def presence(file: str, cell: str, here: bool, there: bool) -> Cell:
    """A cell about what only one of the two has."""
    return Cell(file, cell, "there" if here else "missing", "there" if there else "missing")


def compare_tables(path: Path, recomputed: pd.DataFrame, only_shared: bool = False) -> Iterator[Cell]:
    """The numbers of a committed table against a recomputed one, and the rows and columns that only one of them has.

    Args:
        path: The committed table.
        recomputed: The recomputed one.
        only_shared: Leave out rows that only one of them has.
    """
    committed = read_table(path)
    shared = [name for name in committed.columns if name in recomputed.columns]
    for column in committed.columns.symmetric_difference(recomputed.columns):
        yield presence(path.name, f"column {column}", column in committed.columns, column in recomputed.columns)
    old, new = (_by_key(table[shared]) for table in (committed, recomputed))
    for key in dict.fromkeys([*old, *new]):
        cell, here, there = " ".join(filter(None, key)), key in old, key in new
        if here and there:
            for column, value in old[key].items():
                yield Cell(path.name, f"{cell} {column}", _value(value), _value(new[key][column]))
        elif not only_shared:
            yield presence(path.name, cell, here, there)


GONE = ("geometric_mean",)  # of the settings of a training


def as_now(record: dict) -> dict:
    """A record as it would be now: of the time when the machine decided which perceptual loss is `available`, or with
    GONE options, which were off."""
    settings = {key: value for key, value in record.get("settings", {}).items() if value or key not in GONE}
    if settings.get("perceptual") == "available":
        settings["perceptual"] = record.get("perceptual_loss")
    return record | ({"settings": settings} if "settings" in record else {})


def compare_records(file: str, committed: dict, recomputed: dict, prefix: str = "") -> Iterator[Cell]:
    """A record of provenance against a recomputed one, key by key.

    Args:
        file: The file's name.
        committed: Its record; keys that it lacks are not recorded.
        recomputed: The other.
        prefix: Before the key in a cell's name, where a file has several records.
    """
    old, new = _flat(as_now(committed)), _flat(as_now(recomputed))
    for key in dict.fromkeys([*old, *new]):
        verdict = VERDICTS.get(key.split(".")[0], "different")
        yield Cell(file, prefix + key, old.get(key), new.get(key, "missing"), otherwise=verdict)


def compare_runs(file: str, committed: dict[str, dict], recomputed: dict[str, dict]) -> Iterator[Cell]:
    """A file with a record for each run, see `compare_records`, and the runs that only one of the two has."""
    for run in dict.fromkeys([*committed, *recomputed]):
        if run in committed and run in recomputed:
            yield from compare_records(file, committed[run], recomputed[run], prefix=f"{run} ")
        else:
            yield presence(file, run, run in committed, run in recomputed)


def compare_results(committed: Path, recomputed: Path) -> Iterator[Cell]:
    """Every table and every decoder's record in one folder of results against those in another."""
    yield from _compare_files(committed / "tables", recomputed / "tables", "*.csv", _two_tables)
    yield from _compare_files(committed / "provenance", recomputed / "provenance", "*.json", _two_records)


def compare_short_runs(committed: Path, recomputed: Path) -> Iterator[Cell]:
    """The rows and the records of the short runs in one folder against those in another."""
    yield from _compare_files(committed, recomputed, "rows.csv.gz", _two_tables)
    yield from _compare_files(committed, recomputed, "provenance.json", _two_files_of_runs)


def report(cells: Iterable[Cell], most: int = 20) -> int:
    """Print how many cells of each file agree, the first that do not, one of each kind that is no difference, and at
    last whether all is well.

    Returns:
        The number of cells that differ.
    """
    table = pd.DataFrame([(c.file.split("/")[0], c.verdict, c) for c in cells], columns=["file", "verdict", "cell"])
    for (file, verdict), group in table.groupby(["file", "verdict"], sort=False):
        print(f"{file}: {len(group)} {verdict}")
    for verdict, group in table[table["verdict"].isin(EXCUSED)].groupby("verdict", sort=False):
        print(f"  {verdict}, such as {_in_words(group['cell'].iloc[0])}")
    different = table[table["verdict"] == "different"]["cell"]
    for cell in different.head(most):
        print(f"  {_in_words(cell)}")
    print(f"{len(different)} cells differ" if len(different) else "every cell that can be computed again agrees")
    return len(different)


def read_json(path: Path) -> dict:
    """Read a record.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: got no JSON ({error}), expected a record as the pipeline writes it") from None


def _compare_files(committed: Path, recomputed: Path, pattern: str, compare: Callable) -> Iterator[Cell]:
    """Files of one name in two folders, and those that only one folder has."""
    for name in sorted({path.name for folder in (committed, recomputed) for path in folder.glob(pattern)}):
        old, new = committed / name, recomputed / name
        if old.is_file() and new.is_file():
            yield from compare(old, new)
        else:
            yield presence(_label(old), "the file", old.is_file(), new.is_file())


def _two_tables(committed: Path, recomputed: Path) -> Iterator[Cell]:
    return compare_tables(committed, read_table(recomputed))


def _two_records(committed: Path, recomputed: Path) -> Iterator[Cell]:
    return compare_records(_label(committed), read_json(committed), read_json(recomputed))


def _two_files_of_runs(committed: Path, recomputed: Path) -> Iterator[Cell]:
    return compare_runs(_label(committed), read_json(committed), read_json(recomputed))


def _label(path: Path) -> str:
    """How a file is named: a table has a name of its own, a record that of its folder, with which it is counted."""
    return path.name if ".csv" in path.suffixes else f"{path.parent.name}/{path.name}"


def _in_words(cell: Cell) -> str:
    return f"{cell.file}, {cell.cell}: committed {cell.committed}, recomputed {cell.recomputed}"


def _by_key(table: pd.DataFrame) -> dict[tuple[str, ...], dict]:
    """Key columns -> the other columns of every row; a row that repeats a key is numbered."""
    keys = [name for name in table.columns if name in KEYS]
    table = table.assign(**{key: table[key].fillna("").astype(str) for key in keys})
    repeated = table.groupby(keys).cumcount() if keys else pd.Series(range(len(table)), table.index)
    table["repeated"] = repeated.map(lambda count: f"#{count + 1}" if count else "")
    names = table[[*keys, "repeated"]].itertuples(index=False, name=None)
    return dict(zip(names, table.drop(columns=[*keys, "repeated"]).to_dict("records"), strict=True))


def _value(value: float | str | None) -> float | str:
    if isinstance(value, str):
        return value
    if value is None:
        return float("nan")
    return float(f"{value:.6g}")  # as `write_table` writes it


def _flat(record: dict) -> dict[str, float | str]:
    """SECTION.KEY -> value of a record. What is below is one value: a key that was added there is a change."""
    flat = {}
    for section, entry in record.items():
        for key, value in entry.items() if isinstance(entry, dict) else [("", entry)]:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if (section, key) == ("stream", "folder") and value:
                value = Path(value).name  # where it lies differs from machine to machine
            flat[f"{section}.{key}".rstrip(".")] = float(value) if is_number else json.dumps(value, sort_keys=True)
    return flat

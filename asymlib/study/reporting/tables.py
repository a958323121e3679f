"""Tidy tables: from one row per image to one cell per mean, with intervals over scenes (`statistics`).

Every scene (the column `photograph`) has the same weight, however many crops it has. A pair without a value, or which
one side of a comparison lacks, is left out of a cell and of its counts.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML

from asymlib.files import written
from asymlib.study.reporting.statistics import Estimate, mean, ratio
from asymlib.study.sources import says_nothing

ROW_KEYS = ["mask_kind", "stratum", "photograph", "pair", "variant", "seed", "source"]
# how the short runs are compared with one another
SHORT_RUNS = {
    "pre_error": "ratio",
    "seam_added": "difference",
    "hole_changed": "difference",
    "seam_grad": "difference",
    "ring_l1_4": "difference",
    "hole_psnr": "difference",
    "hole_effnet_distance": "difference",
}
# n counts pairs, df are the degrees of freedom of the interval's t
COLUMNS = ["variant", "seed", "source", "mask_kind", "stratum", "metric", "value", "low", "high", "n", "scenes", "df"]


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Means with 95 % intervals, for each mask kind and for `all` of them.

    Args:
        rows: One row per pair of image and mask, and metric: variant, seed, source, mask_kind, stratum, photograph,
            pair, metric, value.

    Returns:
        A tidy table with the columns COLUMNS.
    """
    rows = pd.concat([rows, rows.assign(mask_kind="all")]) if rows["mask_kind"].nunique() > 1 else rows
    cells = []
    for (source, kind, stratum), group in rows.groupby(["source", "mask_kind", "stratum"], sort=False):
        wide = group.pivot(index=["photograph", "pair"], columns=["variant", "seed", "metric"], values="value")
        for (variant, run, metric), of_scenes, pairs in zip(wide.columns, _by_scene(wide).T, wide.count(), strict=True):
            estimate = mean(of_scenes[~np.isnan(of_scenes)])
            cells.append((variant, run, source, kind, stratum, metric, *_numbers(estimate, pairs)))
    return pd.DataFrame(cells, columns=COLUMNS)


def compare(rows: pd.DataFrame, metric: str, variant: str, against: str, how: str) -> Estimate:
    """A variant's mean over another's (`ratio`), or minus it (`difference`), paired, with its 95 % interval.

    Where both were trained with several seeds in common, the interval says what another run on other scenes would give.

    Args:
        rows: One row per pair and seed, of one source and stratum.

    Raises:
        ValueError: `how` is neither, or the variants have no rows with the same seed.
    """
    wide = _wide(rows[rows["variant"].isin([variant, against])], metric)
    return _estimate(*_paired(wide, variant, against)[:2], how)


def comparisons(rows: pd.DataFrame, metric: str, against: str, how: str, spread: bool = False) -> pd.DataFrame:
    """`compare` for every variant, source and stratum where `against` was measured too, as a tidy table; the metric is
    named METRIC_HOW_to_AGAINST.

    Args:
        rows: One row per pair, seed and metric, see `summarise`.
        metric: Which of them.
        against: The variant that the others are compared with.
        how: `ratio` or `difference`.
        spread: Add METRIC_HOW_to_AGAINST_spread, its standard deviation from seed to seed, where there are several.
    """
    cells = []
    for (source, stratum), group in rows[rows["metric"] == metric].groupby(["source", "stratum"], sort=False):
        wide, variants = _wide(group, metric), list(group["variant"].unique())
        for variant in variants if against in variants else []:
            if variant == against:
                continue
            a, b, pairs = _paired(wide, variant, against)
            where = (variant, group["seed"].iloc[0], source, "all", stratum)
            cells.append((*where, f"{metric}_{how}_to_{against}", *_numbers(_estimate(a, b, how), pairs)))
            if spread and (seeds := a.shape[1]) > 1:
                by_seed = a.mean(0) / b.mean(0) if how == "ratio" else (a - b).mean(0)
                lone = Estimate(by_seed.std(ddof=1), *[np.nan] * 4)
                cells.append((*where, f"{metric}_{how}_to_{against}_spread", *_numbers(lone, seeds)))
    return pd.DataFrame(cells, columns=COLUMNS)


def over_seeds(rows: pd.DataFrame, against: str, hows: dict[str, str]) -> pd.DataFrame:
    """What short runs of several seeds show: means over scenes and seeds, comparisons with one variant, and the seeds'
    spread.

    Args:
        rows: One row per pair, seed and metric, see `summarise`; of all mask kinds together.
        against: The variant that the others are compared with, see `compare`.
        hows: Metric -> `ratio` or `difference`; means alone where `against` was not measured so.

    Returns:
        A tidy table, see `comparisons`; `seed` is the number of seeds.
    """
    keys, means = ["variant", "source", "stratum", "metric"], []
    for (variant, source, stratum, metric), group in rows.groupby(keys, sort=False):
        wide = group.pivot(index=["photograph", "pair"], columns="seed", values="value").dropna()
        means.append((variant, 0, source, "all", stratum, metric, *_numbers(mean(_by_scene(wide)), len(wide))))
    parts = [comparisons(rows, metric, against, how, spread=True) for metric, how in hows.items()]
    table = pd.concat([pd.DataFrame(means, columns=COLUMNS), *parts], ignore_index=True)
    return table.assign(seed=table["variant"].map(rows.groupby("variant")["seed"].nunique()))


def short_runs_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Short runs compared with their controls, as a tidy table.

    NAME_without_branch differs from `without_branch` in its size only, and everything else is compared with `base`.

    Args:
        rows: See `over_seeds`; the controls among them.
    """
    compared_with: dict[str, list[str]] = {}
    for variant in rows["variant"].unique():
        control = "without_branch" if variant.endswith("_without_branch") else "base"
        compared_with.setdefault(control, [control]).append(variant)
    rows, parts = telling(rows), []
    for control, variants in compared_with.items():
        sources = rows.loc[rows["variant"] == control, "source"].unique()
        chosen = rows[rows["variant"].isin(variants) & rows["source"].isin(sources)]
        parts.append(over_seeds(chosen, control, SHORT_RUNS))
    return pd.concat(parts).drop_duplicates(ignore_index=True)  # the means of what has two controls


def telling(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without the measures that say nothing of their source, see `sources.says_nothing`."""
    known = {pair: says_nothing(*pair) for pair in set(zip(rows["metric"], rows["source"], strict=True))}
    return rows[[not known[pair] for pair in zip(rows["metric"], rows["source"], strict=True)]]


def compared(rows: pd.DataFrame, against: str) -> pd.DataFrame:
    """Means of every metric, and preservation and hole compared with one variant, as a tidy table."""
    return pd.concat(
        [
            summarise(rows),
            comparisons(rows, "pre_error", against, "ratio"),
            comparisons(rows, "pre_error_all", against, "ratio"),
            comparisons(rows, "hole_psnr", against, "difference"),
        ]
    )


def inpainting_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The table of that name: `compared` with `vanilla` and, on the vector-quantised first stage, with `vanilla_vq`.

    Args:
        rows: Rows of the decoders on both first stages, see `summarise`.
    """
    own_stage = rows["variant"].str.startswith(("vanilla_vq", "base_vq"))
    vq = rows[own_stage].assign(variant=rows["variant"].str.replace("vanilla_vq", "vanilla"))
    first, second = (compared(part, "vanilla") for part in (rows[~own_stage], vq))
    return pd.concat([first, on_vq(second)], ignore_index=True)


def on_vq(table: pd.DataFrame) -> pd.DataFrame:
    """Name the vanilla decoder of the vector-quantised first stage, once its rows have been compared with it."""
    return table.assign(variant=table["variant"].str.replace("^vanilla", "vanilla_vq", regex=True))


def ablation(rows: pd.DataFrame, metrics: list[str], records: dict[str, dict], against: str) -> pd.DataFrame:
    """The table of an ablation: means, what each decoder cost, and preservation and hole compared with one of them.

    Args:
        rows: One row per pair and metric, see `summarise`.
        metrics: Which metrics get a mean.
        records: Decoder -> its provenance, for the cost.
        against: The variant that the others are compared with.
    """
    return pd.concat(
        [
            summarise(rows[rows["metric"].isin(metrics)]),
            cost_table(records),
            comparisons(rows, "pre_error", against, "ratio"),
            comparisons(rows, "hole_psnr", against, "difference"),
        ]
    )


def cost_table(records: dict[str, dict]) -> pd.DataFrame:
    """Decoder -> provenance, as rows of a tidy table: parameters, GMAC of a decode, steps and TMAC of the training."""
    names = {"decoder_parameters": "decoder_parameters", "decode_gmac": "decode_gmac", "training_steps": "steps"}
    names |= {"training_tmac": "training_tmac"}
    parts = [facts(name, r["seed"], {metric: r[key] for metric, key in names.items()}) for name, r in records.items()]
    return pd.concat(parts)


def facts(variant: str, seed: int, values: dict[str, float]) -> pd.DataFrame:
    """Numbers that were counted and not estimated as rows of a tidy table: no interval, no scenes."""
    rows = [(variant, seed, "all", "all", "all", name, value, 1) for name, value in values.items()]
    return pd.DataFrame(rows, columns=[*COLUMNS[:7], "n"]).reindex(columns=COLUMNS)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV, compressed if it is called .gz; fractions have six significant digits, counts all of theirs."""
    packed = {"method": "gzip", "mtime": 0} if path.suffix == ".gz" else None  # the same table is the same file
    with written(path) as temporary:
        table.to_csv(temporary, index=False, float_format=_six_digits, lineterminator="\n", compression=packed)


def _six_digits(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def read_table(path: Path) -> pd.DataFrame:
    """Read a table.

    Raises:
        FileNotFoundError: The table is missing; the message says what makes it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"table {path} is missing; expected a CSV, `make repro` makes it")
    return pd.read_csv(path)


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write rows of one pair and metric each with the metrics side by side, which takes a fifth of the space."""
    keys = [name for name in rows.columns if name not in ("metric", "value")]
    wide = rows.pivot(index=keys, columns="metric", values="value").reset_index()
    order = rows.drop_duplicates(keys)[keys].merge(wide, on=keys, how="left")
    write_table(order[[*keys, *rows["metric"].unique()]], path)


def read_rows(path: Path) -> pd.DataFrame:
    """Read what `write_rows` wrote, one row for each pair and metric again, with six significant digits.

    Raises:
        FileNotFoundError: The file is missing; the message says what makes it.
    """
    wide = read_table(path)
    keys = [name for name in wide.columns if name in ROW_KEYS]
    return wide.melt(keys, var_name="metric", value_name="value").dropna(subset="value").reset_index(drop=True)


def wide_table(table: pd.DataFrame, metrics: dict[str, str], **where: str) -> pd.DataFrame:
    """A table for reading: variants down, metrics across, each cell `value [low, high]`.

    Args:
        table: A tidy table.
        metrics: Metric -> format of its numbers, such as `.2f`; `e-5` shows multiples of 1e-5.
        where: Column -> value that selects rows, such as source="own".
    """
    for column, value in where.items():
        table = table[table[column] == value]
    cells = {}
    for metric, style in metrics.items():
        chosen = table[table["metric"] == metric].set_index("variant")
        cells[f"{metric} (1e-5)" if style == "e-5" else metric] = {v: _cell(row, style) for v, row in chosen.iterrows()}
    order = [v for v in table["variant"].unique() if any(v in column for column in cells.values())]
    return pd.DataFrame(cells).reindex(order).fillna("").rename_axis("variant").reset_index()


def as_html(table: pd.DataFrame, caption: str = "") -> HTML:
    """A table for a notebook; unlike pandas' Styler it carries no random id, so a repeated run gives the same file."""
    return HTML((f"<b>{caption}</b>" if caption else "") + table.to_html(index=False, border=0))


def _cell(row: pd.Series, style: str) -> str:
    scale, style = (1e5, ".2f") if style == "e-5" else (1, style)
    value, low, high = (row[name] * scale for name in ("value", "low", "high"))
    if np.isnan(value):  # could not be had
        return ""
    if np.isnan(low) or low == high == value:
        return f"{value:{style}}"
    return f"{value:{style}} [{low:{style}}, {high:{style}}]"


def _wide(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Values of one metric, pairs down, variants and seeds across."""
    chosen = rows[(rows["metric"] == metric) & (rows["mask_kind"] != "all")]
    return chosen.pivot(index=["photograph", "pair"], columns=["variant", "seed"], values="value")


def _paired(wide: pd.DataFrame, variant: str, against: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Means of scenes of both, (G, S) each for the S seeds in common, and the number of pairs behind them: those that
    were measured for both and for all these seeds.

    Raises:
        ValueError: There is no such seed.
    """
    columns = list(wide.columns)
    runs = [run for name, run in columns if name == variant and (against, run) in columns]
    if not runs:
        measured = sorted({name for name, _ in columns})
        raise ValueError(f"variant: got {variant!r} and {against!r}, expected two of {measured} with a seed in common")
    wide = wide.iloc[:, [columns.index((name, run)) for name in (variant, against) for run in runs]].dropna()
    a, b = np.split(_by_scene(wide), 2, axis=1)
    return a, b, len(wide)


def _estimate(a: np.ndarray, b: np.ndarray, how: str) -> Estimate:
    if how not in ("ratio", "difference"):
        raise ValueError(f"how: got {how!r}, expected 'ratio' or 'difference'")
    return ratio(a, b) if how == "ratio" else mean(a - b)


def _by_scene(wide: pd.DataFrame) -> np.ndarray:
    """Means of each scene's pairs, (G, columns), of a table sorted by photograph; missing values do not count."""
    values, scenes = wide.to_numpy(), wide.index.get_level_values("photograph")
    starts = np.flatnonzero(np.r_[True, scenes[1:] != scenes[:-1]][: len(values)])
    measured = ~np.isnan(values)
    sums, counts = (np.add.reduceat(part, starts, axis=0) for part in (np.where(measured, values, 0), measured * 1.0))
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _numbers(estimate: Estimate, pairs: int) -> tuple[float, ...]:
    """What stands in a cell, in the order of COLUMNS."""
    return (*estimate[:3], pairs, *estimate[3:])

"""Tidy tables: from one row per image to one cell per mean, with bootstrap intervals that resample photographs.

Crops of one photograph are not independent, so a resample draws whole photographs (scenes). The draws depend on the
seed and on the photographs alone: every variant is seen on the same ones, and differences are paired.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML

from asymlib.files import written

ROW_KEYS = ["mask_kind", "stratum", "photograph", "pair", "variant", "seed", "source"]
# how the short runs are compared with one another
SHORT_RUNS = {
    "pre_error": "ratio",
    "seam_grad": "difference",
    "ring_l1_4": "difference",
    "hole_psnr": "difference",
    "hole_effnet_distance": "difference",
}
COLUMNS = ["variant", "seed", "source", "mask_kind", "stratum", "metric", "value", "low", "high", "n"]


def summarise(rows: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Means with 95 % intervals, for each mask kind and for `all` of them.

    Args:
        rows: One row per pair of image and mask, and metric: variant, seed, source, mask_kind, stratum, photograph,
            pair, metric, value.
        resamples: Number of bootstrap draws.
        seed: Seed of the draws.

    Returns:
        A tidy table with the columns COLUMNS; n counts pairs.
    """
    rows = pd.concat([rows, rows.assign(mask_kind="all")]) if rows["mask_kind"].nunique() > 1 else rows
    cells = []
    for (source, kind, stratum), group in rows.groupby(["source", "mask_kind", "stratum"], sort=False):
        wide = group.pivot(index=["photograph", "pair"], columns=["variant", "seed", "metric"], values="value")
        draws = _resampled_means(wide, resamples, seed)
        low, high = np.percentile(draws, [2.5, 97.5], axis=0, method="nearest")
        for i, (variant, run, metric) in enumerate(wide.columns):
            cells.append(
                (variant, run, source, kind, stratum, metric, wide.iloc[:, i].mean(), low[i], high[i], len(wide))
            )
    return pd.DataFrame(cells, columns=COLUMNS)


def compare(
    rows: pd.DataFrame, metric: str, variant: str, against: str, how: str, resamples: int, seed: int
) -> tuple[float, float, float]:
    """A variant's mean over another's (`ratio`), or minus it (`difference`), with its paired 95 % interval.

    Where both were trained with several seeds in common, a resample also draws seeds: the interval then says what
    another run on other photographs would give.

    Args:
        rows: One row per pair and seed, of one source and stratum.

    Returns:
        Estimate, low, high.

    Raises:
        ValueError: `how` is neither, or the variants have no rows with the same seed.
    """
    if how not in ("ratio", "difference"):
        raise ValueError(f"how: got {how!r}, expected 'ratio' or 'difference'")
    chosen = rows[(rows["metric"] == metric) & rows["variant"].isin([variant, against]) & (rows["mask_kind"] != "all")]
    wide = chosen.pivot(index=["photograph", "pair"], columns=["variant", "seed"], values="value")
    runs = [run for name, run in wide.columns if name == variant and (against, run) in wide.columns]
    if not runs:
        raise ValueError(
            f"variant: got {variant!r} and {against!r}, expected two of {sorted(rows['variant'].unique())} with a seed "
            "in common"
        )
    means = np.vstack([wide.mean(), _resampled_means(wide, resamples, seed)])
    drawn = np.random.default_rng([seed, 21]).multinomial(len(runs), np.full(len(runs), 1 / len(runs)), resamples)
    weights = np.vstack([np.ones(len(runs)), drawn]) / len(runs)
    a, b = (
        (weights * means[:, [wide.columns.get_loc((name, run)) for run in runs]]).sum(1) for name in (variant, against)
    )
    values = a / b if how == "ratio" else a - b
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return float(values[0]), float(low), float(high)


def comparisons(rows: pd.DataFrame, metric: str, against: str, how: str, resamples: int, seed: int) -> pd.DataFrame:
    """`compare` for every variant, source and stratum, as a tidy table; the metric is named METRIC_HOW_to_AGAINST."""
    cells = []
    for (source, stratum), group in rows.groupby(["source", "stratum"], sort=False):
        for variant in group["variant"].unique():
            if variant != against:
                estimate = compare(group, metric, variant, against, how, resamples, seed)
                cells.append(
                    (
                        variant,
                        group["seed"].iloc[0],
                        source,
                        "all",
                        stratum,
                        f"{metric}_{how}_to_{against}",
                        *estimate,
                        group["pair"].nunique(),
                    )
                )
    return pd.DataFrame(cells, columns=COLUMNS)


def over_seeds(rows: pd.DataFrame, against: str, hows: dict[str, str], resamples: int, seed: int) -> pd.DataFrame:
    """What short runs of several seeds show: means over seeds, comparisons with one variant, and the seeds' spread.

    Args:
        rows: One row per pair, seed and metric, see `summarise`; of all mask kinds together.
        against: The variant that the others are compared with, see `compare`.
        hows: Metric -> `ratio` or `difference`; means alone where `against` was not measured so.
        resamples: Number of bootstrap draws.
        seed: Seed of the draws.

    Returns:
        A tidy table; `seed` is their number, and METRIC_HOW_to_AGAINST_spread the standard deviation, from seed to
        seed, of METRIC_HOW_to_AGAINST.
    """
    rows = rows.assign(mask_kind="all")
    keys = [key for key in ROW_KEYS if key != "seed"] + ["metric"]
    means = rows.groupby(keys, sort=False)["value"].mean().reset_index().assign(seed=0)
    parts = [summarise(means, resamples, seed)]
    for metric, how in hows.items():
        of_metric = rows[rows["metric"] == metric].assign(mask_kind="each")
        if against not in set(of_metric["variant"]):
            continue
        parts.append(comparisons(of_metric, metric, against, how, resamples, seed))
        single = [
            comparisons(group, metric, against, how, 1, seed)
            for _, group in of_metric.groupby("seed")
            if against in set(group["variant"])
        ]
        spread = pd.concat(single).groupby(["variant", "source", "mask_kind", "stratum", "metric"], sort=False)["value"]
        named = spread.std().dropna().reset_index()
        parts.append(named.assign(metric=named["metric"] + "_spread", low=np.nan, high=np.nan, n=spread.size().max()))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(seed=table["variant"].map(rows.groupby("variant")["seed"].nunique()))[COLUMNS]


def short_runs_table(rows: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Short runs compared with their controls, as a tidy table.

    `retouch` has to beat the vanilla decoder pasted back, NAME_without_branch differs from `without_branch` in its size
    only, and everything else is compared with `base`.

    Args:
        rows: See `over_seeds`; the controls among them.
        resamples: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    compared_with: dict[str, list[str]] = {}
    for variant in rows["variant"].unique():
        for control in _controls(variant):
            compared_with.setdefault(control, [control]).append(variant)
    parts = []
    for control, variants in compared_with.items():
        sources = rows.loc[rows["variant"] == control, "source"].unique()
        chosen = rows[rows["variant"].isin(variants) & rows["source"].isin(sources)]
        parts.append(over_seeds(chosen, control, SHORT_RUNS, resamples, seed))
    return pd.concat(parts).drop_duplicates(ignore_index=True)  # the means of what has two controls


def _controls(variant: str) -> list[str]:
    pasted = ["vanilla_paste_hard", "vanilla_paste_poisson"]
    if variant.startswith("vanilla"):
        return []
    if variant.startswith("retouch"):
        return pasted
    return ["without_branch" if variant.endswith("_without_branch") else "base"]


def compared(rows: pd.DataFrame, against: str, resamples: int, seed: int) -> pd.DataFrame:
    """Means of every metric, and preservation and hole compared with one variant, as a tidy table."""
    return pd.concat(
        [
            summarise(rows, resamples, seed),
            comparisons(rows, "pre_error", against, "ratio", resamples, seed),
            comparisons(rows, "pre_error_all", against, "ratio", resamples, seed),
            comparisons(rows, "hole_psnr", against, "difference", resamples, seed),
        ]
    )


def inpainting_table(rows: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """The table of that name: `compared` with `vanilla` and, on the vector-quantised first stage, with `vanilla_vq`.

    Args:
        rows: Rows of the decoders on both first stages, see `summarise`.
        resamples: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    own_stage = rows["variant"].str.startswith(("vanilla_vq", "base_vq"))
    vq = rows[own_stage].assign(variant=rows["variant"].str.replace("vanilla_vq", "vanilla"))
    first, second = (compared(part, "vanilla", resamples, seed) for part in (rows[~own_stage], vq))
    return pd.concat([first, on_vq(second)], ignore_index=True)


def on_vq(table: pd.DataFrame) -> pd.DataFrame:
    """Name the vanilla decoder of the vector-quantised first stage, once its rows have been compared with it."""
    return table.assign(variant=table["variant"].str.replace("^vanilla", "vanilla_vq", regex=True))


def ablation(
    rows: pd.DataFrame, metrics: list[str], records: dict[str, dict], against: str, resamples: int, seed: int
) -> pd.DataFrame:
    """The table of an ablation: means, what each decoder cost, and preservation and hole compared with one of them.

    Args:
        rows: One row per pair and metric, see `summarise`.
        metrics: Which metrics get a mean.
        records: Decoder -> its provenance, for the cost.
        against: The variant that the others are compared with.
        resamples: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    return pd.concat(
        [
            summarise(rows[rows["metric"].isin(metrics)], resamples, seed),
            cost_table(records),
            comparisons(rows, "pre_error", against, "ratio", resamples, seed),
            comparisons(rows, "hole_psnr", against, "difference", resamples, seed),
        ]
    )


def cost_table(records: dict[str, dict]) -> pd.DataFrame:
    """Decoder -> provenance, as rows of a tidy table: parameters, GMAC of a decode, steps and TMAC of the training."""
    names = {"decoder_parameters": "decoder_parameters", "decode_gmac": "decode_gmac", "training_steps": "steps"}
    names |= {"training_tmac": "training_tmac"}
    parts = [facts(name, r["seed"], {metric: r[key] for metric, key in names.items()}) for name, r in records.items()]
    return pd.concat(parts)


def facts(variant: str, seed: int, values: dict[str, float]) -> pd.DataFrame:
    """Numbers without an interval as rows of a tidy table."""
    return pd.DataFrame(
        [(variant, seed, "all", "all", "all", metric, value, None, None, 1) for metric, value in values.items()],
        columns=COLUMNS,
    )


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV; fractions have six significant digits, counts all of theirs."""
    with written(path) as temporary:
        table.to_csv(temporary, index=False, float_format=_six_digits, lineterminator="\n")


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
    value, low, high = (
        row[name] * scale if row[name] is not None else float("nan") for name in ("value", "low", "high")
    )
    if np.isnan(value):  # could not be had
        return ""
    if np.isnan(low) or low == high == value:
        return f"{value:{style}}"
    return f"{value:{style}} [{low:{style}}, {high:{style}}]"


def _resampled_means(wide: pd.DataFrame, resamples: int, seed: int) -> np.ndarray:
    """(resamples, columns): means over the images of photographs drawn with replacement, every column alike.

    SciPy's `bootstrap` draws observations, and anew for every statistic; here whole photographs are drawn, once for all
    columns, so that differences are paired.
    """
    groups = wide.groupby(level="photograph", sort=True)
    sums, counts = groups.sum().to_numpy(), groups.size().to_numpy()
    rng = np.random.default_rng([seed, 20])
    weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), resamples).astype(float)
    infinite = np.isinf(sums)  # psnr_kept of an exact paste-back
    means = weights @ np.where(infinite, 0, sums) / (weights @ counts)[:, None]
    return np.where((weights > 0).astype(float) @ infinite > 0, np.inf, means)

"""What a long run has reached at which budget: multiply-accumulates and time, its fit of known pixels included."""

import numpy as np
import pandas as pd

from asymlib.study.reporting.tables import SHORT_RUNS, comparisons, facts, over_seeds, telling

# a heavier decoder, and base with as many steps and with as many multiply-accumulates
HEAVIER = {
    "large_1.5x_800": ("base_800", "base_2245"),
    "large_1.5x_3600": ("base_3600", "base_9748"),
    "large_2x_800": ("base_800", "base_4679"),
    "large_2x_2000": ("base_2000", "base_11318"),
    "large_2x_3600": ("base_3600", "base_20170"),
}
HOWS = {metric: SHORT_RUNS[metric] for metric in ("pre_error", "ring_l1_4", "hole_psnr", "hole_effnet_distance")}


def long_runs_table(rows: pd.DataFrame, records: dict[str, dict]) -> pd.DataFrame:
    """What the long runs show, as a tidy table: all compared with the official `base`, the heavier ones with `HEAVIER`,
    and the shares of the official compute and time after which `fitted` keeps known pixels as well, their mean.

    Args:
        rows: From `study.ablations`.
        records: Likewise, NAME_SEED -> record.
    """
    rows = telling(rows[rows["metric"].isin(HOWS)])
    parts = [over_seeds(rows, "base", HOWS)]
    for heavier, others in HEAVIER.items():
        for against in others:
            two = rows[rows["variant"].isin([heavier, against])]
            parts += [comparisons(two, metric, against, how).assign(seed=1) for metric, how in HOWS.items()]
    reached = until_reached(records, "fitted", "base")
    shares = {f"{share}_share": float(reached[share].mean(skipna=False)) for share in ("compute", "time")}
    parts.append(facts("fitted", len(reached), shares))
    return pd.concat(parts, ignore_index=True)


def curve_over_compute(record: dict, official: dict) -> pd.DataFrame:
    """A run's curve with the budget spent until each of its points.

    Args:
        record: Of the run, from `study.ablations`.
        official: Of a run without a fit, of the same batches; it says what a multiply-accumulate of a step is worth.

    Returns:
        Rows of {step, tmac, pre_error, hole_psnr, loss}: 10^12 multiply-accumulates until there.
    """
    curve = pd.DataFrame(record["curve"])
    worth = official["training_tmac"] / (official["steps"] * official["decode_gmac"])
    of_steps = worth * record["decode_gmac"] * curve["step"]
    fitting = record["training_tmac"] - of_steps.iloc[-1]
    return curve.assign(tmac=fitting + of_steps)


def until_reached(records: dict[str, dict], ours: str, official: str) -> pd.DataFrame:
    """From where on `ours` keeps known pixels as well as `official` does at its end, seed by seed.

    Args:
        records: NAME_SEED -> record, from `study.ablations`.
        ours: Name of a row with the seeds of the other.
        official: Name of the row that it is compared with.

    Returns:
        Rows of {seed, pre_error (official's last), step, compute, time: shares of the official run's, hole_psnr there,
        official_hole_psnr at as much compute, official_last_hole_psnr}; NaN where it is not reached. A step of the
        official run is taken to last as long as one of ours, of the same decoder and batch, so that both were measured
        at the same time; NaN where ours was killed in between.
    """
    rows = []
    for name, record in records.items():
        if name.rpartition("_")[0] != official:
            continue
        theirs = curve_over_compute(record, record)
        ours_record = records[f"{ours}_{record['seed']}"]
        own = curve_over_compute(ours_record, record)
        last = theirs.iloc[-1]
        later_worst = own["pre_error"][::-1].cummax()[::-1]  # a curve that dips for a moment has not arrived
        there = own[later_worst <= last["pre_error"]].head(1)
        row = {"seed": record["seed"], "pre_error": last["pre_error"], "official_last_hole_psnr": last["hole_psnr"]}
        for point in there.itertuples():
            meanwhile = theirs[theirs["tmac"] <= point.tmac].iloc[-1]
            seconds = ours_record.get("seconds", {"fitting": np.nan, "training": np.nan})
            a_step = seconds["training"] / ours_record["steps"]
            time = (seconds["fitting"] + point.step * a_step) / (last["step"] * a_step)
            row |= {"step": point.step, "compute": point.tmac / last["tmac"], "time": time}
            row |= {"hole_psnr": point.hole_psnr, "official_hole_psnr": meanwhile["hole_psnr"]}
        rows.append(row)
    columns = ["seed", "pre_error", "step", "compute", "time", "hole_psnr", "official_hole_psnr"]
    return pd.DataFrame(rows).reindex(columns=[*columns, "official_last_hole_psnr"])

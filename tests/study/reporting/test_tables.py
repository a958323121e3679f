"""Tables: means of scenes with their intervals, paired comparisons, and what is not measured."""

import numpy as np
import pandas as pd
import pytest

from asymlib.study.reporting.tables import (
    COLUMNS,
    SHORT_RUNS,
    compare,
    comparisons,
    over_seeds,
    read_rows,
    read_table,
    short_runs_table,
    summarise,
    wide_table,
    write_rows,
    write_table,
)


def rows_of(values: dict[str, np.ndarray], photographs: list[str]) -> pd.DataFrame:
    common = {"seed": 0, "source": "own", "stratum": "photograph", "metric": "pre_error"}
    table = pd.DataFrame({"photograph": photographs, "pair": [f"p{i}" for i in range(len(photographs))]})
    table = table.assign(mask_kind=["box", "thin"] * (len(table) // 2), **common)
    return pd.concat([table.assign(variant=v, value=value) for v, value in values.items()], ignore_index=True)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 2, 40)
    return rows_of({"vanilla": base * 10, "base": base}, [f"photo{i // 4}" for i in range(40)])


def test_a_cell_is_the_mean_with_an_interval_around_it(rows):
    table = summarise(rows)
    assert list(table.columns) == COLUMNS
    cell = table[(table["variant"] == "base") & (table["mask_kind"] == "all")].iloc[0]
    assert cell["value"] == pytest.approx(rows.loc[rows["variant"] == "base", "value"].mean())
    assert cell["low"] < cell["value"] < cell["high"]
    assert cell[["n", "scenes", "df"]].tolist() == [40, 10, 9]
    assert table.loc[table["mask_kind"] == "box", "n"].eq(20).all()


def test_crops_of_one_photograph_do_not_narrow_the_interval():
    """Breaks when pairs are taken for scenes: a hundred copies of each are no more evidence than one."""
    many, few = (
        summarise(rows_of({"base": np.repeat([1.0, 2, 3, 4], copies)}, list(np.repeat(list("abcd"), copies))))
        for copies in (100, 2)
    )
    shown = ["value", "low", "high", "scenes", "df"]
    assert many.iloc[-1][shown].tolist() == pytest.approx(few.iloc[-1][shown].tolist())
    assert many.iloc[-1]["n"] == 400 and many.iloc[-1]["high"] - many.iloc[-1]["low"] > 4


def test_every_scene_has_the_same_weight():
    """Breaks when a photograph of many crops counts for more: (1 + 3) / 2 is not the mean of 1, 1, 1 and 3."""
    rows = rows_of({"base": np.array([1.0, 1, 1, 3]), "vanilla": np.array([2.0, 2, 2, 4])}, list("aaab"))
    assert summarise(rows).iloc[-1]["value"] == 3 and summarise(rows).iloc[-2]["value"] == 2
    assert compare(rows, "pre_error", "base", "vanilla", "ratio").value == pytest.approx(2 / 3)


def test_what_was_not_measured_counts_nowhere():
    """Breaks when a mean is taken over fewer pairs than `n` says, or a scene without a value is a degree of freedom."""
    base = np.array([1.0, np.nan, 3, 5, np.nan, np.nan])
    rows = rows_of({"base": base, "vanilla": np.array([0.0, 9, 9, 4, 9, 9])}, list("aabbcc"))
    rows = rows.assign(mask_kind="box").drop(index=8)  # vanilla's first pair of the photograph b
    cells = summarise(rows).set_index("variant")
    assert cells.loc["base", ["value", "n", "scenes", "df"]].tolist() == [2.5, 3, 2, 1]
    assert cells.loc["vanilla", ["n", "scenes"]].tolist() == [5, 3]
    both = comparisons(rows, "pre_error", "vanilla", "difference").iloc[0]
    assert both[["value", "n", "scenes"]].tolist() == [1, 2, 2]  # 1 - 0 and 5 - 4
    one = summarise(rows[rows["photograph"] == "a"]).iloc[0]
    assert one["scenes"] == 1 and np.isnan(one[["low", "high", "df"]].astype(float)).all()


def test_a_source_without_the_metric_is_left_out(rows):
    """Breaks when a comparison is an error, or a row, where one side was not measured at all."""
    partly = rows.assign(source=np.where(rows["variant"] == "base", "inpainted", rows["source"]))
    found = comparisons(pd.concat([rows, partly[partly["source"] == "inpainted"]]), "pre_error", "vanilla", "ratio")
    assert found["source"].tolist() == ["own"]
    assert comparisons(rows, "seam_added", "vanilla", "difference").empty


def test_comparisons_are_paired(rows):
    """Every pair's ratio is ten: the paired interval has no width although both means vary a lot."""
    assert compare(rows, "pre_error", "vanilla", "base", "ratio")[:3] == pytest.approx((10, 10, 10))
    table = comparisons(rows, "pre_error", "vanilla", "ratio")
    assert table["metric"].tolist() == ["pre_error_ratio_to_vanilla"] and table["value"].iloc[0] == pytest.approx(0.1)


def test_an_exact_paste_has_infinite_psnr_and_not_nan():
    rows = rows_of({"vanilla_paste_hard": np.full(8, np.inf)}, ["a", "b", "c", "d"] * 2)
    cell = summarise(rows).iloc[-1]
    assert cell["value"] == cell["low"] == cell["high"] == np.inf


def test_the_same_rows_give_the_same_bytes(rows, tmp_path, monkeypatch):
    for name in ("one", "two"):
        write_table(summarise(rows), tmp_path / f"{name}.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    packed = []
    for moment in (1e9, 2e9):
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        write_table(summarise(rows), tmp_path / "one.csv.gz")
        packed.append((tmp_path / "one.csv.gz").read_bytes())
    assert packed[0] == packed[1]
    assert not list(tmp_path.glob(".*"))


def test_a_table_for_reading_shows_value_and_interval(rows):
    wide = wide_table(summarise(rows), {"pre_error": ".1f"}, mask_kind="all")
    assert wide["variant"].tolist() == ["vanilla", "base"]
    assert wide["pre_error"].str.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\]").all()


def test_mistakes_are_named(rows, tmp_path):
    with pytest.raises(ValueError, match="how: got 'sum'"):
        compare(rows, "pre_error", "base", "vanilla", "sum")
    with pytest.raises(ValueError, match="variant: got 'larger'"):
        compare(rows, "pre_error", "larger", "vanilla", "ratio")
    with pytest.raises(FileNotFoundError, match="table .* is missing"):
        read_table(tmp_path / "none.csv")


def test_a_table_keeps_counts_whole_and_fractions_to_six_digits(tmp_path):
    """Breaks when a number of parameters is rounded, or an exact PSNR (infinite) cannot be written."""
    write_table(pd.DataFrame({"value": [1_743_795.0, 1 / 3, float("inf")]}), tmp_path / "new" / "a.csv")
    assert (tmp_path / "new" / "a.csv").read_text().splitlines() == ["value", "1743795", "0.333333", "inf"]


def test_rows_come_back_from_a_file_with_six_digits(tmp_path):
    """Breaks when a metric that a variant does not have becomes a row, or an infinite value is lost."""
    keys = {"mask_kind": "box", "stratum": "photograph", "photograph": "a", "pair": "p", "seed": 0, "source": "own"}
    values = [("v", "pre_error", 0.123456789), ("v", "psnr_kept", float("inf")), ("w", "pre_error", 2.0)]
    rows = pd.DataFrame([{**keys, "variant": v, "metric": m, "value": x} for v, m, x in values])
    write_rows(rows, tmp_path / "rows.csv.gz")
    back = read_rows(tmp_path / "rows.csv.gz").set_index(["variant", "metric"])["value"]
    assert back.to_dict() == {("v", "pre_error"): 0.123457, ("v", "psnr_kept"): float("inf"), ("w", "pre_error"): 2.0}


def short_runs(offsets: dict[str, list[float]]) -> pd.DataFrame:
    """Variant -> what each seed adds to the error; photographs differ much, and alike for every run."""
    base = np.repeat(np.arange(10.0, 15.0), 2)
    names = [f"photo{i // 2}" for i in range(10)]
    parts = [
        rows_of({variant: base + offset}, names).assign(seed=seed)
        for variant, of_seeds in offsets.items()
        for seed, offset in enumerate(of_seeds)
    ]
    return pd.concat(parts, ignore_index=True)


def test_an_effect_is_seen_against_the_spread_of_seeds():
    """Breaks when seeds are averaged first: a single lucky one would then count as an effect."""
    rows = short_runs({"base": [0, 0, 0], "sure": [-1, -1, -1], "lucky": [-3, 0, 0]})
    table = over_seeds(rows, "base", {"pre_error": "difference"}).set_index(["variant", "metric"])
    effect = "pre_error_difference_to_base"
    sure, lucky = (table.loc[(name, effect)] for name in ("sure", "lucky"))
    assert sure["value"] == lucky["value"] == pytest.approx(-1)
    assert sure[["low", "high"]].tolist() == pytest.approx([-1, -1])
    assert [lucky["low"], lucky["high"]] == pytest.approx([-1 - 4.3027, -1 + 4.3027], abs=1e-4)  # t of three seeds
    assert lucky[["n", "scenes", "df"]].tolist() == [10, 5, 2]
    assert table.loc[("sure", f"{effect}_spread"), "value"] == pytest.approx(0, abs=1e-9)
    assert table.loc[("lucky", f"{effect}_spread"), "value"] == pytest.approx(np.std([-3, 0, 0], ddof=1))
    assert table.loc[("sure", "pre_error"), "value"] == pytest.approx(11) and (table["seed"] == 3).all()
    unsure = table.loc[[("lucky", "pre_error"), ("sure", "pre_error")]]
    assert unsure["high"].iloc[0] > unsure["high"].iloc[1] + 1  # of the means, too


def test_short_runs_are_compared_with_their_controls():
    """Breaks when the branch's effect is taken for that of the size, a mean stands twice, or 0 / 0 becomes a number."""
    sized = {"base": [0, 0], "without_branch": [3, 3], "deep": [1, 1], "deep_without_branch": [5, 5]}
    rows = pd.concat([short_runs(sized).assign(metric=metric) for metric in SHORT_RUNS])
    found = short_runs_table(rows).set_index(["variant", "metric"])["value"]
    assert found.index.is_unique
    assert {v for v, metric in found.index if metric == "seam_grad"} == set(rows["variant"])
    start = "seam_grad_difference_to_"
    named = {(v, m.removeprefix(start)): value for (v, m), value in found.items() if m.startswith(start)}
    assert {key: value for key, value in named.items() if "spread" not in key[1]} == pytest.approx(
        {
            ("deep", "base"): 1,
            ("without_branch", "base"): 3,
            ("deep_without_branch", "without_branch"): 2,
        }
    )


def test_runs_are_compared_on_the_seeds_that_both_have():
    rows = short_runs({"base": [5, 0, 0], "once": [4]})
    assert compare(rows, "pre_error", "once", "base", "difference").value == pytest.approx(-1)
    with pytest.raises(ValueError, match="with a seed in common"):
        compare(rows[(rows["variant"] == "once") | (rows["seed"] > 0)], "pre_error", "once", "base", "ratio")

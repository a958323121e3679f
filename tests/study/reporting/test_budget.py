"""Budgets of long runs: compute and time until another run's end."""

import pytest

from asymlib.study.reporting.budget import curve_over_compute, until_reached


def record(seed, errors, holes, fit_tmac=0.0, fit_seconds=0.0, gmac=2.0, every=100):
    curve = [
        {"step": every * i, "loss": 0.1, "pre_error": e, "hole_psnr": h}
        for i, (e, h) in enumerate(zip(errors, holes, strict=True))
    ]
    steps = curve[-1]["step"]
    return {
        "seed": seed,
        "steps": steps,
        "decode_gmac": gmac,
        "training_tmac": fit_tmac + 0.005 * gmac * steps,  # 0.01 a step of the official one
        "seconds": {"fitting": fit_seconds, "training": 0.2 * steps},
        "curve": curve,
    }


OFFICIAL = record(0, [9, 8, 6, 4, 2], [20, 21, 22, 23, 24])  # 400 steps, 4 TMAC, 80 s


def test_a_fit_comes_before_the_first_step():
    curve = curve_over_compute(record(0, [9, 1], [20, 25], fit_tmac=0.5, fit_seconds=7, gmac=6.0), OFFICIAL)
    assert curve["tmac"].tolist() == pytest.approx([0.5, 3.5])


def test_what_dips_for_a_moment_has_not_arrived():
    ours = record(0, [9, 1, 3, 2, 1], [22, 23, 24, 25, 26], fit_tmac=0.1, fit_seconds=4, every=10)
    table = until_reached({"base_0": OFFICIAL, "fitted_0": ours}, "fitted", "base")
    found = table.iloc[0].to_dict()
    assert (found["step"], found["pre_error"], found["hole_psnr"]) == (30, 2, 25)
    assert found["compute"] == pytest.approx((0.1 + 0.3) / 4) and found["time"] == pytest.approx((4 + 6) / 80)
    assert found["official_hole_psnr"] == 20  # at a tenth of its compute it has its first point alone
    assert found["official_last_hole_psnr"] == 24


def test_what_is_never_reached_says_so():
    ours = record(1, [9, 5], [22, 23])
    table = until_reached({"base_1": OFFICIAL | {"seed": 1}, "fitted_1": ours}, "fitted", "base")
    assert table["seed"].tolist() == [1] and table["compute"].isna().all()

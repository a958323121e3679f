"""Claims are decided by numbers, and what cannot be decided says why."""

import numpy as np
import pandas as pd
import pytest

from asymlib.study.reporting.claims import CLAIMS, Claim, claims_for_reading, decide, verdict
from asymlib.study.reporting.tables import write_rows, write_table


@pytest.mark.parametrize(
    "side, expected", [("below", ["holds", "open", "does not hold"]), ("above", ["does not hold", "open", "holds"])]
)
def test_a_verdict_is_where_the_whole_interval_lies(side, expected):
    """Breaks when the estimate alone decides, or the sides are mixed up."""
    claim = Claim("ours", "", side=side, bound=1.0)
    assert [verdict(claim, *interval) for interval in ((0.2, 0.9), (0.9, 1.2), (1.1, 3.0))] == expected


@pytest.fixture
def results(tmp_path):
    """Five photographs: base halves vanilla's error on own latents and doubles it on swapped ones."""
    parts = []
    for source, factor in (("own", 0.5), ("swapped", 2.0)):
        for variant, error in (("vanilla", np.arange(1.0, 6)), ("base", factor * np.arange(1.0, 6))):
            keys = {"variant": variant, "seed": 0, "source": source, "mask_kind": "box", "stratum": "photograph"}
            names = list("abcde")
            parts.append(
                pd.DataFrame({**keys, "photograph": names, "pair": names, "metric": "pre_error", "value": error})
            )
    write_rows(pd.concat(parts), tmp_path / "rows" / "inpainting.csv")
    where = {"variant": "large_2x_full_size", "source": "all", "stratum": "all"}
    cost = pd.DataFrame({**where, "metric": ["whole_run_100", "whole_run_4"]})
    write_table(cost.assign(value=[1.19, 3.3], low=None, high=None), tmp_path / "tables" / "cost.csv")
    return tmp_path


def test_claims_follow_the_numbers(results):
    table = decide(results, "photograph", 50, 0)
    assert len(table) == len(CLAIMS)
    found = table.set_index("claim")["verdict"]
    assert found["The branch keeps known pixels (own latents)"] == "holds"
    assert found["The branch keeps known pixels (swapped latents)"] == "does not hold"
    assert found["The branch keeps known pixels (inpainted latents)"].startswith("not tested here: no such row")
    assert found["The 2x decoder costs only slightly more: 50 guided steps, at most a quarter"] == "holds"
    assert found["The 2x decoder costs only slightly more: 4 steps, at most a quarter"] == "does not hold"
    assert (
        found["A local edit by prompt leaves the rest alone"]
        == "not tested here: no such row in the table local_editing"
    )
    estimate = table.set_index("claim").loc["The branch keeps known pixels (own latents)"]
    assert estimate["estimate"] == estimate["low"] == estimate["high"] == 0.5  # every photograph alike


def test_claims_for_reading_have_no_number_where_there_is_none(results):
    shown = claims_for_reading(decide(results, "photograph", 50, 0), "paper").set_index("claim")
    assert shown.loc["The branch keeps known pixels (own latents)", "value"] == "0.5 [0.5, 0.5]"
    assert shown.loc["FID falls by 2 in inpainting and stays in text-to-image", "value"] == ""
    assert not shown["verdict"].str.contains("nan").any()

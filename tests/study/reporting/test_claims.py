"""Claims are decided by numbers and by how many there are, and what cannot be decided says why."""

import numpy as np
import pandas as pd
import pytest
import yaml

from asymlib.study.reporting.claims import (
    COLUMNS,
    Claim,
    claims_for_reading,
    decide,
    read_claims,
)
from asymlib.study.reporting.statistics import Estimate, holm, p_value
from asymlib.study.reporting.tables import compare, read_rows, write_rows, write_table
from asymlib.study.sources import REFERENCES

SCENES = np.array([1.0, 2, 3, 4, 5])
# What each variant differs by from vanilla's 10, in the five scenes.
OFFSETS = {
    "vanilla": 0 * SCENES,
    "better": -SCENES,
    "worse": SCENES,
    "slightly_better": -np.array([0.7, 1.1, 1.6, 2.1, 2.5]),
    "unclear": np.array([1.0, -2, 3, -4, 2.5]),
}


@pytest.fixture
def results(tmp_path):
    """Five photographs, one pair each, and a table with counted numbers and an estimated one."""
    keys = {"seed": 0, "source": "own", "mask_kind": "box", "stratum": "photograph", "metric": "ring_l1_4"}
    scene = {"photograph": list("abcde"), "pair": list("abcde")}
    rows = [pd.DataFrame(keys | scene | {"variant": name, "value": 10 + offset}) for name, offset in OFFSETS.items()]
    write_rows(pd.concat(rows), tmp_path / "rows" / "inpainting.csv.gz")
    cell = {"variant": "base", "source": "all", "stratum": "all"}
    cells = [("macs", 1.19, *[np.nan] * 4), ("more_macs", 3.3, *[np.nan] * 4), ("psnr", 0.3, 0.1, 0.5, 5, 4)]
    cells.append(("one_scene", 0.3, np.nan, np.nan, 1, np.nan))
    table = pd.DataFrame(cells, columns=["metric", "value", "low", "high", "scenes", "df"]).assign(**cell, n=5)
    write_table(table, tmp_path / "tables" / "cost.csv")
    return tmp_path


def claim(variant: str, *against: str, **changes) -> Claim:
    settings = {"claim": f"{variant} {against} {changes}", "variant": variant, "metric": "ring_l1_4"}
    return Claim(**settings | {"against": against} | changes)


def cell(metric: str, **changes) -> Claim:
    return Claim(claim=f"{metric} {changes}", table="cost", variant="base", source="all", metric=metric, **changes)


def decided(results, *claims: Claim) -> pd.DataFrame:
    return decide(results, "photograph", {"ours": list(claims)})


def test_a_claim_holds_does_not_hold_or_is_open(results):
    """Breaks when the estimate alone decides, or the sides are mixed up."""
    names = ("better", "worse", "unclear")
    below, above = (
        decided(results, *(claim(name, "vanilla", direction=direction) for name in names))["verdict"].tolist()
        for direction in ("below", "above")
    )
    assert below == ["holds", "does not hold", "open"] and above == ["does not hold", "holds", "open"]


def test_a_row_can_be_traced(results):
    """By hand: -1 .. -5 have the mean -3, the standard error sqrt(2.5 / 5) and t = 4.24 with 4 degrees of freedom."""
    row = decided(results, claim("better", "vanilla", unit="levels")).iloc[0]
    assert list(row.index) == COLUMNS
    assert row[["family", "table", "variant", "source"]].tolist() == ["ours", "inpainting", "better", "own"]
    assert row["metric"] == "ring_l1_4_difference_to_vanilla" and row["unit"] == "levels"
    assert row[["estimate", "scenes", "bound", "direction"]].tolist() == [-3, 5, 0, "below"]
    assert row["p"] == pytest.approx(0.00662, abs=1e-5) and row["p_adjusted"] == row["p"]


def test_the_number_of_claims_in_a_family_counts(results):
    """0.0066 holds among seven claims and not among eight; another family's, and what is not tested, do not count."""
    strong, weak = claim("better", "vanilla"), claim("unclear", "vanilla")
    untested = Claim(claim="never", untested="needs people")
    for others, verdict in ((6, "holds"), (7, "open")):
        found = decided(results, strong, *[weak] * others, *[untested] * 9)
        assert found["verdict"].iloc[0] == verdict
        assert found["p_adjusted"].iloc[0] == pytest.approx(found["p"].iloc[0] * (others + 1))
    apart = decide(results, "photograph", {"paper": [strong], "ours": [weak] * 50})
    assert apart["family"].nunique() == 2 and apart["verdict"].iloc[0] == "holds"


def test_against_every_baseline_the_hardest_decides(results):
    """Breaks when the easiest or the mean of baselines decides, or they count as several claims."""
    all_of_them = claim("better", "vanilla", "worse", "slightly_better")
    row = decided(results, all_of_them).iloc[0]
    alone = decided(results, claim("better", "slightly_better")).iloc[0]
    assert row["metric"] == "ring_l1_4_difference_to_slightly_better" and row["estimate"] == pytest.approx(-1.4)
    assert row["p"] == alone["p"] == row["p_adjusted"] and row["verdict"] == "holds"
    beaten = decided(results, claim("slightly_better", "vanilla", "worse", "better")).iloc[0]
    assert beaten["metric"] == "ring_l1_4_difference_to_better" and beaten["verdict"] == "does not hold"


def test_losing_to_one_of_many_baselines_is_not_a_loss_at_once(results):
    """Breaks when the worst of many comparisons counts as if it had been the only one: 0.0066 x 8 is above 0.05."""
    rows = read_rows(results / "rows" / "inpainting.csv.gz")
    same = rows[rows["variant"] == "vanilla"]
    copies = [same.assign(variant=f"copy_{i}") for i in range(7)]
    write_rows(pd.concat([rows, *copies]), results / "rows" / "inpainting.csv.gz")
    for several, verdict in ((6, "does not hold"), (7, "open")):
        names = [f"copy_{i}" for i in range(several)]
        assert decided(results, claim("worse", "vanilla", *names))["verdict"].item() == verdict


def test_a_missing_baseline_or_table_is_said(results):
    """Breaks when a claim about every baseline is decided without one of them."""
    found = decided(results, claim("better", "vanilla", "nobody"), cell("none"), claim("base", table="nowhere"))
    assert found["verdict"].tolist() == [
        "not tested here: no such row in the table inpainting",
        "not tested here: no such row in the table cost",
        "not tested here: no such row in the table nowhere",
    ]
    assert found["p"].isna().all() and found["estimate"].isna().all()


def test_a_cell_decides_as_the_rows_would(results):
    """By hand: 0.3 [0.1, 0.5] with 4 degrees of freedom is t = 2.776 away from 0.1, whose p-value is 0.025."""
    found = decided(results, cell("psnr", direction="above", bound=0.1))
    assert found["p"].item() == pytest.approx(0.025) and found["verdict"].item() == "holds"
    assert found["scenes"].item() == 5
    rows = read_rows(results / "rows" / "inpainting.csv.gz")
    estimate = compare(rows, "ring_l1_4", "better", "vanilla", "difference")
    from_rows = decided(results, claim("better", "vanilla", bound=-2))["p"].item()
    assert from_rows == p_value(Estimate(*estimate), -2, "below")


def test_what_was_counted_has_no_p_value_and_is_not_adjusted_for(results):
    """Breaks when a count takes part in Holm's adjustment, or a single scene decides."""
    found = decided(
        results,
        cell("macs", bound=1.25),
        cell("more_macs", bound=1.25),
        cell("one_scene"),
        claim("better", "vanilla"),
    )
    assert found["verdict"].tolist() == ["holds (counted)", "does not hold (counted)", "open", "holds"]
    assert found["p"].isna().tolist() == [True, True, True, False]
    assert found["p_adjusted"].iloc[3] == found["p"].iloc[3] == holm([found["p"].iloc[3]])[0]


def test_claims_for_reading_show_the_bound_and_on_which_side_of_it_a_number_lies(results):
    """Breaks when "above -0.1 dB" stands beside -0.1 where the number is -0.1004, or NaN is shown."""
    table = decided(results, claim("better", "vanilla", unit="levels"), Claim(claim="never", untested="needs people"))
    near = table.iloc[:1].assign(estimate=-0.10004, low=-0.5, high=0.3, bound=-0.1, direction="above", claim="near")
    shown = claims_for_reading(pd.concat([table, near]), "ours").set_index("claim")
    assert shown.iloc[0][["claimed", "scenes", "adjusted p"]].tolist() == ["below 0 levels", "5", "0.0066"]
    assert shown.iloc[0]["found"] == "-3 [-4.96, -1.04]"
    assert shown.loc["near", "found"] == "-0.10004 [-0.5, 0.3]" and shown.loc["near", "claimed"] == "above -0.1 levels"
    assert shown.loc["never", ["claimed", "found", "scenes", "adjusted p", "decided by"]].tolist() == [""] * 5
    assert claims_for_reading(table, "paper").empty


def test_the_families_of_the_file_can_be_decided():
    """Breaks when the file has a claim that its own rules refuse, or a family has gone."""
    families = read_claims()
    assert list(families) == ["paper", "ours"]
    paper = [one for one in families["paper"] if not one.untested]
    assert not any("last_word" in one.variant or one.table.startswith("ablations") for one in paper)
    statements = [one.claim for one in families["ours"]]
    assert "The branch keeps known pixels (own latents)" in statements and not any("{" in s for s in statements)
    edits = [one for one in families["ours"] if one.table == "local_editing" and one.variant == "last_word"]
    assert {one.metric for one in edits} >= {"word_score_difference_to_vanilla", "word_share_difference_to_vanilla"}


def written(tmp_path, **changes):
    entry = {"claim": "A", "variant": "base", "metric": "ring_l1_4", "against": "vanilla"} | changes
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"ours": [entry]}))
    return tmp_path / "claims.yaml"


@pytest.mark.parametrize("source", [source for source, reference in REFERENCES.items() if reference is None])
@pytest.mark.parametrize("metric", ["ring_l1_4", "seam_grad", "hole_psnr", "hole_effnet_distance", "effnet_distance"])
def test_where_there_is_no_right_answer_nothing_that_needs_one_is_claimed(tmp_path, source, metric):
    """Breaks when undoing an edit can win again."""
    with pytest.raises(ValueError, match=f"metric: got '{metric}' on '{source}', expected another: the hole"):
        read_claims(written(tmp_path, source=source, metric=metric))
    with pytest.raises(ValueError, match="expected another: the hole has no right answer"):
        read_claims(written(tmp_path, table="cost", against=[], source=source, metric=f"{metric}_difference_to_base"))
    for allowed in ("seam_added", "hole_changed", "pre_error"):
        assert read_claims(written(tmp_path, source=source, metric=allowed))["ours"][0].metric == allowed


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"metric": "seam_added", "source": "swapped"}, "got 'seam_added' on 'swapped', expected another"),
        ({"metric": "pre_error", "variant": "last_word"}, "got 'pre_error' of last_word, expected another: it copies"),
        ({"metric": "pre_error", "variant": "vanilla_paste_hard"}, "expected another: it copies known pixels"),
        ({"how": "ratio"}, "bound: got 0 for a ratio, expected a number above 0"),
        ({"how": "sum"}, "how: got 'sum', expected: Input should be 'difference' or 'ratio'"),
        ({"direction": "left"}, "direction: got 'left', expected: Input should be 'below' or 'above'"),
        ({"metric": ""}, "variant, metric: got 'base' and '', expected both, or untested"),
        ({"table": "cost"}, "against: got 'vanilla' for cost, expected a cell's metric to name it"),
        ({"side": "below"}, "side: got 'below', expected: Extra inputs are not permitted"),
        ({"claim": 7}, "ours: got .*, expected keys, `claim` among them"),
        ({"source": ["own", "swapped"]}, "ours: got 'A' twice, expected every statement once"),
    ],
)
def test_a_claim_that_nothing_can_decide_is_refused_in_one_sentence(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=f"claims.yaml, .*{sentence}") as error:
        read_claims(written(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_an_entry_with_several_sources_is_a_claim_for_each(tmp_path):
    claims = read_claims(written(tmp_path, claim="On {source}", source=["own", "swapped"]))["ours"]
    assert [(one.claim, one.source, one.against) for one in claims] == [
        ("On own", "own", ("vanilla",)),
        ("On swapped", "swapped", ("vanilla",)),
    ]

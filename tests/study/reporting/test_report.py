"""The comparison with the paper is made of ratios, and the pages' tables are rewritten in their place."""

import pandas as pd
import pytest

from asymlib.study.reporting import report
from asymlib.study.reporting.tables import COLUMNS


def test_ratios_stand_beside_the_paper_s():
    rows = [("base", 0.1), ("vanilla_finetuned", 1.0), ("base_paste_hard", 0.0)]
    table = pd.DataFrame(
        [(v, 0, "own", "all", "photograph", "pre_error_ratio_to_vanilla", r, r / 2, r * 2, 9, 5, 4) for v, r in rows],
        columns=COLUMNS,
    )
    compared = report.compare_with_paper(table, "photograph").set_index("decoder")
    assert compared.loc["base", "paper"] == "1/190" and compared.loc["large_2x", "paper"] == "1/516"
    assert compared.loc["base", "here, own"] == "1/10.0 [1/20.0, 1/5.0]"
    assert compared.loc["vanilla_finetuned", "here, own"] == "1.00 [1/2.0, 2.00]"
    assert compared.loc["vanilla_finetuned", "paper"] == "not reported" and "base_paste_hard" not in compared.index


def test_the_readme_keeps_what_stands_around_its_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "readme_tables", lambda results, profile: f"table of {profile}")
    text = "# Title\n\n<!-- results: default -->\nold\n<!-- end -->\n\nProse with \\1.\n"
    (tmp_path / "README.md").write_text(text)
    report.update_pages(tmp_path)
    assert (tmp_path / "README.md").read_text() == text.replace("old", "table of default")


def test_a_number_in_a_sentence_comes_from_its_cell(tmp_path):
    cells = [("base", 0, s, "all", "photograph", "ring_l1_4", v, v, v, 9, 5, 4) for s, v in (("own", 1.26), ("x", 2.0))]
    path = tmp_path / report.HEADLINE / "tables" / "inpainting.csv"
    path.parent.mkdir(parents=True)
    pd.DataFrame(cells, columns=COLUMNS).to_csv(path, index=False)
    text = "off by <!-- = inpainting base own ring_l1_4 .1f -->9.9<!-- --> levels"
    assert report.filled(text, tmp_path) == text.replace("9.9", "1.3")
    with pytest.raises(ValueError, match="inpainting.csv: got 0 cells of base own seam, expected one"):
        report.filled(text.replace("ring_l1_4", "seam"), tmp_path)


def test_the_verdicts_of_default_stand_beside_those_of_the_headline(tmp_path):
    """Breaks when a verdict comes beside another claim."""
    columns = ["family", "claim", "direction", "bound", "unit", "estimate", "low", "high", "scenes", "p_adjusted"]
    for profile, verdicts in {report.HEADLINE: ("holds", "open"), "default": ("open", "does not hold")}.items():
        rows = [("ours", c, "below", 1, "", 0.5, 0.4, 0.6, 9, 0.1) for c in ("first", "second")]
        table = pd.DataFrame(rows, columns=columns).assign(
            variant="base", metric="m", table="inpainting", source="own", verdict=verdicts
        )
        folder = tmp_path / profile / "tables"
        folder.mkdir(parents=True)
        pd.concat([table, table.assign(family="paper")]).to_csv(folder / "claims.csv", index=False)
    lines = [
        line.split("|") for line in report.readme_claims(tmp_path, report.HEADLINE).splitlines() if "first" in line
    ]
    beside = [[part.strip() for part in line[6:9]] for line in lines]
    assert beside == 2 * [["holds", "open, 0.5 [0.4, 0.6]", "inpainting: base own m"]]

"""A number in the README comes from results/, and what it tells to run exists."""

import re

import pytest

from asymlib.study.params import load_params
from asymlib.study.project import project_root
from asymlib.study.reporting.plan import plan_text
from asymlib.study.reporting.report import filled, readme_claims, readme_tables

ROOT = project_root()
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"<!-- results: (\w+) -->\n(.*?)\n<!-- end -->", README, re.DOTALL)
CLAIMS = re.search(r"<!-- claims: (\w+) -->\n(.*?)\n<!-- end -->", README, re.DOTALL)


def test_the_readme_has_tables():
    assert [name for name, _ in BLOCKS] == ["default"]


@pytest.mark.parametrize("profile, text", BLOCKS, ids=[name for name, _ in BLOCKS])
def test_the_readme_s_tables_are_those_of_the_results(profile, text):
    """Breaks when a number is typed, or results change and the README does not (`make readme`)."""
    assert text == readme_tables(ROOT / "results", profile)


def test_the_readme_s_claims_are_those_of_the_results():
    assert CLAIMS[2] == readme_claims(ROOT / "results", CLAIMS[1])


def test_every_number_in_a_sentence_is_a_cell_of_a_table():
    """Breaks when a statement keeps the number of an earlier run."""
    assert len(re.findall("<!-- = ", README)) >= 10
    assert filled(README, ROOT / "results") == README


def test_the_data_plan_is_counted_not_typed():
    """Breaks when the settings of `paper` change and the README does not (`make readme`)."""
    text = re.search(r"<!-- plan -->\n(.*?)\n<!-- end plan -->", README, re.DOTALL)[1]
    assert text == plan_text(load_params("paper"))


def test_pictures_and_links_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_every_make_target_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\n)make (\w+)", README)) <= targets

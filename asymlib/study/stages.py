"""Write into dvc.yaml which code each stage depends on: `make stages`; `--check` only says whether it is right.

The code of a stage is what its notebook or module imports, and all that this imports in turn. What only shows or
records is left out (`RECORDS`): a change of it must not train anything again.
"""

import argparse
import ast
import re
import sys
import textwrap
from pathlib import Path

import nbformat
import yaml

from asymlib.files import written
from asymlib.study.project import project_root

RECORDS = {f"asymlib/study/{name}.py" for name in ("params", "profiles", "project", "provenance", "reporting/plots")}
# a training writes its curve with them, and no number of it depends on how
SHOWN_BY_TRAININGS = {"asymlib/study/reporting/tables.py"}
TRAININGS = ("decoder", "inpainter", "last_word", "ablations")
MARK = "# code:"


def stage_code(name: str, stage: dict, root: Path) -> list[str]:
    """The modules that a stage's numbers come from, as sorted paths from the root.

    Args:
        name: The stage's.
        stage: Its entry in dvc.yaml.
        root: The project.
    """
    path = source_of(stage, root)
    left_out = RECORDS | (SHOWN_BY_TRAININGS if name in TRAININGS else set())
    reached, todo = set(), imported(code_of(path), root) | ({path} if path.suffix == ".py" else set())
    while todo:
        module = todo.pop()
        if module in reached or module.relative_to(root).as_posix() in left_out:
            continue
        reached.add(module)
        todo |= imported(module.read_text(), root)
    return sorted(module.relative_to(root).as_posix() for module in reached)


def source_of(stage: dict, root: Path) -> Path:
    """The notebook that a stage runs, or the module."""
    module, *arguments = stage["cmd"].split()[2:]
    if module == "asymlib.study.notebooks":
        return root / "notebooks" / f"{arguments[0]}.ipynb"
    return root / f"{module.replace('.', '/')}.py"


def code_of(path: Path) -> str:
    """The Python of a module or a notebook."""
    if path.suffix == ".py":
        return path.read_text()
    return "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")


def imported(code: str, root: Path) -> set[Path]:
    """The files of asymlib that a piece of code imports, also inside its functions.

    A package's `__init__` hands names on: who imports a name from it depends on the module that defines it.
    """
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {_file(alias.name, root) for alias in node.names if alias.name.split(".")[0] == "asymlib"}
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "asymlib":
            continue
        place = root / node.module.replace(".", "/")
        if not place.is_dir():
            found.add(_file(node.module, root))
            continue
        handed_on = _handed_on(place / "__init__.py")
        found |= {_file(handed_on.get(alias.name, f"{node.module}.{alias.name}"), root) for alias in node.names}
    return found


def _handed_on(init: Path) -> dict[str, str]:
    """Name -> module, of what an `__init__` imports for others."""
    nodes = (node for node in ast.walk(ast.parse(init.read_text())) if isinstance(node, ast.ImportFrom))
    return {alias.name: node.module for node in nodes for alias in node.names}


def _file(module: str, root: Path) -> Path:
    path = root / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def write_code(text: str, root: Path) -> str:
    """dvc.yaml with the code of every stage after its MARK, up to the end of its list of dependencies."""
    for name, stage in yaml.safe_load(text)["stages"].items():
        stage = stage.get("do", stage)
        start = re.search(rf"^  {name}:$", text, re.MULTILINE).end()
        mark = text.index(MARK, start) + len(MARK)
        line = text[text.rfind("\n", 0, mark) + 1 : mark]
        indent = line[: len(line) - len(line.lstrip())]
        code = textwrap.fill(
            ", ".join(stage_code(name, stage, root)),
            width=119,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        text = f"{text[:mark]}\n{code}]{text[text.index(']', mark) + 1 :]}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m asymlib.study.stages", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail if `make stages` would")
    arguments = parser.parse_args()
    root = project_root()
    text = (root / "dvc.yaml").read_text()
    right = write_code(text, root)
    if arguments.check:
        sys.exit(0 if right == text else "dvc.yaml: got other code dependencies than the imports, run `make stages`")
    with written(root / "dvc.yaml") as temporary:
        temporary.write_text(right)


if __name__ == "__main__":
    main()

"""Run a notebook of the pipeline: papermill, then what differs from run to run is cleared, so that a repeated run gives
the same file and a second `dvc repro` finds nothing to do.

    python -m asymlib.study.notebooks 05_inpainting -p profile=default
"""

import argparse
import ast
import base64
import io
import os
import sys
from pathlib import Path

import nbformat
import papermill
from PIL import Image

from asymlib.files import written
from asymlib.study.project import project_root

# How often a waiting thread of GNU's OpenMP looks before it sleeps. Measured on two cores, alone and beside one busy
# process: its own 300,000 2.35 and 0.59 steps a second, 10,000 2.25 and 0.73, 2,000 2.29 and 1.08, 1,000 2.12 and 1.38.
SPIN = ("GOMP_SPINCOUNT", "2000")

LARGE = 60_000  # characters of a picture in a notebook; smaller ones stay as they are


def execute(source: Path, target: Path, parameters: dict[str, str]) -> None:
    """Run a notebook from the project's root and keep what does not depend on the run.

    Args:
        source: The notebook, with a cell tagged `parameters`.
        target: Where the executed one goes; its folder is made. On failure it holds what was reached.
        parameters: Values for the tagged cell.

    Raises:
        ValueError: The notebook does not have one of the parameters (papermill alone would ignore it).
        papermill.PapermillExecutionError: A cell failed.
    """
    known = defaults(source)
    for name in parameters:
        if name not in known:
            raise ValueError(f"parameter: got {name!r}, expected one of {source}'s: {', '.join(known)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.partial.ipynb")
    os.environ.setdefault(*SPIN)  # the kernel inherits it
    try:
        papermill.execute_notebook(
            str(source),
            str(temporary),
            parameters,
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--log-level=40"],  # the kernel warns that this machine talks to itself unencrypted
            stderr_file=sys.stderr,  # the cells' own progress bars, live
        )
        write(clean(nbformat.read(temporary, as_version=4)), target)
    except papermill.PapermillExecutionError:
        os.replace(temporary, target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def defaults(source: Path) -> dict[str, str]:
    """The parameters of a notebook's tagged cell, as text."""
    return {
        name: str(ast.literal_eval(value["default"])) for name, value in papermill.inspect_notebook(str(source)).items()
    }


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop timestamps, durations, papermill's metadata and progress bars, in place; number the cells anew."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    count = 0
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i:02d}"
        for key in ("papermill", "execution", "scrolled"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            # a progress bar (and any warning) goes to stderr and differs at every run
            cell.outputs = _joined([o for o in cell.outputs if o.get("name") != "stderr"])
            for output in cell.outputs:
                _shrink_picture(output.get("data", {}))
                output.get("metadata", {}).clear()
                if "execution_count" in output:
                    output["execution_count"] = count
    return notebook


def _shrink_picture(data: dict) -> None:
    """A PNG of photographs as a JPEG, in place, where that is smaller: it is drawn once and lies in git for ever."""
    png = data.get("image/png", "")
    if len(png) < LARGE:
        return
    jpeg = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        picture.convert("RGB").save(jpeg, "JPEG", quality=90, subsampling=0)
    packed = base64.b64encode(jpeg.getvalue()).decode()
    if len(packed) < len(png):
        del data["image/png"]
        data["image/jpeg"] = packed


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Consecutive pieces of what a cell printed as one: where they are cut depends on the moment."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream" and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def copy_outputs(executed: Path, source: Path) -> None:
    """Put an executed notebook's outputs into the source, whose cells (but for the injected one) are the same."""
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    write(clean(notebook), source)


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook."""
    with written(path) as temporary:
        nbformat.write(notebook, temporary)


def run_stage(name: str, parameters: dict[str, str], root: Path) -> None:
    """Execute notebooks/NAME.ipynb for a profile and publish its outputs where they belong.

    The executed one goes to results/PROFILE/notebooks, under its number and the parameter `name` where it has one. If
    the parameters are the notebook's own defaults, its outputs are also written back into it, for students to read;
    not where it was edited meanwhile.

    Args:
        name: Of the notebook.
        parameters: Values for the tagged cell; `profile` among them.
        root: The project.

    Raises:
        FileNotFoundError: No such notebook.
        ValueError: A parameter that the notebook does not have, or no profile.
        papermill.PapermillExecutionError: A cell failed.
    """
    source = root / "notebooks" / f"{name}.ipynb"
    if not source.is_file():
        raise FileNotFoundError(f"notebook: got {name!r}, expected one of notebooks/, without .ipynb")
    if "profile" not in parameters:
        raise ValueError(f"parameter: got {', '.join(parameters) or 'none'}, expected profile=NAME")
    run = f"{name[:2]}_{parameters['name']}" if "name" in parameters else name
    target = root / "results" / parameters["profile"] / "notebooks" / f"{run}.ipynb"
    before = source.read_bytes()
    execute(source, target, parameters)
    if parameters == defaults(source):
        if source.read_bytes() == before:
            copy_outputs(target, source)
        else:
            print(f"{source.relative_to(root)} was edited while it ran; its outputs are in {target.relative_to(root)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m asymlib.study.notebooks", description="Execute a notebook of the pipeline."
    )
    parser.add_argument("notebook", help="its name, such as 05_inpainting")
    parser.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    try:
        run_stage(arguments.notebook, dict(p.split("=", 1) for p in arguments.parameter), project_root())
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    except papermill.PapermillExecutionError as error:
        where = f"notebooks/{arguments.notebook}.ipynb"
        sys.exit(f"error in {where}: {error.ename}: {error.evalue}\nThe traceback is in results/PROFILE/notebooks")


if __name__ == "__main__":
    main()

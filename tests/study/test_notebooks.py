"""The notebooks as files, and the runner that keeps them repeatable."""

import base64
import io

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from asymlib.study.notebooks import clean, copy_outputs, defaults, execute, run_stage
from asymlib.study.project import project_root

NOTEBOOKS = sorted((project_root() / "notebooks").glob("[01]*.ipynb"))


def code(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_a_question_with_an_answer_and_exercises(path):
    notebook = nbformat.read(path, as_version=4)
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    title = notebook.cells[0].source.splitlines()[0]
    assert title.startswith("# ") and title.endswith("?")
    for part in ("What you will learn", "## What we found", "## Exercises"):
        assert part in prose
    assert len(code(notebook)) <= len(notebook.cells) * 0.7
    assert max(len(c.source.splitlines()) for c in code(notebook)) <= 24


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_committed_with_outputs_and_nothing_of_its_author(path):
    """Breaks when a notebook is committed without a run, with an error, a machine's path or another kernel."""
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3" and "papermill" not in notebook.metadata
    assert all(c.execution_count for c in code(notebook))
    outputs = [o for c in code(notebook) for o in c.outputs]
    assert outputs and not any(o.output_type == "error" or o.get("name") == "stderr" for o in outputs)
    assert "/site-packages" not in path.read_text() and "/home/" not in path.read_text()
    assert defaults(path)["profile"] == "default"
    assert nbformat.from_dict(clean(nbformat.from_dict(notebook))) == notebook


def notebook_of(*cells):
    tagged = new_code_cell('profile = "default"')
    tagged.metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return new_notebook(cells=[new_markdown_cell("# Test?"), tagged, *cells], metadata={"kernelspec": kernel})


def test_a_repeated_run_gives_the_same_file(tmp_path):
    """Breaks when timestamps, durations, cell ids or progress bars stay in an executed notebook."""
    source = tmp_path / "source.ipynb"
    bar = "from tqdm import tqdm\nfor i in tqdm(range(3)): pass\nprint(profile)\nprofile"
    nbformat.write(notebook_of(new_code_cell(bar)), source)
    for name in ("one", "two"):
        execute(source, tmp_path / "new" / f"{name}.ipynb", {"profile": "smoke"})
    one = (tmp_path / "new" / "one.ipynb").read_bytes()
    assert one == (tmp_path / "new" / "two.ipynb").read_bytes() and b"smoke" in one and b"it/s" not in one

    copy_outputs(tmp_path / "new" / "one.ipynb", source)
    published = nbformat.read(source, as_version=4)
    assert [c.source for c in published.cells] == ["# Test?", 'profile = "default"', bar]
    assert published.cells[-1].outputs[0].text == "smoke\n"


def test_a_parameter_that_the_notebook_does_not_have_is_refused(tmp_path):
    nbformat.write(notebook_of(), tmp_path / "source.ipynb")
    with pytest.raises(ValueError, match="parameter: got 'profil', expected one of .*profile"):
        execute(tmp_path / "source.ipynb", tmp_path / "out.ipynb", {"profil": "smoke"})
    assert not (tmp_path / "out.ipynb").exists()


def test_what_a_cell_prints_is_one_output_however_it_arrived():
    """Breaks when two runs of the same cell differ in where the kernel happened to cut the text."""
    pieces = [new_output("stream", name="stdout", text=text) for text in ("one\n", "two\n")]
    cleaned = clean(new_notebook(cells=[new_code_cell("...", outputs=pieces)]))
    assert [output.text for output in cleaned.cells[0].outputs] == ["one\ntwo\n"]


def test_outputs_lose_what_differs_from_run_to_run():
    cell = new_code_cell("1", execution_count=17, metadata={"execution": {"iopub.status.busy": "2020"}})
    cell.outputs = [
        new_output("stream", name="stderr", text="50%"),
        new_output("execute_result", {"text/plain": "1"}, execution_count=17),
    ]
    cleaned = clean(new_notebook(cells=[cell], metadata={"papermill": {"start_time": "2020"}}))
    assert "2020" not in nbformat.writes(cleaned) and "50%" not in nbformat.writes(cleaned)
    assert cleaned.cells[0].execution_count == cleaned.cells[0].outputs[0].execution_count == 1


def test_a_picture_of_a_photograph_is_stored_as_jpeg_and_a_plot_as_it_is():
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    cells = [new_code_cell(outputs=[display_data_of(picture)]) for picture in (noise, np.zeros_like(noise))]
    large, small = (cell.outputs[0].data for cell in clean(new_notebook(cells=cells)).cells)
    assert list(large) == ["text/plain", "image/jpeg"] and list(small) == ["text/plain", "image/png"]
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(large["image/jpeg"])))).astype(int)
    assert back.shape == noise.shape and np.abs(back - noise).mean() < 12


def display_data_of(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return new_output("display_data", {"text/plain": "", "image/png": base64.b64encode(file.getvalue()).decode()})


def test_outputs_are_published_unless_the_notebook_was_edited_meanwhile(tmp_path, capsys):
    """Breaks when a run writes its outputs over what somebody typed while it ran, or does not publish at all."""
    source = tmp_path / "notebooks" / "01_test.ipynb"
    source.parent.mkdir()
    nbformat.write(notebook_of(new_code_cell("print(profile)")), source)
    run_stage("01_test", {"profile": "default"}, tmp_path)
    assert nbformat.read(source, as_version=4).cells[-1].outputs[0].text == "default\n"

    edit = f"from pathlib import Path\np = Path({str(source)!r})\np.write_text(p.read_text().replace('Test?', 'Mine?'))"
    nbformat.write(notebook_of(new_code_cell(edit)), source)
    run_stage("01_test", {"profile": "default"}, tmp_path)
    kept = nbformat.read(source, as_version=4)
    assert kept.cells[0].source == "# Mine?" and not kept.cells[-1].outputs
    assert (
        "was edited while it ran; its outputs are in results/default/notebooks/01_test.ipynb" in capsys.readouterr().out
    )

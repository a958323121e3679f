"""What a record says of the state of the code: the commit, whether anything differs from it, and the code's hash."""

import json
import shutil
import subprocess

import pytest

from asymlib.study import profiles
from asymlib.study.profiles import commit, run_profile
from asymlib.study.project import project_root
from asymlib.study.provenance import code_of, provenance

FILES = [
    "README.md",
    "asymlib/metrics.py",
    "asymlib/pretrained/first_stage/config.json",
    "asymlib/study/params.py",
    "dvc.yaml",
    "params.yaml",
    "requirements.lock",
    "tests/test_metrics.py",
]


def git(folder, *arguments):
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def write_notebook(path, source="train(steps=2)", outputs=(), tags=()):
    cell = {"cell_type": "code", "source": [source], "outputs": list(outputs), "execution_count": len(outputs) or None}
    path.write_text(json.dumps({"cells": [cell | {"metadata": {"tags": list(tags)}}], "nbformat": 4}))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project in a git repository, all committed, and the current folder."""
    monkeypatch.delenv("ASYMLIB_COMMIT", raising=False)
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("1\n")
    (tmp_path / "notebooks").mkdir()
    write_notebook(tmp_path / "notebooks" / "01 images.ipynb")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "all")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def last(project, *files) -> str:
    return git(project, "log", "-1", "--format=%h", "--", *files).strip()


def test_a_clean_tree_gives_the_commit_alone(project):
    """Breaks when a file that is as committed counts as a difference."""
    assert commit(project) == last(project)


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("file", FILES)
def test_what_decides_the_results_marks_the_commit_and_nothing_else_does(project, file, staged):
    """Breaks when weights, stages or pinned versions can be changed without a trace, or a README taints a run."""
    (project / file).write_text("2\n")
    if staged:
        git(project, "add", ".")
    assert commit(project) == last(project) + "+" * (file not in ("README.md", "tests/test_metrics.py"))


@pytest.mark.parametrize("change", ["untracked", "deleted", "renamed"])
@pytest.mark.parametrize("file", ["asymlib/metrics.py", "notebooks/01 images.ipynb"])
def test_a_file_that_came_or_went_marks_the_commit(project, file, change):
    """Breaks when only edits of tracked files are looked at, or a notebook that has gone cannot be read."""
    path = project / file
    if change != "deleted":
        shutil.copy(path, path.with_stem("other"))
    if change != "untracked":
        path.unlink()
    if change == "renamed":
        git(project, "add", ".")
    assert commit(project) == last(project) + "+"


@pytest.mark.parametrize(
    "changed, dirty",
    [
        ({"outputs": [{"output_type": "stream", "name": "stdout", "text": "loss 0.1"}]}, False),
        ({"source": "train(steps=3)"}, True),
        ({"tags": ["parameters"]}, True),
    ],
)
def test_of_a_notebook_the_cells_count_and_not_what_they_gave(project, changed, dirty):
    """Breaks when a stage that publishes its outputs makes the next one look dirty, or a changed cell does not."""
    write_notebook(project / "notebooks" / "01 images.ipynb", **changed)
    assert commit(project) == last(project) + "+" * dirty


def test_a_project_below_the_top_of_its_repository_is_looked_at_alike(project, tmp_path_factory, monkeypatch):
    """Breaks when git's paths, which start at the top, are taken for the project's."""
    top = tmp_path_factory.mktemp("top")
    shutil.copytree(project, top / "below", ignore=shutil.ignore_patterns(".git"))
    git(top, "init", "-q")
    git(top, "add", ".")
    git(top, "commit", "-q", "-m", "all")
    notebook = top / "below" / "notebooks" / "01 images.ipynb"
    write_notebook(notebook, outputs=[{"output_type": "stream", "text": "1"}])
    assert commit(top / "below") == last(top)
    write_notebook(notebook, source="train(steps=3)")
    assert commit(top / "below") == last(top) + "+"


def test_the_commit_is_the_last_one_that_decides_results(project):
    """Breaks when a commit of the README alone changes what records say."""
    before = last(project)
    (project / "README.md").write_text("2\n")
    git(project, "commit", "-q", "-a", "-m", "README")
    assert commit(project) == before != last(project)
    (project / "dvc.yaml").write_text("2\n")
    git(project, "commit", "-q", "-a", "-m", "stages")
    assert commit(project) == last(project) != before


def test_without_a_commit_of_these_files_it_is_unknown(project):
    """Breaks when a copy under .profiles, which git ignores, gets an empty commit, or no git is an error."""
    place = project / ".profiles" / "smoke"
    shutil.copytree(project, place, ignore=shutil.ignore_patterns(".git", ".profiles"))
    (project / ".gitignore").write_text(".profiles/\n")
    assert commit(place) == "unknown"
    shutil.rmtree(project / ".git")
    assert commit(project) == "unknown"


def test_a_run_finds_its_commit_once_and_hands_it_on(monkeypatch):
    """Breaks when the stages of one run look for themselves, while it changes what lies in notebooks/."""
    handed_on, asked = [], []
    monkeypatch.setattr(profiles, "commit", lambda root: asked.append(root) or "abc1234")

    def run(command, env, **_):
        handed_on.append(env["ASYMLIB_COMMIT"])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(profiles.subprocess, "run", run)
    assert run_profile("default", project_root()) == 0
    assert handed_on == ["abc1234"] and asked == [project_root()]


def test_a_stage_says_the_commit_that_it_was_handed(project, monkeypatch):
    """Breaks when a record says what the tree has become since its run began."""
    monkeypatch.setenv("ASYMLIB_COMMIT", "abc1234")
    (project / "params.yaml").write_text("2\n")
    assert provenance(seed=0)["commit"] == "abc1234"


@pytest.mark.parametrize(
    "file, counts",
    [
        ("asymlib/metrics.py", True),
        ("asymlib/study/params.py", True),
        ("asymlib/new.py", True),
        ("asymlib/pretrained/first_stage/config.json", False),
        ("asymlib/__pycache__/metrics.cpython-311.pyc", False),
        ("asymlib/.ipynb_checkpoints/metrics-checkpoint.py", False),
        ("params.yaml", False),
    ],
)
def test_the_code_is_all_of_asymlibs_modules_and_nothing_else(project, file, counts):
    """Breaks when what an editor or Python leaves behind changes a record, or a module is left out."""
    before = provenance()["code"]
    (project / file).parent.mkdir(parents=True, exist_ok=True)
    (project / file).write_text("2\n")
    assert (provenance()["code"] != before) == counts and provenance()["code"] == code_of(project)


def test_a_record_has_versions_and_the_runs_own_facts(project):
    """Breaks when a record cannot be traced to the libraries that made it."""
    record = provenance(seed=3)
    assert list(record) == ["commit", "code", "versions", "seed"] and record["seed"] == 3
    assert list(record["versions"]) == ["torch", "diffusers", "numpy"]

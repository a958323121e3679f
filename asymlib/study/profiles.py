"""Run the pipeline under a profile: `python -m asymlib.study.profiles NAME`, which `make repro PROFILE=NAME` calls.

`default` is `dvc repro` in place. Any other profile runs in a copy of the working tree under .profiles/NAME, because
DVC keeps one lock file, which belongs to `default`; its results/NAME is copied back. The copy stays, so that a second
run finds nothing to do.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from asymlib.study.params import load_params
from asymlib.study.project import project_root

COMMITTED = "default"
PROFILE_LINE = re.compile(r"^profile: *(\S+).*$", re.MULTILINE)  # of params.yaml, which says what `dvc repro` runs
RUNS = ("results/ablations/", "results/long_runs/", "results/bench")
COMMIT_VARIABLE = "ASYMLIB_COMMIT"  # tells a copy, which has no git, which commit it was made of


def run_profile(name: str, root: Path, targets: Sequence[str] = ()) -> int:
    """Run `dvc repro` for a profile.

    Args:
        name: A profile of params.yaml.
        root: The project.
        targets: Stages to run with all that they need, such as `decoder@base`; every stage if none is named.

    Returns:
        DVC's exit status.

    Raises:
        ValueError: No such profile, or a mistake in params.yaml.
    """
    params = load_params(name, root / "params.yaml")
    named = PROFILE_LINE.search((root / "params.yaml").read_text())
    if name == COMMITTED and (named is None or named[1] != COMMITTED):
        came = named[1] if named else "none"
        raise ValueError(f"profile: got {came} at the top of params.yaml, expected {COMMITTED}; name others as PROFILE")
    place = root if name == COMMITTED else copy_tree(root, name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the stages' `python` is this one
    environment = os.environ | {COMMIT_VARIABLE: commit(root), "PATH": path}
    if params.first_stage.source != "hub" and params.stream is None:
        environment["HF_HUB_OFFLINE"] = "1"  # nothing is needed from there, so nothing shall be asked
    status = subprocess.run([sys.executable, "-m", "dvc", "repro", *targets], cwd=place, env=environment).returncode
    made = place / "results" / name
    if place != root and made.is_dir():
        shutil.copytree(made, root / "results" / name, dirs_exist_ok=True)
        if (place / "dvc.lock").is_file():
            shutil.copy(place / "dvc.lock", root / "results" / name / "dvc.lock")
        print(f"tables in results/{name}, models in .profiles/{name}/checkpoints/{name}")
    return status


def folder_of(name: str, root: Path) -> Path:
    """Where a profile runs: the project, or its copy under .profiles."""
    return root if name == COMMITTED else root / ".profiles" / name


def source_files(root: Path) -> list[str]:
    """The working tree's files but for what git ignores and the results of profiles, to none of which `RUNS` belong."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode().strip("\0").split("\0")
    made = {f for f in listed if f.startswith("results/") and not f.startswith(RUNS)} | {"dvc.lock"}
    return [f for f in listed if f not in made and (root / f).is_file()]


def copy_tree(root: Path, name: str) -> Path:
    """Bring .profiles/NAME up to date with the working tree and set its profile; what a run made there stays."""
    place, files = folder_of(name, root), source_files(root)
    for file in files:
        source, target = root / file, place / file
        if not target.is_file() or source.read_bytes() != target.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for folder in ("asymlib", "notebooks"):  # what was deleted or renamed must not live on in the copy
        for target in (place / folder).rglob("*"):
            if (
                target.is_file()
                and target.relative_to(place).as_posix() not in files
                and "__pycache__" not in target.parts
            ):
                target.unlink()
    params = place / "params.yaml"
    params.write_text(PROFILE_LINE.sub(f"profile: {name}", params.read_text(), count=1))
    (place / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return place


def commit(root: Path) -> str:
    """The last commit that touched what decides the results; with `+` where the working tree differs from it.

    A run publishes outputs into notebooks/, so that of a notebook the cells count, not what they gave.

    Args:
        root: The project.

    Returns:
        Its short hash; what ASYMLIB_COMMIT says, where a run has handed it on; or `unknown` without git.
    """
    if handed_on := os.environ.get(COMMIT_VARIABLE):
        return handed_on
    decides = ["asymlib", "notebooks", "dvc.yaml", "params.yaml", "requirements.lock"]
    try:
        found = _git(root, "log", "-1", "--format=%h", "--", *decides).strip()
        status = _git(root, "status", "--porcelain", "--no-renames", "-z", "--", *decides).strip("\0")
        top = Path(_git(root, "rev-parse", "--show-toplevel").strip())
        dirty = any(_is_changed(top, entry[:2], entry[3:]) for entry in status.split("\0") if entry)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found + "+" * dirty if found else "unknown"  # a copy lies in a repository that does not know its files


def _is_changed(top: Path, state: str, file: str) -> bool:
    """Whether a file that git lists differs from the last commit in more than a notebook's outputs."""
    only_edited = set(state) <= {" ", "M"}
    if not (only_edited and file.endswith(".ipynb")):
        return True
    return _cells(_git(top, "show", f"HEAD:{file}")) != _cells((top / file).read_text(encoding="utf-8"))


def _cells(notebook: str) -> list[tuple] | str:
    """Kind, text and tags of a notebook's cells; the file's own text where it is no notebook."""
    try:
        cells = json.loads(notebook)["cells"]
        return [(c["cell_type"], "".join(c["source"]), c.get("metadata", {}).get("tags") or []) for c in cells]
    except (ValueError, LookupError, TypeError):
        return notebook


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]  # stages that run side by side must not wait for one another
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m asymlib.study.profiles", description="Run the pipeline under a profile."
    )
    parser.add_argument("profile")
    parser.add_argument("targets", nargs="*", help="stages to run, such as decoder@base; all of them if none is named")
    arguments = parser.parse_args()
    try:
        sys.exit(run_profile(arguments.profile, project_root(), arguments.targets))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

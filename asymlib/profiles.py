"""Run the pipeline under a profile: `python -m asymlib.profiles NAME`, which is what `make repro PROFILE=NAME` calls.

`default` is `dvc repro` in place. Any other profile runs in a copy of the working tree under .profiles/NAME, because
DVC keeps one lock file, which belongs to `default`; its results/NAME is copied back. The copy stays, so that a second
run finds nothing to do.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from asymlib.params import load_params
from asymlib.project import project_root

COMMITTED = "default"
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
    return status


def source_files(root: Path) -> list[str]:
    """The working tree's files but for what git ignores and the results of profiles; the ablations' belong to none."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode().strip("\0").split("\0")
    made = {f for f in listed if f.startswith("results/") and not f.startswith("results/ablations/")} | {"dvc.lock"}
    return [f for f in listed if f not in made and (root / f).is_file()]


def copy_tree(root: Path, name: str) -> Path:
    """Bring .profiles/NAME up to date with the working tree and set its profile; what a run made there stays."""
    place, files = root / ".profiles" / name, source_files(root)
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
    params.write_text(params.read_text().replace(f"\nprofile: {COMMITTED}\n", f"\nprofile: {name}\n", 1))
    (place / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return place


def commit(root: Path) -> str:
    """The last commit that touched what decides the results; with `+` where the working tree differs from it."""
    if COMMIT_VARIABLE in os.environ:
        return os.environ[COMMIT_VARIABLE]
    what = ["asymlib", "params.yaml", "requirements.lock"]
    try:
        found = subprocess.run(
            ["git", "log", "-1", "--format=%h", "--", *what], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--", *what], cwd=root, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found + "+" * bool(dirty)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m asymlib.profiles", description="Run the pipeline under a profile.")
    parser.add_argument("profile")
    parser.add_argument("targets", nargs="*", help="stages to run, such as decoder@base; all of them if none is named")
    arguments = parser.parse_args()
    try:
        sys.exit(run_profile(arguments.profile, project_root(), arguments.targets))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

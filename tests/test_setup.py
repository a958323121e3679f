"""One list of dependencies, pinned and repeated where others look for it."""

import re
import subprocess

import tomllib
import yaml

from asymlib.project import project_root

ROOT = project_root()
DEPENDENCIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def test_environment_yml_repeats_pyproject():
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert packages == [*DEPENDENCIES, "-e ."]


def test_the_lock_pins_every_dependency():
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    names = {re.split(r"[><=]", d)[0] for d in DEPENDENCIES}
    assert names <= {name.lower() for name in pinned}


def test_git_does_not_ignore_a_module_of_the_library():
    """Breaks when `data/` in .gitignore also hides asymlib/data."""
    files = [p.relative_to(ROOT).as_posix() for p in (ROOT / "asymlib").rglob("*.py")]
    ignored = subprocess.run(["git", "check-ignore", *files], cwd=ROOT, capture_output=True, text=True).stdout
    assert not ignored


def test_ci_runs_the_readme_s_own_test_command():
    assert "make test" in (ROOT / ".ci" / "run").read_text() and "make test" in (ROOT / "README.md").read_text()

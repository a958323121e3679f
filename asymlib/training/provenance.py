"""Where a trained decoder comes from: what a table's row can be traced to."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from asymlib.profiles import commit
from asymlib.project import project_root, written

LIBRARIES = ("torch", "diffusers", "numpy")


def content_hash(*paths: Path) -> str:
    """First 12 digits of the sha256 over the files' names and bytes; a folder counts with all files below it."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            if "__pycache__" not in file.parts:
                digest.update(file.relative_to(path.parent).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def provenance(**facts) -> dict:
    """What every record has, taken when a run *starts*, and the run's own facts.

    Returns:
        commit (`+`: the working tree differed from it), code (hash of asymlib/), versions, and `facts`.
    """
    versions = {name: version(name) for name in LIBRARIES}
    return {
        "commit": commit(project_root()),
        "code": content_hash(project_root() / "asymlib"),
        "versions": versions,
    } | facts


def write_json(record: dict, path: Path) -> None:
    """Write JSON."""
    with written(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, default=str) + "\n")

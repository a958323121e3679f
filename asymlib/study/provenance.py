"""Where a trained decoder comes from: what a table's row can be traced to."""

import json
from importlib.metadata import version
from pathlib import Path

from asymlib.files import content_hash, written
from asymlib.study.profiles import commit
from asymlib.study.project import project_root

LIBRARIES = ("torch", "diffusers", "numpy")


def provenance(**facts) -> dict:
    """What every record has, taken when a run *starts*, and the run's own facts.

    Args:
        facts: Key -> anything that JSON can hold.

    Returns:
        commit (`+`: the working tree differed from it), code (see `code_of`), versions, and `facts`.
    """
    root = project_root()
    return {"commit": commit(root), "code": code_of(root), "versions": versions()} | facts


def code_of(root: Path) -> str:
    """The content hash of all of asymlib's code; weights have their own, and editors' hidden copies do not count.

    Args:
        root: The project.
    """
    package = root / "asymlib"
    hidden = {path for path in package.rglob("*.py") if any(p.startswith(".") for p in path.relative_to(root).parts)}
    return content_hash(*sorted({*package.rglob("*.py")} - hidden))


def versions() -> dict[str, str]:
    """The installed versions of the libraries that compute the results."""
    return {name: version(name) for name in LIBRARIES}


def write_json(record: dict, path: Path) -> None:
    """Write JSON.

    Args:
        record: What is written; what JSON does not know, as text.
        path: Where to; whole or not at all.
    """
    with written(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, default=str) + "\n")

"""Where the project lies, and how a file of it is written: whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def project_root(start: Path | None = None) -> Path:
    """Find the project's root: the nearest folder, from `start` upwards, that holds params.yaml and asymlib/.

    Args:
        start: Folder to start from; the current one by default. papermill runs a notebook in the root, JupyterLab and
            nbval run it in notebooks/.

    Returns:
        The root, absolute.

    Raises:
        FileNotFoundError: No such folder at `start` or above it.
    """
    start = Path(start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "params.yaml").is_file() and (folder / "asymlib").is_dir():
            return folder
    raise FileNotFoundError(
        f"start: got {start}, expected a folder inside the project, at or below the one with params.yaml and asymlib/"
    )


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to it at the end, so that a killed run leaves the file whole or absent.

    Args:
        path: The file; its folder is made.

    Raises:
        OSError: The disk is full; nothing of the file is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(f"{path}: got a full disk, expected room for it; what was there before is still there") from error
    finally:
        temporary.unlink(missing_ok=True)


def user_path(path: str | Path) -> Path:
    """A path of params.yaml: a relative one starts at the project's root, also in a profile's copy (.profiles/NAME)."""
    root = project_root()
    return (root.parents[1] if root.parent.name == ".profiles" else root) / path

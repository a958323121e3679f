"""Where the project lies."""

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


def user_path(path: str | Path) -> Path:
    """A path of params.yaml: a relative one starts at the project's root, also in a profile's copy (.profiles/NAME)."""
    root = project_root()
    return (root.parents[1] if root.parent.name == ".profiles" else root) / path

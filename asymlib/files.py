"""Files that are written whole or not at all, and the hash of what is in them."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to it at the end, so that a killed run leaves the file whole or absent.

    Args:
        path: The file; its folder is made.

    Raises:
        OSError: The disk is full; nothing of the file is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with _a_full_disk_in_words(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to write files to; at the end they are renamed into it, configs (.json) last.

    A killed run leaves the files that were there, or the new ones. What else lies in `folder` stays.

    Args:
        folder: Is made where it is missing.

    Raises:
        OSError: The disk is full; `folder` is as it was.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.partial", dir=folder.parent) as temporary:
        with _a_full_disk_in_words(folder):
            yield Path(temporary)
            made = [path for path in Path(temporary).rglob("*") if path.is_file()]
            for path in sorted(made, key=lambda path: (path.suffix == ".json", path)):
                target = folder / path.relative_to(temporary)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)


def save_pretrained(model, folder: str | Path, **options) -> None:
    """diffusers' `model.save_pretrained(folder)`, whole or not at all: see `written_folder`.

    Args:
        model: Anything with diffusers' `save_pretrained`.
        folder: Its files are replaced; what else lies there stays.
        options: Of diffusers' `save_pretrained`.
    """
    if options.get("push_to_hub"):
        options.setdefault("repo_id", Path(folder).name)  # which diffusers takes from the folder's name
    with written_folder(Path(folder)) as temporary:
        model.save_pretrained(temporary, **options)


def content_hash(*paths: Path) -> str:
    """First 12 digits of the sha256 over the files' names and bytes; a folder counts with all files below it."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            if "__pycache__" not in file.parts:
                digest.update(file.relative_to(path.parent).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def _a_full_disk_in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(f"{path}: got a full disk, expected room for it; what was there before is still there") from error

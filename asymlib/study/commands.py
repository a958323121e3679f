"""The experiment's commands: `evaluate` and `repro`; what they need, `pip install 'asymlib[study]'` brings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer


@contextmanager
def _installed(command: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"{command} needs {error.name}: pip install 'asymlib[study]'") from error


def evaluate(
    autoencoder: Annotated[
        str, typer.Argument(help="An autoencoder of diffusers: a folder, a name that ships or one on the hub.")
    ],
    photos: Annotated[Path, typer.Argument(help="A folder of photos.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the tables.")],
    scenes: Annotated[
        int, typer.Option(min=2, help="How many photos; of fewer than ten the intervals say little.")
    ] = 24,
    size: Annotated[int, typer.Option(min=64, help="Side in pixels, a multiple of 8.")] = 256,
    seed: Annotated[int, typer.Option()] = 0,
    revision: Annotated[str, typer.Option(help="Its commit, on the hub.")] = "main",
    subfolder: Annotated[str, typer.Option(help="Where it lies on the hub, such as vae.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make tables again that are there.")] = False,
) -> int:
    """Compare everything that can come after a decoder, on your autoencoder and your photos.

    asymlib evaluate my_vae photos/ --out tables/

    asymlib evaluate stable-diffusion-v1-5/stable-diffusion-v1-5 photos/ --subfolder vae --size 512 --out tables/
    """
    with _installed("evaluate"):
        from asymlib.study.evaluation.finishers import TABLES, compare_finishers
    there = [out / name for name in TABLES if (out / name).exists()]
    if there and not overwrite:
        raise ValueError(f"out: got {out}, where {there[0].name} is; expected another folder, or --overwrite")
    behind = compare_finishers(autoencoder, photos, out, scenes, size, seed, None, revision, subfolder)
    print(behind.to_string(index=False))
    return 0


def repro(
    profile: Annotated[str, typer.Argument(help="A profile of params.yaml.")] = "default",
    stage: Annotated[list[str] | None, typer.Argument(help="Stages, with all that they need; all by default.")] = None,
) -> int:
    """Run the pipeline of the repository around the current folder; what has not changed is not run again.

    asymlib repro smoke
    """
    with _installed("repro"):
        from asymlib.study.profiles import run_profile
        from asymlib.study.project import project_root
    return run_profile(profile, project_root(), stage or ())


COMMANDS = (evaluate, repro)

"""Commands that make pictures: `finish`, `inpaint` and `paint`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from asymlib.cli.jobs import Job, carry_out, plan

Photo = Annotated[Path, typer.Argument(help="A photo, or a folder of photos.")]
Mask = Annotated[Path, typer.Argument(help="White (or painted) where the edit is; one for each photo, or one for all.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="File or folder to write; by default beside the photo.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make results again that are there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be written, from the names alone.")]
Json = Annotated[bool, typer.Option("--json", help="Say what was done as one line of JSON.")]
Seed = Annotated[int, typer.Option(help="Seed of the noise.")]


WORDS = ("red", "green", "blue", "bright", "dark", "grey")  # those of models.words, which takes torch to import


class Method(StrEnum):
    """What decodes the edit: the paper's base, or the plain decoder, as it comes, pasted back or finished."""

    vanilla = "vanilla"
    base = "base"
    pasted = "pasted"
    last_word = "last-word"


def _known_words(words: str | None) -> str | None:
    if unknown := [word for word in (words or "").split() if word not in WORDS]:
        raise typer.BadParameter(f"got {unknown[0]!r}, expected some of {', '.join(WORDS)}")
    return words


def finish(
    photo: Photo,
    edited: Annotated[
        Path, typer.Argument(help="The edited photo, of its shape at any size, by any model; or a folder.")
    ],
    mask: Mask,
    out: Out = None,
    strength: Annotated[float, typer.Option(min=0, max=1, help="Less than 1 corrects less; 0 pastes back.")] = 1.0,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Put an edit into its photo: every known pixel kept, a shift of all colours undone, the edit not.

    asymlib finish photo.jpg edited.png mask.png

    Of folders, pictures of one name belong together, whatever their suffixes:

    asymlib finish photos/ edits/ masks/ --out finished/
    """
    planned = plan({"photo": photo, "edited": edited, "mask": mask}, out, "_finished", overwrite)

    def work(job: Job) -> None:
        from asymlib.editing.finishing import finish
        from asymlib.pictures import save_picture

        hole = _noted(job)
        save_picture(finish(job.inputs["photo"], job.inputs["edited"], hole, strength), job.out)

    return carry_out(planned, work, dry_run, as_json)


def inpaint(
    photo: Photo,
    mask: Mask,
    out: Out = None,
    word: Annotated[
        str | None, typer.Option(callback=_known_words, help=f"What to fill in: one or some of {', '.join(WORDS)}.")
    ] = None,
    example: Annotated[Path | None, typer.Option(help="A picture whose colours to fill in, or a folder.")] = None,
    method: Annotated[Method, typer.Option(help="What decodes the result.")] = Method.last_word,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the diffusion model.")] = 20,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Fill a hole with the small models that ship: colours and simple texture, no objects.

    asymlib inpaint photo.jpg mask.png --word blue --seed 3
    """
    inputs = {"photo": photo, "mask": mask} | ({"example": example} if example else {})
    planned = plan(inputs, out, "_inpainted", overwrite)

    def work(job: Job) -> None:
        from asymlib.editing.inpainting import inpaint
        from asymlib.models.shipped import shipped_models
        from asymlib.pictures import save_picture

        asked = {"word": word, "example": job.inputs.get("example"), "steps": steps, "seed": seed}
        hole = _noted(job)
        save_picture(inpaint(job.inputs["photo"], hole, **shipped_models(method.name), **asked), job.out)

    return carry_out(planned, work, dry_run, as_json)


def _noted(job: Job) -> Image.Image:
    """The job's mask; what is no mistake and yet seldom meant is said beside the results."""
    from asymlib.pictures import LOSSY, open_picture, read_mask, written_format

    def note(what: str) -> None:
        print(f"note: {job.name}: {what}", file=sys.stderr)

    if (kind := written_format(job.out)) in LOSSY:
        note(f"{job.out.name}: {kind} changes the known pixels, a .png keeps them")
    picture = open_picture(job.inputs["mask"], "mask")
    mask = read_mask(picture)
    if not mask.any():
        note("the mask has no white, so nothing is edited")
    elif mask.min() == 1:
        note("the mask is all white, so nothing of the photo is kept")
    elif "edited" in job.inputs:
        inside, outside = _changed(job, mask)
        if outside > 4 * inside:
            note("the edit differs more outside the mask than in it; white is where the edit is")
    return picture


def _changed(job: Job, mask: np.ndarray) -> tuple[float, float]:
    """By how many levels small copies of edit and photo differ on the mean, in the hole and outside it."""
    from asymlib.pictures import read_photo

    small = [Image.fromarray(read_photo(job.inputs[name], name).on_white) for name in ("photo", "edited")]
    photo, edited = (np.asarray(picture.resize((128, 128))).astype(float) for picture in small)
    hole = np.asarray(Image.fromarray(mask).resize((128, 128)))
    difference = np.abs(photo - edited).mean(-1)
    return tuple(float((difference * weight).sum() / max(1e-6, weight.sum())) for weight in (hole, 1 - hole))


def paint(
    photo: Annotated[Path | None, typer.Argument(help="A photo to begin with.")] = None,
    port: Annotated[int, typer.Option(help="On 127.0.0.1; 0 takes a free one.")] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
) -> int:
    """Paint a mask in the browser and try every method, before and after; needs `pip install 'asymlib[app]'`.

    asymlib paint photo.jpg
    """
    try:
        from asymlib.app import serve
    except ModuleNotFoundError as error:
        raise ImportError(f"paint needs {error.name}: pip install 'asymlib[app]'") from error
    serve(photo, port, browser)
    return 0

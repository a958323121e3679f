"""A first picture from shipped weights alone: `python -m asymlib.study.tour [PHOTO MASK]`, which `make tour` calls.

An edit of a packaged photograph, or of your own with the region that gets another colour painted as a mask, decoded by
the vanilla decoder, the same pasted back and with the last word on it, and the paper's base; the rim magnified, and
what changed outside ten times.
"""

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image

from asymlib import metrics
from asymlib.editing.compositing import paste_hard
from asymlib.files import written
from asymlib.masks import normalise_mask
from asymlib.models.shipped import load
from asymlib.pictures import UNREADABLE, read_photo
from asymlib.pixels import centre_square, shrink, to_tensor
from asymlib.study.edits import recoloured_by
from asymlib.study.examples import EXAMPLES, SIZE, example_edit
from asymlib.study.reporting.plots import rim_rows, show_pictures

HUE = 0.5  # of the circle, for one's own photo


def own_edit(photo: Path, mask: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The middle square of a photo, its hole, and the photo with another colour there, as `example_edit` has them.

    Raises:
        ValueError: Either is no picture, or the mask of another size, or nothing of it lies in the square.
    """
    read = read_photo(photo, "photo")
    with Image.open(mask) as opened:
        hole = normalise_mask(opened, *read.size)
    square = centre_square(hole[0, 0].numpy()[..., None].repeat(3, -1))
    image = to_tensor(shrink(centre_square(read.on_white), SIZE, SIZE)[None])
    small = torch.from_numpy(shrink((square * 255).astype("uint8"), SIZE, SIZE)[..., :1] > 127)
    small = small.permute(2, 0, 1)[None].float()
    if not small.any():
        raise ValueError(f"mask: got {mask} without a hole in the photo's middle square, expected one there")
    return image, small, recoloured_by(image, small, HUE)


def first_picture(
    image: torch.Tensor, mask: torch.Tensor, wish: torch.Tensor, name: str, out: Path
) -> dict[str, float]:
    """Write the picture; returns pre_error of the known pixels for `vanilla` and `base`."""
    first_stage, base, last_word = (load(part) for part in ("first_stage", "base", "last_word"))
    with torch.no_grad():
        latent = base.encode(wish)
        vanilla = first_stage.decode(latent).sample.clamp(-1, 1)
        decoded = base.decode(latent, image=image, mask=mask).clamp(-1, 1)
        finished = last_word(image, vanilla, mask)
    results = {name: wish, "vanilla": vanilla, "vanilla, pasted": paste_hard(image, vanilla, mask), "base": decoded}
    results["vanilla, last word"] = finished
    rows = rim_rows(image[0], mask[0], [result[0] for result in results.values()])
    figure = show_pictures(rows, ["photograph, hole", *results], outline=[mask[0], None, None])
    with written(out) as temporary:
        figure.savefig(temporary, format="png")
    errors = {"vanilla": vanilla, "base": decoded}
    return {key: metrics.pre_error((image + 1) / 2, (y + 1) / 2, mask).item() for key, y in errors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m asymlib.study.tour", description="A first picture.")
    parser.add_argument("photo", nargs="?", type=Path, help="your own photograph (default: a packaged one)")
    parser.add_argument("mask", nargs="?", type=Path, help="what of it gets another colour, white")
    parser.add_argument("--out", type=Path, default=Path("first_picture.png"))
    arguments = parser.parse_args()
    if (arguments.photo is None) != (arguments.mask is None):
        parser.error("mask: got nothing, expected one for the photo")
    try:
        edit = own_edit(arguments.photo, arguments.mask) if arguments.photo else example_edit(EXAMPLES[0])
        errors = first_picture(*edit, "recoloured" if arguments.photo else EXAMPLES[0].wish, arguments.out)
    except (*UNREADABLE, FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    times = errors["vanilla"] / errors["base"]
    print(f"{arguments.out}: the middle square at {SIZE} px, at the rim magnified, and what changed outside ten times")
    print(f"Outside the hole vanilla is off by {times:.1f} times as much as base in this picture (mean square error)")


if __name__ == "__main__":
    main()

"""What a student touches in notebook 00: a mask to paint, and two pictures under a slider.

Only where a person sits at JupyterLab; where a notebook is run by papermill, nbval or a converter, the same is a
picture that stands still. `wigglystuff` paints (an anywidget); the slider is ipywidgets', since `jupyter-compare-view`
wants Python below 3.13 and writes another random id into the notebook at every run.
"""

import io
import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from IPython.display import display
from ipywidgets import HBox, Image, IntSlider, VBox

from asymlib.pixels import to_picture, to_pixels
from asymlib.study.reporting.plots import show_pictures

if TYPE_CHECKING:
    from wigglystuff import Paint

COLOUR = "#ff2d2d"  # of the strokes


def interactive() -> bool:
    """Whether a person is there: Jupyter's server names the notebook to the kernels that it starts, others do not."""
    return "JPY_SESSION_NAME" in os.environ


def mask_painter(image: torch.Tensor) -> "Paint | None":
    """A canvas with the picture (1, 3, H, W) in [-1, 1], to paint a hole on; shown, and None where nobody can paint."""
    if not interactive():
        return None
    from wigglystuff import Paint  # here, since only a person needs it

    canvas = Paint(init_image=to_picture(image), brush=False, color_picker=False, color=COLOUR)
    display(canvas)
    return canvas


def painted(canvas: "Paint | None", image: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
    """What was painted, (1, 1, H, W) with 1 = hole; `otherwise` where nothing was.

    Args:
        canvas: From `mask_painter`.
        image: The picture that it was given.
        otherwise: A mask.
    """
    if canvas is None:
        return otherwise
    strokes = np.asarray(canvas.get_pil().convert("RGB")) != to_pixels(image[0])
    hole = torch.from_numpy(strokes.any(-1))[None, None].float()
    return hole if hole.any() else otherwise


def before_and_after(before: torch.Tensor, after: torch.Tensor):
    """Two pictures (1, 3, H, W) in [-1, 1] under a slider; side by side where nobody can slide."""
    if not interactive():
        return show_pictures([[before[0], after[0]]], ["before", "after"])
    pictures = [to_pixels(picture[0]) for picture in (before, after)]
    width = pictures[0].shape[1]
    told = {"description": "before | after", "style": {"description_width": "initial"}}
    slider = IntSlider(width // 2, 0, width, readout=False, **told)
    shown = Image(value=_png(pictures, width // 2), width=2 * width)
    slider.observe(lambda change: setattr(shown, "value", _png(pictures, change["new"])), "value")
    return VBox([shown, HBox([slider])])


def _png(pictures: list[np.ndarray], place: int) -> bytes:
    """The first picture up to a column, then the second, with a white line between."""
    from PIL import Image as Picture

    mixed = np.where(np.arange(pictures[0].shape[1])[None, :, None] < place, *pictures)
    mixed[:, max(0, place - 1) : place + 1] = 255
    file = io.BytesIO()
    Picture.fromarray(mixed).save(file, "PNG")
    return file.getvalue()

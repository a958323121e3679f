"""Figures, each by one function: the same colour for the same decoder everywhere, axes with units, files that repeat
byte for byte."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pandas as pd
import torch
from IPython.display import HTML
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch.nn.functional import avg_pool2d

from asymlib.files import written
from asymlib.masks import dilate
from asymlib.pixels import to_pixels, to_tensor
from asymlib.study.project import project_root

# Okabe and Ito's colours, told apart by the colour-blind
COLOURS = {
    "vanilla": "#000000",
    "vanilla_finetuned": "#999999",
    "vanilla_paste_hard": "#56B4E9",
    "base": "#D55E00",
    "fitted": "#0072B2",
    "base_4679": "#56B4E9",
    "large_1.5x": "#E69F00",
    "large_2x": "#009E73",
    "large_2x_without_branch": "#CC79A7",
    "last_word": "#8A2BE2",
    "pca": "#0072B2",
    "vanilla_vq": "#666666",
    "base_vq": "#F0E442",
    "photograph": "#0072B2",
    "real": "#0072B2",
}
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "svg.hashsalt": "asymlib",
}
HOLE_COLOUR = np.array([255, 0, 200], np.uint8)


def save_figure(figure: Figure, path: Path) -> HTML:
    """Write a figure once, as WebP: lossless where it is drawn, at quality 90 where it shows photographs.

    Returns:
        What a notebook shows in the figure's place: a link to the file, so that it is not stored a second time.
    """
    pictures = any(axes.images for axes in figure.axes)
    with written(path) as temporary:
        options = {"quality": 90, "method": 6} if pictures else {"lossless": True, "method": 6}
        figure.savefig(temporary, format="webp", pil_kwargs=options, bbox_inches="tight")
    relative = path.relative_to(project_root()).as_posix()
    return HTML(f'<img src="../{relative}" alt="{path.stem}">')


def show_pictures(
    rows: list[list[torch.Tensor]], titles: list[str], outline: list[torch.Tensor | None] | None = None, zoom: int = 1
) -> Figure:
    """A grid of pictures at integer zoom.

    Args:
        rows: One list of (3, H, W) images in [-1, 1] for each row; rows may differ in length from one another only.
        titles: One for each column.
        outline: For each row a mask (1, H, W) whose edge is drawn on the first picture, or None.
        zoom: Screen pixels for each image pixel.
    """
    height, width = rows[0][0].shape[-2:]
    gap, head = 6, 22
    columns = max(len(row) for row in rows)
    size = (columns * (width * zoom + gap) / 100, (len(rows) * (height * zoom + gap) + head) / 100)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = plt.figure(figsize=size)
        total_width, total_height = size[0] * 100, size[1] * 100
        for i, row in enumerate(rows):
            for j, image in enumerate(row):
                left = j * (width * zoom + gap) / total_width
                bottom = 1 - (head + (i + 1) * (height * zoom + gap) - gap) / total_height
                axes = figure.add_axes((left, bottom, width * zoom / total_width, height * zoom / total_height))
                pixels = to_pixels(image).copy()
                if j == 0 and outline is not None and outline[i] is not None:
                    pixels[edge_of(outline[i])] = HOLE_COLOUR
                axes.imshow(pixels, interpolation="nearest")
                axes.set_axis_off()
                if i == 0:
                    axes.set_title(titles[j], fontsize=9, pad=4)
        plt.close(figure)
    return figure


def rim_rows(photograph: torch.Tensor, mask: torch.Tensor, results: list[torch.Tensor], side: int = 40) -> list[list]:
    """Rows for `show_pictures` that show what an edit did to the rest: the pictures, a square at the hole's rim
    magnified, and what changed outside the hole, times ten around grey.

    The square lies where the known pixels have the most detail and a third to two thirds of it is hole.

    Args:
        photograph: (3, H, W) in [-1, 1].
        mask: (1, H, W), 1 = hole.
        results: Each (3, H, W) in [-1, 1].
        side: Of the square in pixels, a divisor of H and W.
    """
    y, x = _detailed_rim(photograph, mask, side)
    squares = [picture[:, y : y + side, x : x + side] for picture in (photograph, *results)]
    factor = photograph.shape[-1] // side
    magnified = [square.repeat_interleave(factor, 1).repeat_interleave(factor, 2) for square in squares]
    changed = [(10 * (1 - mask) * (result.clamp(-1, 1) - photograph)).clamp(-1, 1) for result in results]
    return [[photograph, *results], magnified, [torch.zeros_like(photograph), *changed]]


def _detailed_rim(photograph: torch.Tensor, mask: torch.Tensor, side: int) -> tuple[int, int]:
    """Top and left of the square that `rim_rows` magnifies; the nearest to half a hole where none has as much."""
    grey = photograph.mean(0)
    steps = torch.stack([grey.diff(dim=0)[:, :-1].abs(), grey.diff(dim=1)[:-1].abs()]).sum(0)
    detail = avg_pool2d((steps * (1 - mask[0, :-1, :-1]))[None, None], side - 1, stride=1)[0, 0]
    share = avg_pool2d(mask[None], side, stride=1)[0, 0]
    fitting = (share > 1 / 3) & (share < 2 / 3)
    score = torch.where(fitting, detail, -1.0) if fitting.any() else -(share - 0.5).abs()
    return divmod(int(score.argmax()), share.shape[1])


def text_tile(text: str, size: int) -> torch.Tensor:
    """A picture of words, one below the other, to stand in a row of pictures: (3, size, size) in [-1, 1]."""
    canvas = np.full((size, size, 3), 255, np.uint8)
    scale, words = size / 220, text.split()
    for i, word in enumerate(words):
        (width, height), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        y = round(size / 2 + (i - (len(words) - 1) / 2) * 2 * height + height / 2)
        cv2.putText(canvas, word, ((size - width) // 2, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return to_tensor(canvas[None])[0]


def edge_of(mask: torch.Tensor) -> np.ndarray:
    """Boolean (H, W): the hole's outermost pixels of a (1, H, W) mask."""
    return (mask * dilate(1 - mask[None], 1)[0])[0].numpy() > 0


def plot_intervals(tables: dict[str, pd.DataFrame], metric: str, label: str, log: bool = False) -> Figure:
    """Means with their intervals, one panel per named table, decoders from top to bottom.

    Args:
        tables: Panel title -> rows of a tidy table, one per variant for `metric`.
        metric: Name in the column `metric`.
        label: Axis label with its unit.
        log: Logarithmic axis; values of exactly 0 are written beside it instead.
    """
    with matplotlib.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, len(tables), figsize=(3.1 * len(tables), 2.6), sharey=True, squeeze=False, layout="constrained"
        )
        for axes, (title, table) in zip(panels[0], tables.items(), strict=True):
            cells = table[table["metric"] == metric]
            for y, cell in enumerate(cells.itertuples()):
                colour = COLOURS.get(cell.variant.split("_paste_")[0], "#000000")
                marker = "s" if "_paste_" in cell.variant else "o"
                if np.isnan(cell.value) or (log and cell.value <= 0):
                    said = "not measured" if np.isnan(cell.value) else "exactly 0"
                    axes.text(0.02, y, said, color=colour, va="center", transform=axes.get_yaxis_transform())
                    continue
                axes.plot([cell.low, cell.high], [y, y], color=colour)
                axes.plot(cell.value, y, marker, color=colour, markersize=4)
            scale = "log" if log and (cells["value"] > 0).any() else "linear"
            axes.set(title=title, xlabel=label, ylim=(len(cells) - 0.5, -0.5), xscale=scale)
            axes.set_yticks(range(len(cells)), cells["variant"])
        plt.close(figure)
    return figure


def plot_curves(
    curves: dict[str, pd.DataFrame], vanilla: dict[str, float] | None, x: str = "step", label: str = "training step"
) -> Figure:
    """pre_error and hole PSNR on the validation batch over training, with vanilla's as a dotted line.

    Args:
        curves: Variant -> rows of {step, pre_error, hole_psnr}.
        vanilla: The vanilla decoder's pre_error and hole_psnr on the same batch; None draws no line.
        x: Column of the horizontal axis.
        label: Its label with the unit.
    """
    with matplotlib.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
        labels = {"pre_error": "pre_error (mean square, images in [0, 1])", "hole_psnr": "hole PSNR (dB)"}
        for axes, (metric, title) in zip(panels, labels.items(), strict=True):
            for variant, curve in curves.items():
                axes.plot(curve[x], curve[metric], color=COLOURS.get(variant), label=variant)
            if vanilla is not None:
                axes.axhline(vanilla[metric], color="black", linestyle=":", label="vanilla")
            axes.set(xlabel=label, ylabel=title)
        panels[0].set_yscale("log")
        panels[1].legend(frameon=False, fontsize=8)
        plt.close(figure)
    return figure


def plot_loss(curve: pd.DataFrame, metric: str, label: str) -> Figure:
    """One number over the training steps."""
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5, 2.6), layout="constrained")
        axes.plot(curve["step"], curve[metric], color=COLOURS["pca"])
        axes.set(xlabel="training step", ylabel=label)
        plt.close(figure)
    return figure


def plot_hole_cost(bench: pd.DataFrame) -> Figure:
    """Time and multiply-accumulates of windows around a hole over its share of the picture, a panel for
    each size; the whole decode is 1, and diffusers' asymmetric decoder a line.

    Args:
        bench: The table of `study.bench`.
    """
    of_decodes = bench[(bench["reference"] == "vanilla") & bench["metric"].isin(["time", "macs"])]
    sizes = sorted(of_decodes["size_px"].unique())
    with matplotlib.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(sizes), figsize=(3.6 * len(sizes), 3), squeeze=False, layout="constrained")
        for axes, size in zip(panels[0], sizes, strict=True):
            here = of_decodes[of_decodes["size_px"] == size]
            holes = here[here["subject"] == "decode_hole"].sort_values("hole_share")
            times, macs = (holes[holes["metric"] == metric] for metric in ("time", "macs"))
            off = (times["ratio"] - times["low"], times["high"] - times["ratio"])
            axes.errorbar(
                100 * times["hole_share"], times["ratio"], off, color=COLOURS["base"], marker="o", label="time"
            )
            axes.plot(100 * macs["hole_share"], macs["ratio"], "--", color=COLOURS["pca"], label="multiply-accumulates")
            other = here[(here["subject"] == "asymmetric") & (here["metric"] == "time")]["ratio"].item()
            axes.axhline(other, color="#999999", label="diffusers' asymmetric decoder, time")
            axes.axhline(1, color="black", linestyle=":", label="vanilla decoder")
            axes.set(
                title=f"{size} px", xlabel="hole (% of the picture)", ylabel="of the vanilla decode", ylim=(0, None)
            )
        panels[0][-1].legend(frameon=False, fontsize=8)
        plt.close(figure)
    return figure


def plot_against(
    tables: dict[str, pd.DataFrame], x: str, y: str, x_label: str, y_label: str, curve: tuple[str, Sequence[str]]
) -> Figure:
    """One measure against another, one panel per named table, a point for each variant that has both; both axes are
    linear from 0.

    Args:
        tables: Panel title -> rows of a tidy table, one per variant and metric.
        x: Metric of the horizontal axis.
        y: Metric of the vertical axis.
        x_label: Its label with the unit.
        y_label: Its label with the unit.
        curve: A method's name, and its variants in the order of their setting: they are joined by a line.
    """
    with matplotlib.rc_context(STYLE):
        size = (3.2 * len(tables) + 2, 3.2)
        figure, panels = plt.subplots(1, len(tables), figsize=size, squeeze=False, layout="constrained")
        for axes, (title, table) in zip(panels[0], tables.items(), strict=True):
            points = table.pivot(index="variant", columns="metric", values="value")[[x, y]].dropna()
            line = points.reindex(curve[1]).dropna()
            axes.plot(line[x], line[y], "-", color="#999999", marker=".", label=curve[0])
            others = [variant for variant in points.index if variant not in curve[1]]
            for variant, marker in zip(others, itertools.cycle("osv^DPX*<>"), strict=False):
                colour = COLOURS.get(variant, "#555555")
                axes.plot(*points.loc[variant], marker, color=colour, markersize=6, alpha=0.8, label=variant)
            axes.set(title=title, xlabel=x_label, ylabel=y_label)
            axes.margins(0.08)
            axes.set_xlim(-0.04 * axes.get_xlim()[1], None)
            axes.set_ylim(-0.04 * axes.get_ylim()[1], None)
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
        plt.close(figure)
    return figure

"""What can come after a decoder, by name: the ways of pasting back, stronger baselines, and the last word.

All take image and image_hat, (N, 3, H, W) in [-1, 1], and mask, (N, 1, H, W) with 1 = hole, see `editing.compositing`.
"""

from functools import partial

import numpy as np
import torch
from color_matcher.mvgd_matcher import TransferMVGD

from asymlib.editing.compositing import PASTES, Paste, paste_hard, paste_poisson, paste_screened
from asymlib.models.last_word import LastWord, calibrate

LENGTHS = (2, 4, 8, 16, 32)  # pixels, of screened Poisson: the curve on which every fixed length lies
UNFAIR = ("paste_feathered", "paste_laplacian")  # read the photo in the hole, or change known pixels: no competitors


def finishers(last_word: LastWord | None) -> dict[str, Paste]:
    """Every finisher by its name.

    Args:
        last_word: What is compared with all others; None leaves it out.
    """
    screened = {f"screened_{length}": partial(paste_screened, length=length) for length in LENGTHS}
    calibrated = {
        "calibrated_hard": partial(_calibrated, paste_hard),
        "calibrated_poisson": partial(_calibrated, paste_poisson),
    }
    own = {} if last_word is None else {"last_word": last_word}
    return PASTES | screened | calibrated | {"paste_colour_transferred": paste_colour_transferred} | own


def paste_colour_transferred(image: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Give the edit the photo's means and covariance of colours, measured on the known pixels; then `paste_hard`.

    Source: `color-matcher`'s Monge-Kantorovich linearisation (Pitie and Kokaram 2007).
    """
    moved = []
    for x, y, known in zip(image, image_hat, (mask == 0)[:, 0], strict=True):
        if int(known.sum()) < 2:
            moved.append(y)
            continue
        seen = [picture[:, known].T.double().cpu().numpy()[None] for picture in (y, x)]
        transfer = TransferMVGD(src=seen[0], ref=seen[1], method="mkl")
        transfer.multivar_transfer()
        linear, centre, target = (np.real(part) for part in (transfer.transfer_mat, transfer.mu_r, transfer.mu_z))
        colours = y.flatten(1).double().cpu().numpy()
        moved.append(torch.from_numpy(linear @ (colours - centre) + target).view_as(y).to(y))
    return paste_hard(image, torch.stack(moved).clamp(-1, 1), mask)


def _calibrated(paste: Paste, image: torch.Tensor, image_hat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return paste(image, calibrate(image, image_hat, mask).clamp(-1, 1).to(image_hat), mask)

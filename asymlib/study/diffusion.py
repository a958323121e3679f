"""The diffusion model of a profile, whichever it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from asymlib.models.first_stage import FirstStage
from asymlib.models.inpainter import LatentInpainter

if TYPE_CHECKING:
    from asymlib.study.hub import HubDiffusion


def load_diffusion(folder: str | Path, first_stage: FirstStage) -> LatentInpainter | HubDiffusion:
    """The diffusion model of a profile, as stage `inpainter` left it: the small one, or pipelines of the hub.

    Args:
        folder: What the stage wrote.
        first_stage: The frozen autoencoder.
    """
    hub = Path(folder) / "hub.json"
    if not hub.is_file():
        return LatentInpainter.load(folder)
    from asymlib.study.hub import HubDiffusion  # here, since it imports every pipeline

    return HubDiffusion(json.loads(hub.read_text()), first_stage)

"""The sources of a latent, and what of its hole can be measured: each is a task with a stated reference, or none.

`own`: encoded from the whole photograph. `swapped`: the hole's part comes from another photograph. `removed`: encoded
from the photograph with its hole filled from elsewhere in it, `recoloured`: with another colour in its hole.
`inpainted`: the latent diffusion model's, known cells as it leaves them; `blended`: the same with the known cells put
back at every step. `prompt` and `example`: the diffusion model's, asked for something (notebook 07). `tinted`: own, but
the *decoded* picture is under a change of its colours, a task for what comes after the decoder (notebook 12).
"""

SOURCES = ("own", "swapped", "removed", "recoloured", "inpainted", "blended")  # what the decoders are compared on
SHORT = ("own", "swapped", "inpainted")  # and the short runs, the heavy ones and the controls
REFERENCES: dict[str, str | None] = {
    "own": "the photograph",
    "swapped": "the other photograph",
    "removed": "the filled photograph",
    "recoloured": "the recoloured photograph",
    "tinted": "the photograph",
    "inpainted": None,
    "blended": None,
    "prompt": None,
    "example": None,
}
# Where the picture has an edge of its own along the mask's. The vanilla decoder smears it, and who sharpens it would be
# charged for a seam: `seam_added` says nothing there. (What fills a hole of `removed` need not meet what is around it.)
EDGED = ("swapped", "removed", "recoloured")
WITH_REFERENCE = tuple(source for source in SOURCES if REFERENCES[source])
# metrics that compare a hole with its reference
COMPARING = ("ring_l1", "seam_grad", "hole_psnr", "hole_effnet_distance", "effnet_distance")


def says_nothing(metric: str, source: str) -> bool:
    """Whether a metric, or a comparison named after one, has no meaning on a source.

    >>> says_nothing("ring_l1_4", "inpainted"), says_nothing("hole_changed", "inpainted")
    (True, False)
    >>> says_nothing("seam_added", "swapped")
    True
    """
    if source in REFERENCES and REFERENCES[source] is None:
        return metric.startswith(COMPARING)
    return source in EDGED and metric.startswith("seam_added")

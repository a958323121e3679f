"""Decoders for other tools: ONNX files that take any size and any number of pictures."""

import warnings
from pathlib import Path

import torch
from torch import nn

from asymlib.files import written
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.first_stage import decoder_input

LARGEST = 4096  # cells a side that a file is made for


class _Decode(nn.Module):
    """`AsymmetricVQGAN.decode` without what is only for Python: checks, moving, slices, tiles."""

    def __init__(self, vqgan: AsymmetricVQGAN) -> None:
        super().__init__()
        self.vqgan = vqgan

    def forward(self, latent: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        return self.vqgan.decoder(decoder_input(self.vqgan, latent), *condition)


def export_onnx(vqgan: AsymmetricVQGAN, path: str | Path) -> None:
    """Write a decoder as one ONNX file, float32, with its weights inside.

    Its inputs are `latent`, (N, C, h, w), not scaled, and, where the decoder has a condition branch, `image`,
    (N, 3, 8h, 8w) in [-1, 1], and `mask`, (N, 1, 8h, 8w) with 1 = hole; its output `picture`, (N, 3, 8h, 8w).

    Args:
        vqgan: The decoder; without a branch any plain one, see `asymmetric_vqgan`.
        path: The file.

    Raises:
        ImportError: ONNX is not installed: pip install 'asymlib[onnx]'.
    """
    try:
        import onnxscript  # noqa: F401  # what torch writes ONNX with
    except ModuleNotFoundError as error:
        raise ImportError("ONNX files need onnxscript: pip install 'asymlib[onnx]'") from error
    factor, device = vqgan.factor, vqgan.device
    latent = torch.zeros(2, vqgan.latent_channels, 6, 9, device=device)
    pictures = [torch.zeros(2, channels, 6 * factor, 9 * factor, device=device) for channels in (3, 1)]
    condition = pictures if vqgan.config.branch else []
    count, *cells = (torch.export.Dim(name, min=1, max=LARGEST) for name in ("count", "height", "width"))
    of_latent = {0: count, 2: cells[0], 3: cells[1]}
    of_pictures = {0: count, 2: factor * cells[0], 3: factor * cells[1]}
    sizes = {"latent": of_latent} | ({"condition": (of_pictures, of_pictures)} if condition else {})
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that two inputs have a size in common
        program = torch.onnx.export(
            _Decode(vqgan).eval(),
            (latent, *condition),
            dynamo=True,
            input_names=["latent", "image", "mask"][: 1 + len(condition)],
            output_names=["picture"],
            dynamic_shapes=sizes,
            verbose=False,
        )
    with written(Path(path)) as temporary:
        program.save(temporary, external_data=False)

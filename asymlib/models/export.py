"""Decoders and the last word for other tools: ONNX files that take any size and any number of pictures."""

import copy
import warnings
from pathlib import Path

import torch
from torch import nn

from asymlib.files import written
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.first_stage import decoder_input
from asymlib.models.last_word import LastWord

LARGEST = 4096  # cells a side that a decoder's file is made for


class _Decode(nn.Module):
    """`AsymmetricVQGAN.decode` without what is only for Python: checks, moving, slices, tiles."""

    def __init__(self, vqgan: AsymmetricVQGAN) -> None:
        super().__init__()
        self.vqgan = vqgan

    def forward(self, latent: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        return self.vqgan.decoder(decoder_input(self.vqgan, latent), *condition)


class _Finish(nn.Module):
    """`LastWord.forward` likewise."""

    def __init__(self, last_word: LastWord) -> None:
        super().__init__()
        self.last_word = last_word

    def forward(self, photo: torch.Tensor, edited: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        whole, film = self.last_word.carry(photo, edited.clamp(-1, 1), (mask == 0).float())
        corrected = whole.edited + self.last_word.give_back(whole, film)
        return torch.lerp(photo, corrected.clamp(-1, 1), mask)


def export_onnx(model: AsymmetricVQGAN | LastWord, path: str | Path) -> None:
    """Write a decoder or the last word as one ONNX file, float32, with its weights inside.

    A decoder's inputs are `latent`, (N, C, h, w), not scaled, and, where it has a condition branch, `image`,
    (N, 3, 8h, 8w) in [-1, 1], and `mask`, (N, 1, 8h, 8w) with 1 = hole; its output is `picture`, (N, 3, 8h, 8w). The
    last word's inputs are `photo` and `edited`, (N, 3, H, W) in [-1, 1], and `mask`, (N, 1, H, W) in [0, 1]; its output
    is `picture`, (N, 3, H, W), the photo's own values where the mask is 0.

    Args:
        model: The decoder; without a branch any plain one, see `asymmetric_vqgan`. Or the last word, see `load`.
        path: The file.

    Raises:
        ImportError: ONNX is not installed: pip install 'asymlib[onnx]'.
    """
    try:
        from asymlib.models.onnx_functions import FUNCTIONS
    except ModuleNotFoundError as error:
        raise ImportError("ONNX files need onnxscript: pip install 'asymlib[onnx]'") from error
    model = copy.deepcopy(model).float().eval()  # the caller's stays as it is
    module, inputs, sizes = _finisher(model) if isinstance(model, LastWord) else _decoder(model)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that two inputs have a size in common
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=["picture"],
            dynamic_shapes=sizes,
            custom_translation_table=FUNCTIONS,
            optimize=False,  # it takes 1e-8 for nothing, which the last word divides by
            verbose=False,
        )
    with written(Path(path)) as temporary:
        program.save(temporary, external_data=False)


def _decoder(vqgan: AsymmetricVQGAN) -> tuple[nn.Module, dict, dict]:
    """What is exported, inputs of some size, and which of their sizes are free."""
    factor, device = vqgan.factor, vqgan.device
    inputs = {"latent": torch.zeros(2, vqgan.latent_channels, 6, 9, device=device)}
    count, *cells = (torch.export.Dim(name, min=1, max=LARGEST) for name in ("count", "height", "width"))
    sizes = {"latent": {0: count, 2: cells[0], 3: cells[1]}}
    if vqgan.config.branch:
        for name, channels in (("image", 3), ("mask", 1)):
            inputs[name] = torch.zeros(2, channels, 6 * factor, 9 * factor, device=device)
        of_pictures = {0: count, 2: factor * cells[0], 3: factor * cells[1]}
        sizes["condition"] = (of_pictures, of_pictures)
    return _Decode(vqgan), inputs, sizes


def _finisher(last_word: LastWord) -> tuple[nn.Module, dict, dict]:
    """Likewise; what torch finds out about the sizes it finds out itself."""
    channels, device = {"photo": 3, "edited": 3, "mask": 1}, last_word.device
    inputs = {name: torch.zeros(2, n, 72, 100, device=device) for name, n in channels.items()}
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
    return _Finish(last_word), inputs, dict.fromkeys(channels, free)

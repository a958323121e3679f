"""ONNX files: run by another tool, the same pixels."""

import sys

import numpy as np
import onnxruntime
import pytest
import torch

import asymlib
from asymlib.models.construction import asymmetric_vqgan
from asymlib.models.export import export_onnx


def run(path, **inputs: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == list(inputs)
    return torch.from_numpy(session.run(["picture"], {name: i.numpy() for name, i in inputs.items()})[0])


@pytest.mark.parametrize("name, branch", [("base", True), ("first_stage", False), ("first_stage_vq", False)])
def test_onnxruntime_makes_the_same_pixels_at_any_size(name, branch, tmp_path):
    """Breaks when a size, the number of pictures or a mask is baked into the file."""
    vqgan = asymlib.load("base") if branch else asymmetric_vqgan(asymlib.load(name), branch=False)
    vqgan = vqgan.train().to(torch.bfloat16 if name == "first_stage" else torch.float32)
    export_onnx(vqgan, tmp_path / "decoder.onnx")
    assert vqgan.decoder.training and vqgan.dtype == (torch.bfloat16 if name == "first_stage" else torch.float32)
    vqgan = vqgan.float().eval()
    assert [path.name for path in tmp_path.iterdir()] == ["decoder.onnx"]
    generator = torch.Generator().manual_seed(0)
    for count, height, width in ((1, 8, 8), (3, 5, 12), (2, 17, 4)):
        latent = torch.randn(count, 4, height, width, generator=generator)
        image = torch.rand(count, 3, 8 * height, 8 * width, generator=generator) * 2 - 1
        mask = (torch.rand(count, 1, 8 * height, 8 * width, generator=generator) > 0.7).float()
        condition = {"image": image, "mask": mask} if branch else {}
        with torch.no_grad():
            expected = vqgan.decode(latent, **condition)
        made = run(tmp_path / "decoder.onnx", latent=latent, **condition)
        np.testing.assert_allclose(made, expected, atol=1e-4)


def test_the_last_word_is_the_same_in_onnxruntime(tmp_path):
    """Breaks when a size or a number is baked in, when a loop ends early, and when an optimiser drops what is small."""
    last_word, generator = asymlib.load("last_word"), torch.Generator().manual_seed(0)
    export_onnx(last_word, tmp_path / "finisher.onnx")
    for count, height, width in ((1, 64, 64), (3, 77, 131), (1, 330, 640), (2, 3, 240)):
        coarse = torch.rand(count, 3, 9, 9, generator=generator)
        photo = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic") * 2 - 1
        edited = 0.8 * photo + 0.1 + 0.1 * torch.randn(photo.shape, generator=generator)  # beyond -1 to 1 in places
        mask = torch.zeros(count, 1, height, width)
        mask[..., height // 8 : -1, width // 9 : -5] = 1  # in the largest, more than 128 px from the rim in places
        if count > 2:
            mask[1, ..., : width // 2], mask[2] = 0.5, 1  # a soft hole, and nothing known
        with torch.no_grad():
            expected = last_word(photo, edited, mask)
        made = run(tmp_path / "finisher.onnx", photo=photo, edited=edited, mask=mask)
        np.testing.assert_allclose(made, expected, atol=1e-4)
        assert (expected - edited).abs().max() > 0.1  # something was finished
        assert (made[mask.expand_as(made) == 0] == photo[mask.expand_as(made) == 0]).all()


def test_without_onnx_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.delitem(sys.modules, "asymlib.models.onnx_functions", raising=False)  # as where it was never there
    with pytest.raises(ImportError, match=r"pip install 'asymlib\[onnx\]'"):
        export_onnx(asymlib.load("base"), tmp_path / "decoder.onnx")

"""The first stage is trained from a linear start, and a killed run loses nothing."""

import numpy as np
import pytest
import torch

from asymlib.data.procedural import procedural_image
from asymlib.models.first_stage import build_first_stage, fetch_first_stage, load_first_stage, normalise_stream
from asymlib.models.pca import PatchPCA
from asymlib.params import load_params
from asymlib.training import first_stage as module
from asymlib.training.first_stage import make_first_stage, sample_crops

SMALL = {
    "width": 8,
    "groups": 4,
    "crop": 32,
    "batch": 2,
    "encoder_steps": 20,
    "decoder_steps": 20,
    "joint_steps": 20,
    "refine_steps": 20,
}


@pytest.fixture
def settings(monkeypatch):
    monkeypatch.setattr(module, "packaged_photographs", lambda: [])
    return load_params("smoke").first_stage.model_copy(update=SMALL | {"procedural": 4})


def test_training_lowers_the_error_and_stores_the_scale(settings, tmp_path):
    """Breaks when a phase trains nothing, or the latent's deviation is not brought to one."""
    history = make_first_stage(settings, 0, tmp_path)
    assert [row["phase"] for row in history] == ["joint"]  # one row for every 50 steps
    model = load_first_stage(tmp_path)
    images = [procedural_image(256, np.random.default_rng([0, 0, i])) for i in range(4)]
    crops = sample_crops(images, images, 32, 256, 0.0, np.random.default_rng(9))
    scaled = model.encode(crops).latent_dist.mean * model.config.scaling_factor
    assert scaled.std().item() == pytest.approx(1, abs=0.15)


def test_normalising_the_stream_changes_its_scale_and_not_the_function():
    """Breaks when a layer that adds to the stream is forgotten, or scaled twice."""
    decoder = build_first_stage(8, 1, 4).eval().decoder
    latent = torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for block in decoder.up_blocks[:-1]:
            block.upsamplers[0].conv.weight.mul_(5.0)  # a stream that grows, as training makes it grow
        for parameter in decoder.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        before = decoder(latent)
        normalise_stream(decoder, latent)
        assert torch.allclose(decoder(latent), before, atol=1e-4)
        entries = []
        for block in decoder.up_blocks:
            block.register_forward_pre_hook(lambda _, args: entries.append(args[0].std().item()))
        decoder(latent)
    assert entries == pytest.approx([1, 1, 1, 1], rel=1e-3)


def test_the_linear_code_is_its_own_inverse_up_to_what_it_loses():
    images = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = PatchPCA(images, channels=192)
    assert (whole.decode(whole.encode(images)) - images).abs().max() < 1e-4
    errors = [(p.decode(p.encode(images)) - images).square().mean() for p in (PatchPCA(images, c) for c in (1, 4, 16))]
    assert errors[0] > errors[1] > errors[2]
    assert PatchPCA(images).encode(images).std().item() == pytest.approx(1, abs=0.05)


def test_groups_must_divide_the_width_and_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="groups: got 5, expected a divisor of width 24"):
        build_first_stage(24, 1, 5)
    with pytest.raises(FileNotFoundError, match="first stage .* is missing; expected a folder with config.json"):
        load_first_stage(tmp_path / "none")


def test_a_first_stage_on_the_hub_that_cannot_be_had_is_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="^first stage: got 'nobody/none' at revision '0123', .* a network$"):
        fetch_first_stage("nobody/none", "0123", tmp_path / "first_stage")
    assert not (tmp_path / "first_stage").exists()

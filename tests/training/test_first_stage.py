"""The first stage is trained from a linear start, and a killed run loses nothing."""

import numpy as np
import pytest
import torch
from diffusers import VQModel

from asymlib.data.procedural import procedural_image
from asymlib.evaluation.reconstruction import reconstruct
from asymlib.models.codebook import quantise
from asymlib.models.first_stage import (
    build_first_stage,
    fetch_first_stage,
    inherit_first_stage,
    load_first_stage,
    normalise_stream,
)
from asymlib.models.pca import PatchPCA
from asymlib.params import load_params
from asymlib.project import project_root
from asymlib.training import checkpoints
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


@pytest.fixture
def vq_settings(settings):
    update = {"kind": "vq", "codes": 32, "joint_steps": 60, "refine_steps": 40, "code_decay": 0.9}
    return settings.model_copy(update=update)


def stored(folder) -> bytes:
    return (folder / "diffusion_pytorch_model.safetensors").read_bytes()


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_a_quantised_first_stage_learns_and_is_a_plain_vq_model(vq_settings, tmp_path, codebook):
    """Breaks when the codes are not those that diffusers looks up, or one of them is not trained."""
    history = make_first_stage(vq_settings.model_copy(update={"codebook": codebook}), 0, tmp_path)
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(1 <= row["perplexity"] <= 32 for row in history)
    model, ours = VQModel.from_pretrained(tmp_path).eval(), load_first_stage(tmp_path)
    assert isinstance(ours, VQModel) and not any(p.requires_grad for p in ours.parameters())
    image = sample_crops(
        [procedural_image(256, np.random.default_rng(1))] * 2, [], 32, 3, 0.0, np.random.default_rng(2)
    )
    with torch.no_grad():
        image_hat = model(image).sample
        latent = ours.encode(image).latents
        decoded = ours.decoder(ours.post_quant_conv(quantise(latent, ours.quantize.embedding.weight).latent))
    assert torch.equal(image_hat.clamp(-1, 1), reconstruct(ours, image))
    assert torch.allclose(decoded, image_hat, atol=1e-5)
    assert 0.5 < latent.std().item() * ours.config.scaling_factor < 2


def test_a_killed_quantised_run_continues_bit_for_bit(vq_settings, tmp_path, monkeypatch):
    """Breaks when the codebook's averages are not restored, or k-means runs again."""
    steps = {"encoder_steps": 4, "decoder_steps": 4, "joint_steps": 8, "refine_steps": 4}
    vq_settings = vq_settings.model_copy(update=steps)
    expected = make_first_stage(vq_settings, 0, tmp_path / "whole")
    path = tmp_path / "resume.safetensors"
    monkeypatch.setattr(checkpoints.ResumeState.__init__, "__defaults__", (5,))
    real_keep = checkpoints.ResumeState.keep

    def keep_then_die(state, step, history):
        real_keep(state, step, history)
        if step == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.ResumeState, "keep", keep_then_die)
    with pytest.raises(KeyboardInterrupt):
        make_first_stage(vq_settings, 0, tmp_path / "resumed", path)
    monkeypatch.setattr(checkpoints.ResumeState, "keep", real_keep)
    history = make_first_stage(vq_settings, 0, tmp_path / "resumed", path)
    assert stored(tmp_path / "resumed") == stored(tmp_path / "whole")
    assert str(history) == str(expected) and not path.exists()


def test_a_run_from_a_trained_one_skips_the_warm_phases(vq_settings, tmp_path):
    build_first_stage(8, 1, 4, seed=3).save_pretrained(tmp_path / "kl")
    update = {"start_from": str(tmp_path / "kl"), "joint_steps": 30, "refine_steps": 20}
    history = make_first_stage(vq_settings.model_copy(update=update), 0, tmp_path / "vq")
    assert [(row["step"], row["phase"]) for row in history] == [(50, "refine")]


def test_a_quantised_first_stage_inherits_the_posterior_s_mean_and_the_decoder():
    """Breaks when the log-variance's channels are taken, or the 1 x 1 convolution is folded the wrong way round."""
    start, model = build_first_stage(8, 1, 4, seed=1).eval(), build_first_stage(8, 1, 4, seed=2, codes=32).eval()
    inherit_first_stage(model, start)
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latent = start.encode(image).latent_dist.mean
        assert torch.allclose(model.encode(image).latents, latent, atol=1e-5)
        assert torch.equal(model.decode(latent, force_not_quantize=True).sample, start.decode(latent).sample)
    with pytest.raises(ValueError, match="start: got widths, layers and groups .*16.*, expected the new model's .*8"):
        inherit_first_stage(model, build_first_stage(16, 1, 4))
    with pytest.raises(ValueError, match="start: got a VQModel, expected an AutoencoderKL"):
        inherit_first_stage(start, model)


def test_the_shipped_quantised_first_stage_is_a_vq_model_of_512_codes():
    model = load_first_stage(project_root() / load_params("default").first_stage_vq.bundled)
    assert isinstance(model, VQModel) and model.quantize.embedding.weight.shape == (512, 4)


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
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ValueError, match="got a UNet2DModel, expected one of AutoencoderKL, VQModel, AutoencoderTiny"):
        load_first_stage(tmp_path)


def test_a_first_stage_on_the_hub_that_cannot_be_had_is_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="^first stage: got 'nobody/none' at revision '0123', .* a network$"):
        fetch_first_stage("nobody/none", "0123", "vae", tmp_path / "first_stage")
    assert not (tmp_path / "first_stage").exists()

"""The first stage is trained from a linear start, and a killed run loses nothing."""

import numpy as np
import pytest
import torch
from diffusers import VQModel
from PIL import Image

from asymlib.models.first_stage import build_first_stage, load_first_stage
from asymlib.study.dataset.photographs import folder_photographs
from asymlib.study.dataset.procedural import procedural_image
from asymlib.study.evaluation.reconstruction import reconstruct
from asymlib.study.params import load_params
from asymlib.study.training import first_stage as module
from asymlib.study.training.codebook import quantise
from asymlib.study.training.first_stage import first_stage_images, make_first_stage, sample_crops, train_first_stage
from asymlib.study.training.pca import PatchPCA

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


def test_a_killed_quantised_run_continues_bit_for_bit(vq_settings, tmp_path, kept_often, killed_after):
    """Breaks when the codebook's averages are not restored, or k-means runs again."""
    steps = {"encoder_steps": 4, "decoder_steps": 4, "joint_steps": 8, "refine_steps": 4}
    vq_settings = vq_settings.model_copy(update=steps)
    expected = make_first_stage(vq_settings, 0, tmp_path / "whole")
    path = tmp_path / "states" / "resume.pt"
    kept_often(5)
    with killed_after(10):
        make_first_stage(vq_settings, 0, tmp_path / "resumed", path)
    assert sorted(p.name for p in path.parent.iterdir()) == ["resume.pt", "resume.pt.previous"]
    history = make_first_stage(vq_settings, 0, tmp_path / "resumed", path)
    assert stored(tmp_path / "resumed") == stored(tmp_path / "whole")
    assert str(history) == str(expected) and not list(path.parent.iterdir())


SHORT = {"encoder_steps": 10, "decoder_steps": 10, "joint_steps": 20, "refine_steps": 10}


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_a_full_disk_at_the_end_loses_no_training(vq_settings, tmp_path, kept_often, full_disk, monkeypatch, kind):
    """Breaks when the state is removed before the weights are written, or a half-written first stage stays."""
    settings = vq_settings.model_copy(update={"kind": kind} | SHORT)
    expected = make_first_stage(settings, 0, tmp_path / "whole")
    path, out = tmp_path / "states" / "resume.pt", tmp_path / "model"
    kept_often(25)
    with full_disk():
        make_first_stage(settings, 0, out, path)
    assert path.is_file() and not out.exists()
    monkeypatch.setattr(module, "mse_loss", None)  # nothing is trained again: the state is that of the last step
    history = make_first_stage(settings, 0, out, path)
    assert stored(out) == stored(tmp_path / "whole") and str(history) == str(expected)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("fact", ["settings", "seed", "images", "start", "code"])
def test_a_state_of_another_run_is_not_continued(settings, tmp_path, kept_often, monkeypatch, caplog, fact):
    """Breaks when something that decides the result is left out of a state's identity."""
    settings = settings.model_copy(update=dict.fromkeys(SHORT, 1))
    images = first_stage_images(settings, 0)
    path = tmp_path / "resume.pt"

    def run(seed_of_weights=0, seed=0):
        return train_first_stage(build_first_stage(8, 1, 4, seed_of_weights), images, settings, seed, path)

    kept_often(4)
    run()
    run()
    assert not caplog.records
    if fact == "settings":
        settings = settings.model_copy(update={"lr_joint": 1e-4})
    elif fact == "images":
        images = images[::-1]
    elif fact == "code":
        monkeypatch.setattr(module, "code_hash", lambda *more: "other")
    run(seed_of_weights=int(fact == "start"), seed=int(fact == "seed"))
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == f"{path}: a state of another run ({fact}), passed over"


def test_a_photograph_that_is_cut_short_is_left_out(settings, tmp_path, photographs):
    """Breaks when one broken file of a folder, whose header is whole, ends the training before it begins."""
    photographs(tmp_path / "png", 12)
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "png").iterdir():
        Image.open(path).save(tmp_path / "photos" / f"{path.stem}.jpg")
    whole = settings.model_copy(update={"folder": str(tmp_path / "photos"), "procedural": 0})
    before = first_stage_images(whole, 0)
    used = [photograph for photograph in folder_photographs(whole.folder)[0] if photograph.split != "test"]
    assert len(before) == len(used) < 12  # some are held out
    used[1].file.write_bytes(used[1].file.read_bytes()[:3000])
    after = first_stage_images(whole, 0)
    assert all(np.array_equal(a, b) for a, b in zip(after, before[:1] + before[2:], strict=True))


def test_a_run_from_a_trained_one_skips_the_warm_phases(vq_settings, tmp_path):
    build_first_stage(8, 1, 4, seed=3).save_pretrained(tmp_path / "kl")
    update = {"start_from": str(tmp_path / "kl"), "joint_steps": 30, "refine_steps": 20}
    history = make_first_stage(vq_settings.model_copy(update=update), 0, tmp_path / "vq")
    assert [(row["step"], row["phase"]) for row in history] == [(50, "refine")]


def test_the_linear_code_is_its_own_inverse_up_to_what_it_loses():
    images = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = PatchPCA(images, channels=192)
    assert (whole.decode(whole.encode(images)) - images).abs().max() < 1e-4
    errors = [(p.decode(p.encode(images)) - images).square().mean() for p in (PatchPCA(images, c) for c in (1, 4, 16))]
    assert errors[0] > errors[1] > errors[2]
    assert PatchPCA(images).encode(images).std().item() == pytest.approx(1, abs=0.05)

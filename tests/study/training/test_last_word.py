"""The last word's training: the loss falls, a killed run goes on, and the small autoencoders learn."""

import pytest
import torch
from torch.nn.functional import mse_loss

from asymlib.models.last_word import LastWord
from asymlib.study.dataset.artefacts import fixed_codecs, simulate, small_autoencoder
from asymlib.study.params import load_params
from asymlib.study.training.last_word import leave_out, read_edits, train_autoencoder, train_last_word


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 12, 12, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (96, 96), mode="bicubic").clamp(0, 1)
    return (smooth * 255).byte()


@pytest.fixture(scope="module")
def edits(images, first_stage):
    return simulate(fixed_codecs({"first_stage": first_stage}, images), images, {64: 12, 96: 4}, seed=0)


@pytest.fixture(scope="module")
def settings():
    return load_params("smoke").last_word


def test_simulated_edits_are_kept_and_made_anew_where_they_are_of_others(images, first_stage, tmp_path):
    codecs, path = fixed_codecs({"first_stage": first_stage}, images), tmp_path / "edits.safetensors"
    made = read_edits(codecs, images, {64: 2}, 0, path)
    written = path.stat().st_mtime_ns
    again = read_edits(codecs, images, {64: 2}, 0, path)
    assert path.stat().st_mtime_ns == written and again[64].kinds == made[64].kinds
    assert all(torch.equal(a, b) for a, b in zip(again[64][:4], made[64][:4], strict=True))
    assert len(read_edits(codecs, images, {64: 3}, 0, path)[64].photo) == 3


def test_what_is_left_out_has_to_be_there(edits):
    left = leave_out(edits, "jpeg")
    assert 0 < len(left[64].kinds) < 12 and all("jpeg" not in kind for of in left.values() for kind in of.kinds)
    with pytest.raises(ValueError, match="without is one of .*jpeg.*, got 'gif'"):
        leave_out(edits, "gif")


def test_training_beats_the_better_of_two_pastes(edits, settings):
    """Breaks when the units die, as they did with ReLU and unbounded scales: then nothing is better than pasting."""
    curve = train_last_word(LastWord(8), edits, settings.model_copy(update={"steps": 150, "batch": 4, "lr": 5e-3}), 0)
    assert curve[-1]["step"] == 150 and curve[-1]["loss"] < min(0.0, curve[0]["loss"] - 0.1)


def test_a_killed_run_continues_where_it_was(edits, settings, tmp_path, kept_often, killed_after):
    settings = settings.model_copy(update={"steps": 8})
    whole, resumed, path = LastWord(8), LastWord(8), tmp_path / "states" / "resume.pt"
    train_last_word(whole, edits, settings, 0)
    kept_often(2)
    with killed_after(5):
        train_last_word(LastWord(8), edits, settings, 0, tmp_path / "model", path)
    train_last_word(resumed, edits, settings, 0, tmp_path / "model", path)
    saved = LastWord.from_pretrained(tmp_path / "model").state_dict()
    for name, weight in whole.state_dict().items():  # the calibration's solver may differ in the last bit
        torch.testing.assert_close(resumed.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
        assert torch.equal(saved[name], resumed.state_dict()[name])
    assert not path.exists()


def test_a_small_autoencoder_learns(images):
    model = small_autoencoder(4, 8, 8, 0)
    picture = images[:2, :, :64, :64].float() / 127.5 - 1

    def off() -> float:
        with torch.no_grad():
            return float(mse_loss(model.decode(model.encode(picture).latent_dist.mean).sample, picture))

    before = off()
    train_autoencoder(model, images, mse_loss, 80, 0)
    assert off() < 0.6 * before and not model.training

"""The latent diffusion model: its channels, a loss that falls, a wish that can be left out, and a first stage that is
not touched."""

import pytest
import torch

from asymlib.models.first_stage import encode_means
from asymlib.models.inpainter import LatentInpainter, latent_statistics
from asymlib.pixels import to_tensor
from asymlib.study.params import load_params
from asymlib.study.training import inpainter as module
from asymlib.study.training.inpainter import make_edits, make_examples, read_examples, train_inpainter


@pytest.fixture(scope="module")
def examples(first_stage):
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return make_examples(first_stage, images, 2, 0.25, 0)


@pytest.fixture(scope="module")
def inpainter():
    return LatentInpainter.build((16, 32), 1.5, 0)


def test_it_has_the_channels_of_stable_diffusion_s_and_those_of_the_wish(inpainter):
    assert inpainter.denoiser.config.in_channels == 9 + 6 + 8 and inpainter.denoiser.config.out_channels == 4


def test_training_lowers_the_loss_and_leaves_the_first_stage_alone(first_stage, examples, tmp_path):
    before = {k: v.numpy().tobytes() for k, v in first_stage.state_dict().items()}
    settings = load_params("smoke").inpainter.model_copy(update={"steps": 100, "batch": 8, "lr": 3e-3})
    inpainter = LatentInpainter.build(settings.widths, 1.0, 0)
    curve = train_inpainter(inpainter, examples, settings, 0)
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert {k: v.numpy().tobytes() for k, v in first_stage.state_dict().items()} == before
    inpainter.save(tmp_path)
    random_state = torch.get_rng_state()
    again = LatentInpainter.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), random_state)
    masked, mask = examples.masked_latent[:2], examples.mask[:2]
    assert torch.equal(again.sample(masked, mask, 2, 0), inpainter.sample(masked, mask, 2, 0))


def of(inpainter) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in inpainter.denoiser.state_dict().items()}


def new():
    return LatentInpainter.build((16, 32), 1.0, 0)


def test_a_killed_run_continues_bit_for_bit(examples, tmp_path, kept_often, killed_after):
    """Breaks when the optimiser, the moving average or the batches are not restored, or the state stays for ever."""
    settings = load_params("smoke").inpainter.model_copy(update={"steps": 8})
    whole, resumed, path = new(), new(), tmp_path / "states" / "resume.pt"
    train_inpainter(whole, examples, settings, 0)
    kept_often(2)
    with killed_after(5):
        train_inpainter(new(), examples, settings, 0, tmp_path / "model", path)
    train_inpainter(resumed, examples, settings, 0, tmp_path / "model", path)
    assert of(resumed) == of(whole) == of(LatentInpainter.load(tmp_path / "model"))
    assert not list(path.parent.iterdir())


def test_a_transformer_is_trained_saved_resumed_and_sampled_as_a_unet_is(examples, tmp_path, kept_often, killed_after):
    """Breaks when its class is dropped at random, a timestep is not one for each picture, or odd sizes do not fit."""
    settings = load_params("smoke").inpainter.model_copy(update={"steps": 8})
    whole, killed, resumed = (LatentInpainter.build((64,), 1.0, 0, blocks=2) for _ in range(3))
    train_inpainter(whole, examples, settings, 0)
    kept_often(2)
    with killed_after(5):
        train_inpainter(killed, examples, settings, 0, tmp_path / "model", tmp_path / "resume.pt")
    train_inpainter(resumed, examples, settings, 0, tmp_path / "model", tmp_path / "resume.pt")
    again = LatentInpainter.load(tmp_path / "model")
    assert of(whole) == of(resumed) == of(again)
    masked, mask = torch.zeros(1, 4, 5, 7), torch.ones(1, 1, 40, 56)
    assert again.sample(masked, mask, 2, 0, "red", guidance_scale=2.0).shape == (1, 4, 5, 7)


def test_a_full_disk_at_the_end_loses_no_training(examples, tmp_path, kept_often, full_disk, monkeypatch):
    """Breaks when the state is removed before the weights are written, or a half-written model stays."""
    settings = load_params("smoke").inpainter.model_copy(update={"steps": 6})
    whole, resumed, path, out = new(), new(), tmp_path / "states" / "resume.pt", tmp_path / "model"
    expected = train_inpainter(whole, examples, settings, 0)
    kept_often(3)
    with full_disk():
        train_inpainter(new(), examples, settings, 0, out, path)
    assert path.is_file() and not out.exists()
    monkeypatch.setattr(resumed, "predict", None)  # nothing is trained again: the state is that of the last step
    history = train_inpainter(resumed, examples, settings, 0, out, path)
    assert of(resumed) == of(whole) == of(LatentInpainter.load(out)) and history == expected
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("fact", ["settings", "seed", "data", "start", "scaling_factor", "code"])
def test_a_state_of_another_run_is_not_continued(examples, tmp_path, kept_often, monkeypatch, caplog, fact):
    """Breaks when something that decides the result is left out of a state's identity."""
    settings = load_params("smoke").inpainter.model_copy(update={"steps": 2})
    path = tmp_path / "resume.pt"
    kept_often(2)
    for _ in range(2):
        train_inpainter(new(), examples, settings, 0, None, path)
    assert path.is_file() and not caplog.records  # without `out`, nobody has saved the model
    if fact == "settings":
        settings = settings.model_copy(update={"lr": 1e-4})
    elif fact == "data":
        examples = examples._replace(mask=1 - examples.mask)
    elif fact == "code":
        monkeypatch.setattr("asymlib.study.training.inpainter.code_hash", lambda *more: "other")
    other = LatentInpainter.build((16, 32), 1.0 + (fact == "scaling_factor"), int(fact == "start"))
    train_inpainter(other, examples, settings, int(fact == "seed"), None, path)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == f"{path}: a state of another run ({fact}), passed over"


def test_prompt_and_reference_are_each_left_out_half_of_the_time(examples, monkeypatch):
    """Breaks when the model never sees what guidance compares with, or the two are always left out together."""
    inpainter, seen = LatentInpainter.build((16, 32), 1.0, 0), []
    predict = inpainter.predict
    monkeypatch.setattr(inpainter, "predict", lambda *given: seen.append(given[3]) or predict(*given))
    settings = load_params("smoke").inpainter.model_copy(update={"steps": 12, "batch": 16})
    train_inpainter(inpainter, examples, settings, 0)
    prompt, reference = (part.any(1).float() for part in torch.cat(seen).split([6, 8], dim=1))
    assert 0.35 < prompt.mean() < 0.65 and 0.35 < reference.mean() < 0.65
    assert 0.15 < (prompt * reference).mean() < 0.35


def test_examples_describe_what_the_mask_hides(first_stage):
    """Breaks when prompt or reference come from the whole picture, or leave the model without a full mask."""
    images = torch.full((8, 3, 32, 32), 255, dtype=torch.uint8)
    examples = make_examples(first_stage, images, 4, 0.5, 0)
    assert 0 < (examples.mask.amin((1, 2, 3)) == 1).sum() < 32
    assert (examples.prompt == torch.tensor([0.0, 0, 0, 1, 0, 0])).all(1).sum() >= 30
    full = examples.mask.amin((1, 2, 3)) == 1
    assert torch.allclose(examples.reference[full][:, :4], examples.latent[full].mean((2, 3)), atol=1e-5)


def test_the_statistics_of_a_region():
    latent = torch.tensor([[[[1.0, 3, 100]]]])
    assert latent_statistics(latent, torch.tensor([[[[1.0, 1, 0]]]])).tolist() == [[2, 1]]
    assert latent_statistics(latent, torch.zeros(1, 1, 1, 3)).tolist() == [[0, 0]]


def test_an_image_s_sample_does_not_depend_on_its_batch(examples, inpainter):
    masked, mask = examples.masked_latent, examples.mask
    alone, together = inpainter.sample(masked[:1], mask[:1], 2, 7), inpainter.sample(masked[:3], mask[:3], 2, 7)
    assert torch.allclose(alone, together[:1], atol=1e-5)
    assert not torch.allclose(alone, inpainter.sample(masked[:1], mask[:1], 2, 8))


def test_a_dropped_wish_is_no_wish(examples, inpainter):
    masked, mask = examples.masked_latent[:2], examples.mask[:2]
    assert not inpainter.wish(2).any() and torch.equal(inpainter.wish(2), inpainter.wish(2, [None, ""], None))
    plain = inpainter.sample(masked, mask, 2, 0)
    assert torch.allclose(plain, inpainter.sample(masked, mask, 2, 0, guidance_scale=4.0), atol=1e-4)
    assert not torch.allclose(plain, inpainter.sample(masked, mask, 2, 0, "red"), atol=1e-4)
    assert not torch.allclose(plain, inpainter.sample(masked, mask, 2, 0, reference=masked[:1]), atol=1e-4)


def test_guidance_of_one_is_the_conditional_prediction_and_more_goes_beyond_it(examples, inpainter):
    latent, t = examples.latent[:2], torch.tensor(500)
    known, wish = inpainter.known(examples.masked_latent[:2], examples.mask[:2]), inpainter.wish(2, "blue")
    plain, conditional = (inpainter.predict(latent, t, known, w) for w in (inpainter.wish(2), wish))
    assert torch.equal(inpainter.predict(latent, t, known, wish, 1.0), conditional)
    assert torch.allclose(inpainter.predict(latent, t, known, wish, 0.0), plain, atol=1e-6)
    assert torch.allclose(inpainter.predict(latent, t, known, wish, 3.0), plain + 3 * (conditional - plain), atol=1e-5)


def test_a_full_mask_ignores_the_image(examples, inpainter):
    """Exactly, whatever is passed as its latent; one known pixel is enough to be heard."""
    masked, full = examples.masked_latent[:2], torch.ones_like(examples.mask[:2])
    assert torch.equal(inpainter.sample(masked, full, 2, 0), inpainter.sample(masked + 1, full, 2, 0))
    full[..., 0, 0] = 0
    assert not torch.equal(inpainter.sample(masked, full, 2, 0), inpainter.sample(masked + 1, full, 2, 0))


def test_a_wish_that_does_not_fit_is_named(inpainter):
    with pytest.raises(ValueError, match="prompt: got 3, expected 1 or as many as the 2 images"):
        inpainter.wish(2, ["red", "blue", None])
    with pytest.raises(ValueError, match="reference: got 3, expected 1"):
        inpainter.wish(2, None, torch.zeros(3, 4, 2, 2))


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="inpainter .* is missing; .*stage inpainter makes it"):
        LatentInpainter.load(tmp_path)


def test_edits_are_training_crops_with_a_hole_that_the_model_filled(first_stage, crops, inpainter):
    """Breaks when image, mask and latent of an edit do not belong together, or a mask is full."""
    edits = make_edits(first_stage, inpainter, crops, 5, 2, 0)
    assert len(edits.image) == min(5, len(crops.image)) == len({image.numpy().tobytes() for image in edits.image})
    known = {image.numpy().tobytes() for image in crops.image}
    assert all(image.numpy().tobytes() in known for image in edits.image)
    assert edits.mask.amax((1, 2, 3)).all() and not edits.mask.amin((1, 2, 3)).any()
    masked = encode_means(first_stage, (1 - edits.mask) * to_tensor(edits.image))
    assert torch.equal(edits.latent, inpainter.sample(masked, edits.mask.float(), 2, 0))


def test_the_loss_is_weighted_in_the_hole_and_by_the_noise(examples, monkeypatch):
    """Breaks when a weight falls on the known cells, or is not that of the example's own timestep."""
    monkeypatch.setattr(module, "mse_loss", lambda given, target, reduction: 0 * given + 1)  # so the loss is the weight

    def weight(**settings):
        settings = load_params("smoke").inpainter.model_copy(update={"steps": 1, "batch": 64} | settings)
        return train_inpainter(new(), examples, settings, 0)[0]["loss"]

    assert weight() == 1
    heavier = [weight(hole_weight=w) for w in (2, 3)]
    assert 1 < heavier[0] < 2 and heavier[1] - 1 == pytest.approx(2 * (heavier[0] - 1))
    assert weight(hole_weight=0) == pytest.approx(2 - heavier[0])
    share = new().scheduler.alphas_cumprod.mean().item()  # SNR / (SNR + 1), averaged over the timesteps
    assert weight(snr_gamma=1e9) == pytest.approx(share, abs=0.15)
    assert 0 < weight(snr_gamma=1) < weight(snr_gamma=5) < weight(snr_gamma=1e9)


def test_examples_are_encoded_once_for_a_training_that_is_resumed(first_stage, tmp_path, monkeypatch):
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    settings = load_params("smoke").inpainter.model_copy(update={"flips": True})
    path, made = tmp_path / "examples.safetensors", []
    monkeypatch.setattr(module, "make_examples", lambda *given: made.append(given) or make_examples(*given))
    first = read_examples(first_stage, images, settings, 0, path)
    assert len(first.latent) == 8 and torch.equal(made[0][1][4:], images.flip(-1))
    again = read_examples(first_stage, images, settings, 0, path)
    assert len(made) == 1 and all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in ({"seed": 1}, {"images": images.flip(0)}, {"settings": settings.model_copy(update={"flips": False})}):
        given = {"images": images, "settings": settings, "seed": 0} | other
        read_examples(first_stage, path=path, **given)
    assert len(made) == 4


def test_known_cells_that_are_put_back_end_as_they_were(first_stage, examples):
    """Breaks when they are put back at some steps only, or the hole is put back as well."""
    inpainter, own = new(), examples.latent[:2]
    mask = torch.zeros_like(examples.mask[:2])
    mask[..., 8:24, 8:24] = 1
    hole = torch.nn.functional.interpolate(mask.float(), size=own.shape[-2:], mode="nearest").expand_as(own) > 0
    left = inpainter.sample(examples.masked_latent[:2], mask, 3, 0)
    blended = inpainter.sample(examples.masked_latent[:2], mask, 3, 0, keep=own)
    torch.testing.assert_close(blended[~hole], own[~hole])
    assert (left[~hole] - own[~hole]).abs().mean() > 0.1
    assert (blended[hole] - own[hole]).abs().mean() > 0.1 and not torch.equal(blended[hole], left[hole])


def test_the_bundled_model_is_refused_on_another_first_stage(first_stage):
    if not (module.pretrained("first_stage").parent / "inpainter").is_dir():
        pytest.skip("no diffusion model ships yet")
    with pytest.raises(
        ValueError, match="inpainter.source: got 'bundled' with another first stage .* expected 'train'"
    ):
        module.bundled_inpainter(first_stage)

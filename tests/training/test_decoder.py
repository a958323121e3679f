"""The training loop: what it changes, what it never changes, and that a killed run loses nothing."""

from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState

from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.models.decoder import AsymmetricVQGAN, load_vqgan
from asymlib.models.first_stage import encode_means
from asymlib.pixels import to_tensor
from asymlib.study.params import load_params
from asymlib.training import decoder
from asymlib.training.decoder import Validation, batches, decode_macs, train_decoder
from asymlib.training.latents import Edits
from asymlib.training.schedules import warmup_then_cosine


def settings(**changes):
    small = {"steps": 6, "batch": 2, "warmup": 1, "validate_every": 3, "perceptual_weight": 0.0, "gan_start": None}
    return replace(load_params("smoke").training["base"], **small | changes)


@pytest.fixture
def validation(first_stage, crops):
    image = to_tensor(crops.image[:2])
    mask = torch.zeros(2, 1, 32, 32)
    mask[..., 8:20, 8:20] = 1
    return Validation(image, encode_means(first_stage, image), mask)


def train(vqgan, crops, validation, resume_path=None, inherits=True, out=None, **changes):
    return train_decoder(vqgan, crops, settings(**changes), validation, 0, inherits, out, resume_path, "data")


def bytes_of(module):
    return {k: v.numpy().tobytes() for k, v in module.state_dict().items()}


@pytest.mark.parametrize("gan_start", [None, 2])
def test_not_one_byte_of_the_first_stage_changes(base, first_stage, crops, validation, gan_start):
    """Breaks when the encoder, `quant_conv` or `post_quant_conv` is trained."""
    train(base, crops, validation, gan_start=gan_start)
    for part in ("encoder", "quant_conv", "post_quant_conv"):
        assert bytes_of(getattr(base, part)) == bytes_of(getattr(first_stage, part))
        assert not any(p.requires_grad or p.grad is not None for p in getattr(base, part).parameters())
    changed = bytes_of(base.decoder)
    assert all(changed[k] != v for k, v in bytes_of(first_stage.decoder).items() if k == "conv_out.weight")


def test_a_trunk_of_rate_0_is_not_trained(first_stage, crops, validation):
    """Breaks when Adam gets the frozen weights, or the branch is frozen with them."""
    vqgan = asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), True, True, 0, {"blend": "gate"})
    before = bytes_of(vqgan.decoder)
    train(vqgan, crops, validation, lr_inherited=0.0, ring_weight=5.0)
    changed = {k for k, v in bytes_of(vqgan.decoder).items() if v != before[k]}
    assert changed and all(name.startswith("condition_encoder") for name in changed)
    with pytest.raises(ValueError, match="gan_start: got 2, expected null"):
        train(vqgan, crops, validation, lr_inherited=0.0, gan_start=2)


def test_edits_take_the_place_of_own_latents(crops):
    """Breaks when image, latent and mask of an edit come from different ones, or the share is not kept to."""
    n, size = len(crops.image), crops.image.shape[-1]
    level = torch.arange(n).view(n, 1, 1, 1)
    edits = Edits(
        (255 * level / n).byte().expand(n, 3, size, size),
        level.float().expand(n, 4, size // 8, size // 8),
        (level % 2).byte().expand(n, 1, size, size),
    )
    given = crops._replace(edits=edits)
    image, latent, mask, _ = next(batches(given, settings(batch=64, inpainted_share=1.0), 0, 0))
    number = latent[:, 0, 0, 0]
    assert (mask[:, 0, 0, 0] == number % 2).all()
    assert torch.allclose(image[:, 0, 0, 0], (255 * number / n).floor() / 127.5 - 1)
    own = next(batches(crops, settings(batch=64), 0, 0))[1]
    mixed = next(batches(given, settings(batch=64, inpainted_share=0.5), 0, 0))[1]
    assert 16 < (own == mixed).all((1, 2, 3)).sum() < 48


def test_shares_without_edits_are_refused(base, crops, validation):
    with pytest.raises(ValueError, match="inpainted_share: got 0.5, expected 0 without edits"):
        train(base, crops, validation, inpainted_share=0.5)


def test_training_lowers_the_known_pixels_error(base, crops, validation):
    history = train(base, crops, validation, steps=60, ema=None, validate_every=60)
    assert history[-1]["pre_error"] < 0.5 * history[0]["pre_error"]


def fresh(first_stage, seed=0):
    return asymmetric_vqgan(first_stage, 8, 2, branch=True, inherit=True, seed=seed)


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("gan_start", [None, 2])
def test_a_killed_run_continues_bit_for_bit(
    first_stage, crops, validation, tmp_path, kept_often, killed_after, gan_start, torn
):
    """Breaks when an optimiser, the moving average, the discriminator or the batches are not restored, or a state that
    was cut short ends the run."""
    whole, killed, resumed = (fresh(first_stage) for _ in range(3))
    expected = train(whole, crops, validation, gan_start=gan_start)
    path = tmp_path / "resume.pt"
    kept_often(2)
    with killed_after(4):
        train(killed, crops, validation, path, gan_start=gan_start)
    if torn:
        path.write_bytes(path.read_bytes()[:1000])
    history = train(resumed, crops, validation, path, out=tmp_path / "model", gan_start=gan_start)
    assert bytes_of(resumed) == bytes_of(whole) == bytes_of(load_vqgan(tmp_path / "model"))
    assert str(history) == str(expected) and [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_continued_run_begins_at_the_step_of_its_state(first_stage, crops, tmp_path, kept_often, killed_after):
    """Breaks when steps are done twice, or a finished run whose model is not saved is trained further."""
    starts = []
    path = tmp_path / "resume.pt"

    def source(start):
        starts.append(start)
        return batches(crops, settings(), 0, start)

    kept_often(2)
    with killed_after(5):
        train(fresh(first_stage), source, None, path)
    first, again = fresh(first_stage), fresh(first_stage)
    train(first, source, None, path)
    assert path.is_file()  # nobody has saved the model
    train(again, source, None, path)
    assert starts == [0, 4, 6] and bytes_of(again) == bytes_of(first)


CHANGES = {
    "settings": {"lr_branch": 1e-3},
    "perceptual": {"perceptual": "none"},
    "seed": {"seed": 1},
    "inherits": {"inherits": False},
    "data": {"data_hash": "other"},
    "start": {},
    "code": {},
}


@pytest.mark.parametrize("fact", CHANGES)
def test_a_state_of_another_run_is_not_continued(first_stage, crops, tmp_path, kept_often, monkeypatch, caplog, fact):
    """Breaks when something that decides the result is left out of a state's identity."""
    starts = []

    def source(start):
        starts.append(start)
        return batches(crops, settings(steps=2), 0, start)

    def run(seed_of_weights=0, seed=0, inherits=True, data_hash="data", **changes):
        given = settings(**{"steps": 2} | changes)
        path = tmp_path / "resume.pt"
        train_decoder(fresh(first_stage, seed_of_weights), source, given, None, seed, inherits, None, path, data_hash)

    kept_often(2)
    run()
    run()
    assert starts == [0, 2] and not caplog.records
    if fact == "code":
        monkeypatch.setattr(decoder, "code_hash", lambda: "other")
    run(**CHANGES[fact], seed_of_weights=int(fact == "start"))
    assert starts == [0, 2, 0]
    (line,) = (record.getMessage() for record in caplog.records)
    named = "settings" if fact == "perceptual" else fact
    assert line == f"{tmp_path / 'resume.pt'}: a state of another run ({named}), passed over"


def test_a_full_disk_at_the_end_loses_no_training(
    first_stage, crops, validation, tmp_path, kept_often, killed_after, full_disk
):
    """Breaks when the state is removed before the weights are written, or a half-written model stays."""
    whole, failed, resumed = (fresh(first_stage) for _ in range(3))
    expected = train(whole, crops, validation, gan_start=2)
    path, out = tmp_path / "states" / "resume.pt", tmp_path / "model"
    kept_often(4)
    with full_disk():
        train(failed, crops, validation, path, out=out, gan_start=2)
    assert path.is_file() and not out.exists()
    history = train(resumed, crops, validation, path, out=out, gan_start=2)
    assert bytes_of(resumed) == bytes_of(load_vqgan(out)) == bytes_of(whole) and str(history) == str(expected)
    assert not list(path.parent.iterdir())


def test_the_distance_of_the_loss_is_that_of_the_settings(base, crops, monkeypatch):
    """Breaks when another one is used than the settings name, or one is built that has no weight."""
    asked = []

    def perceptual_loss(which, device):
        asked.append(which)
        return None if which == "none" else lambda image, reference: (image - reference).square().mean((1, 2, 3))

    monkeypatch.setattr(decoder, "perceptual_loss", perceptual_loss)
    with_distance = train(base, crops, None, steps=1, perceptual="lpips_vgg", perceptual_weight=5.0)
    without = train(base, crops, None, steps=1, perceptual="lpips_vgg")
    assert asked == ["lpips_vgg", "none"] and with_distance[-1]["loss"] > without[-1]["loss"]


def test_a_missing_distance_ends_the_run_before_its_first_step(base, crops, monkeypatch, tmp_path):
    """Breaks when the run goes on with another distance, or with none."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    before = bytes_of(base)
    with pytest.raises(FileNotFoundError, match="VGG16 .* is missing"):
        train(base, crops, None, perceptual="lpips_vgg", perceptual_weight=1.0)
    assert bytes_of(base) == before


def test_without_a_validation_batch_the_curve_has_the_loss_alone(base, crops):
    history = train(base, crops, None)
    assert [row["step"] for row in history] == [0, 3, 6] and all(set(row) == {"step", "loss"} for row in history)


def test_the_branch_and_the_trunk_learn_at_their_own_rates(base):
    """Officially the branch is new and everything else of the base is inherited; together they are the decoder."""
    groups = base.branch_and_trunk()
    assert {id(p) for p in groups["branch"]} == {id(p) for p in base.decoder.condition_encoder.parameters()}
    assert {id(p) for part in groups.values() for p in part} == {id(p) for p in base.decoder.parameters()}


def test_only_the_branch_moves_where_inherited_weights_have_rate_zero(base, first_stage, crops, validation):
    train(base, crops, validation, lr_inherited=0.0, ema=None)
    before = bytes_of(first_stage.decoder)
    after = bytes_of(base.decoder)
    assert all(after[k] == v for k, v in before.items())


def test_batches_depend_on_seed_and_step_alone_and_half_of_the_masks_are_full(crops):
    whole = batches(crops, settings(batch=8), 0, 0)
    first = [next(whole) for _ in range(60)]
    again = next(batches(crops, settings(batch=8), 0, 5))
    assert all(torch.equal(a, b) for a, b in zip(first[5], again, strict=True))
    full = torch.cat([mask.flatten(1).min(1).values for _, _, mask, _ in first])
    assert full.mean().item() == pytest.approx(0.5, abs=0.1)


def test_latents_are_sampled_from_the_posterior(crops):
    """Breaks when the mean is used: officially training samples."""
    _, latent, _, kl = next(batches(crops, settings(batch=2), 0, 0))
    assert kl > 0 and not any(torch.equal(latent[0], mean) for mean in crops.moments.chunk(2, 1)[0])


def test_a_loss_that_is_not_finite_stops_with_its_step(base, crops, validation):
    with torch.no_grad():
        base.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="loss: got nan at step 0"):
        train(base, crops, validation)


def test_macs_are_those_of_the_paper():
    """diffusers' port has 386.5 GMAC for the full-size base with its condition at 256 px, 311.1 without a branch."""
    for branch, expected in ((True, 386.5), (False, 311.1)):
        with torch.device("meta"):
            model = AsymmetricVQGAN(branch=branch)
            assert decode_macs(model, 256) / 1e9 == pytest.approx(expected, abs=0.1)


def test_the_discriminator_s_schedule_starts_with_the_gan(base, crops, validation, monkeypatch):
    """Breaks when it starts at the decoder's rate: officially its rate is zero, then warms up on its own."""
    asked = []
    monkeypatch.setattr(decoder, "warmup_then_cosine", lambda *args: asked.append(args) or warmup_then_cosine(*args))
    train(base, crops, validation, gan_start=3, lr_floor=0.5)
    assert [args for args in asked if args[1] == 3] == [(0, 3, 1, 0.5), (1, 3, 1, 0.5), (2, 3, 1, 0.5)]
    assert [args[0] for args in asked if args[1] == 6] == list(range(6))


def test_mixed_precision_computes_in_half_and_keeps_the_weights_whole(base, first_stage, crops, validation):
    """Breaks when the decoder is called past the wrapper that casts, or stays wrapped afterwards."""
    used, whole = [], asymmetric_vqgan(first_stage, 8, 2, branch=True, inherit=True, seed=0)
    base.decoder.conv_out.register_forward_hook(lambda module, _, out: used.append((base.decoder.training, out.dtype)))
    expected = train(whole, crops, validation, gan_start=2)
    AcceleratorState._reset_state(reset_partial_state=True)  # one precision for each process, otherwise
    history = train(base, crops, validation, gan_start=2, mixed_precision="bf16")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert {dtype for training, dtype in used if training} == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in base.parameters())
    assert history[-1]["loss"] == pytest.approx(expected[-1]["loss"], rel=0.05)
    assert torch.equal(base(validation.latent), base.decode(validation.latent))

"""The training loop: what it changes, what it never changes, and that a killed run loses nothing."""

import pytest
import torch
from accelerate.state import AcceleratorState

from asymlib.data.images import to_tensor
from asymlib.data.latents import Edits, encode_means, swap_holes
from asymlib.evaluation.metrics import curve_point
from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.params import load_params
from asymlib.training import checkpoints, decoder
from asymlib.training.decoder import Validation, batches, decode_macs, learning_rate, train_decoder


def settings(**changes):
    small = {"steps": 6, "batch": 2, "warmup": 1, "validate_every": 3, "perceptual_weight": 0.0, "gan_start": None}
    return load_params("smoke").training["base"].model_copy(update=small | changes)


def perceptual(image, reference):
    return (image - reference).square().mean((1, 2, 3))


@pytest.fixture
def validation(first_stage, crops):
    image = to_tensor(crops.image[:2])
    mask = torch.zeros(2, 1, 32, 32)
    mask[..., 8:20, 8:20] = 1
    return Validation(image, encode_means(first_stage, image), mask)


def train(vqgan, crops, validation, resume_path=None, inherits=True, **changes):
    return train_decoder(
        vqgan, crops, validation, settings(**changes), 0, perceptual, curve_point, inherits, resume_path, "data"
    )


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


def test_a_swapped_hole_has_the_next_image_in_pixels_and_in_latent_cells():
    """Breaks when only one of the two is swapped, or known pixels are."""
    image, latent = (torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, s, s) for s in (16, 2))
    mask = torch.zeros(3, 1, 16, 16)
    mask[..., 8:] = 1
    swapped, moved = swap_holes(image, latent, mask * torch.tensor([1.0, 0, 1]).view(3, 1, 1, 1), [1, 2, 0])
    assert swapped[:, 0, 0, 0].tolist() == moved[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert swapped[:, 0, 0, -1].tolist() == moved[:, 0, 0, -1].tolist() == [1, 1, 0]


def test_a_trunk_of_rate_0_is_not_trained(first_stage, crops, validation):
    """Breaks when Adam gets the frozen weights, or the branch is frozen with them."""
    condition = {"layers": 0, "copy_known": True, "retouch": 4}
    vqgan = asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), True, True, 0, condition)
    before = bytes_of(vqgan.decoder)
    train(vqgan, crops, validation, lr_inherited=0.0, ring_weight=5.0)
    changed = {k for k, v in bytes_of(vqgan.decoder).items() if v != before[k]}
    assert changed and all(name.startswith("condition_encoder.retouch") for name in changed)
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


@pytest.mark.parametrize("gan_start", [None, 2])
def test_a_killed_run_continues_bit_for_bit(first_stage, crops, validation, tmp_path, monkeypatch, gan_start):
    """Breaks when an optimiser, the moving average, the discriminator or the batches are not restored."""

    def fresh():
        return asymmetric_vqgan(first_stage, 8, 2, branch=True, inherit=True, seed=0)

    whole, killed = fresh(), fresh()
    expected = train(whole, crops, validation, gan_start=gan_start)
    path = tmp_path / "resume.safetensors"
    monkeypatch.setattr(checkpoints.ResumeState.__init__, "__defaults__", (2,))
    real_keep = checkpoints.ResumeState.keep

    def keep_then_die(state, step, history):
        real_keep(state, step, history)
        if step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.ResumeState, "keep", keep_then_die)
    with pytest.raises(KeyboardInterrupt):
        train(killed, crops, validation, path, gan_start=gan_start)
    monkeypatch.setattr(checkpoints.ResumeState, "keep", real_keep)
    resumed = fresh()
    history = train(resumed, crops, validation, path, gan_start=gan_start)
    assert bytes_of(resumed) == bytes_of(whole)
    assert str(history) == str(expected) and not path.exists()


def test_a_state_of_other_settings_is_not_continued(base, first_stage, crops, validation, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.ResumeState.__init__, "__defaults__", (2,))
    monkeypatch.setattr(checkpoints.ResumeState, "clear", lambda state: None)
    train(base, crops, validation, tmp_path / "state.safetensors")
    again = asymmetric_vqgan(first_stage, 8, 2, branch=True, inherit=True, seed=0)
    assert train(again, crops, validation, tmp_path / "state.safetensors", lr_branch=1e-3)[0]["step"] == 0


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


def test_the_schedule_is_warm_up_then_cosine_to_the_floor():
    rates = [learning_rate(i, 100, 10, 0.01) for i in range(100)]
    assert rates[0] == pytest.approx(0.01) and rates[10] == pytest.approx(1) and max(rates) == rates[10]
    assert rates[55] == pytest.approx(0.01 + 0.99 * 0.5) and rates[-1] == pytest.approx(0.01, abs=1e-3)


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
    monkeypatch.setattr(decoder, "learning_rate", lambda *args: asked.append(args) or learning_rate(*args))
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

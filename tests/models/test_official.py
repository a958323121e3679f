"""The official checkpoints' layout, both ways."""

import pytest
import torch

from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.official import load_official, official_state_dict, save_official

SIZES = {
    "narrow": ((8, 16, 32, 32), 1, 4),
    "base": ((128, 256, 512, 512), 2, 32),
    "large_1.5x": ((192, 384, 768, 768), 3, 32),
    "large_2x": ((256, 512, 1024, 1024), 5, 32),
}


def vqgan_of(size, branch=True):
    widths, layers, groups = SIZES[size]
    torch.manual_seed(0)
    encoder = {"down_block_out_channels": widths, "layers_per_down_block": 1} if size == "narrow" else {}
    return AsymmetricVQGAN(
        **encoder, up_block_out_channels=widths, layers_per_up_block=layers, norm_num_groups=groups, branch=branch
    ).eval()


def inputs(size=32):
    torch.manual_seed(1)
    mask = torch.zeros(1, 1, size, size)
    mask[..., 10:20, 8:22] = 1
    return torch.randn(1, 4, size // 8, size // 8), torch.rand(1, 3, size, size) * 2 - 1, mask


def official_file(vqgan, path, **more):
    """A checkpoint with all that the official ones have beside the weights."""
    state = official_state_dict(vqgan) | {
        "decoder.up_layers.0.weight": torch.zeros(3),
        "loss.logvar": torch.zeros(()),
        "loss.discriminator.main.0.weight": torch.zeros(2),
        "model_ema.decay": torch.zeros(()),
    }
    torch.save({"state_dict": state | more, "epoch": 10, "global_step": 120_030}, path)
    return path


@pytest.mark.parametrize("size", SIZES)
def test_every_size_survives_the_three_layouts(size, tmp_path):
    """Breaks when a name is mapped wrongly: the pixels are the same through diffusers' class and the official file."""
    vqgan, (latent, image, mask) = vqgan_of(size), inputs()
    with torch.no_grad():
        expected = [vqgan.decode(latent, image, mask), vqgan.decode(latent)]
        encoded = vqgan.encode(image)
        vae = vqgan.to_diffusers()
        theirs = [vae.decode(latent, image=image, mask=mask).sample, vae.decode(latent).sample]
        for ours, other in zip(expected, theirs, strict=True):
            assert (ours - other).abs().max() < 1e-5
        del vqgan
        again = AsymmetricVQGAN.from_diffusers(vae)
        del vae
        path = official_file(again, tmp_path / "official.ckpt")
        again = load_official(path, SIZES[size][2])
        path.unlink()
        for ours, other in zip(expected, [again.decode(latent, image, mask), again.decode(latent)], strict=True):
            assert torch.equal(ours, other)
        assert torch.equal(encoded, again.encode(image))


def test_a_saved_folder_loads_with_either_library(tmp_path):
    from diffusers import AsymmetricAutoencoderKL

    vqgan, (latent, image, mask) = vqgan_of("narrow"), inputs()
    vqgan.save_pretrained(tmp_path / "ours")
    vae = AsymmetricAutoencoderKL.from_pretrained(tmp_path / "ours")
    vae.save_pretrained(tmp_path / "theirs")
    again = AsymmetricVQGAN.from_pretrained(tmp_path / "theirs").eval()
    with torch.no_grad():
        expected = vqgan.decode(latent, image, mask)
        assert (vae.decode(latent, image=image, mask=mask).sample - expected).abs().max() < 1e-5
        assert torch.equal(again.decode(latent, image, mask), expected)


def test_what_is_dropped_is_named(tmp_path, caplog):
    caplog.set_level("INFO")
    load_official(official_file(vqgan_of("narrow"), tmp_path / "a.ckpt"), 4)
    assert "4 tensors are not needed and dropped: decoder.up_layers, loss, model_ema" in caplog.text


def test_the_decoder_without_condition_is_read_from_its_own_checkpoint(tmp_path):
    vqgan, (latent, _, _) = vqgan_of("narrow", branch=False), inputs()
    save_official(vqgan, tmp_path / "woc.ckpt")
    with torch.no_grad():
        assert torch.equal(load_official(tmp_path / "woc.ckpt", 4).decode(latent), vqgan.decode(latent))


class Payload:
    """Something that only a pickle can hold."""


@pytest.mark.parametrize(
    "write, message",
    [
        (
            lambda p: official_file(vqgan_of("narrow"), p, **{"decoder.extra.weight": torch.zeros(1)}),
            "unknown 'decoder.extra",
        ),
        (
            lambda p: torch.save({"state_dict": {"encoder.conv_in.weight": torch.zeros(1)}}, p),
            "expected a state dict with",
        ),
        (
            lambda p: torch.save({"state_dict": {}, "code": Payload()}, p),
            "expected a file that loads with weights_only",
        ),
        (lambda p: p.write_text("no"), "expected a file that loads with weights_only"),
        (
            lambda p: torch.save(
                {k: v for k, v in official_state_dict(vqgan_of("narrow")).items() if k != "decoder.conv_out.bias"}, p
            ),
            "lacks 'decoder.conv_out.bias'",
        ),
    ],
)
def test_a_file_that_is_not_one_is_refused_in_one_sentence(write, message, tmp_path):
    write(tmp_path / "file.ckpt")
    with pytest.raises(ValueError, match=message) as caught:
        load_official(tmp_path / "file.ckpt", 4)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: got .*nothing.ckpt"):
        load_official(tmp_path / "nothing.ckpt")

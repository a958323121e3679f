"""An asymmetric decoder on every kind of frozen autoencoder that diffusers has, read from its config."""

import pytest
import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderKL, AutoencoderTiny, VQModel

from asymlib.models.construction import asymmetric_vqgan, scaled_size, vanilla_size
from asymlib.models.decoder import load_vqgan

LEVELS = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (8, 16, 32, 32),
    "norm_num_groups": 4,
}
FIRST_STAGES = {
    "stable_diffusion_1": lambda: AutoencoderKL(**LEVELS),
    "sdxl": lambda: AutoencoderKL(**LEVELS, scaling_factor=0.13025, force_upcast=True),
    "sdxl_statistics": lambda: AutoencoderKL(**LEVELS, latents_mean=(1.0, 2, 3, 4), latents_std=(2.0, 3, 4, 5)),
    "flux": lambda: AutoencoderKL(
        **LEVELS,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=True,
    ),
    "three_levels": lambda: AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 24),
        norm_num_groups=4,
        mid_block_add_attention=False,
    ),
    "vq": lambda: VQModel(**LEVELS, num_vq_embeddings=16, latent_channels=4, vq_embed_dim=3),
    "tiny": lambda: AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    ),
}


@pytest.fixture(params=FIRST_STAGES)
def first_stage(request):
    torch.manual_seed(0)
    return FIRST_STAGES[request.param]().eval()


def on(first_stage, scale="base", inherit=None):
    inherit = not isinstance(first_stage, AutoencoderTiny) if inherit is None else inherit
    return asymmetric_vqgan(first_stage, *scaled_size(first_stage, scale), branch=True, inherit=inherit, seed=0)


def image_and_mask():
    torch.manual_seed(1)
    mask = torch.zeros(32, 32)
    mask[8:20, 8:24] = 1
    return torch.rand(2, 3, 32, 32) * 2 - 1, mask


@torch.no_grad()
def test_the_encoder_is_the_first_stage_s_and_the_base_starts_as_its_decoder(first_stage):
    """Breaks when a config value is assumed, or a tensor not copied."""
    vqgan, (image, _) = on(first_stage), image_and_mask()
    encoded = first_stage.encode(image)
    latent = encoded.latent_dist.mean if isinstance(first_stage, AutoencoderKL) else encoded.latents
    assert torch.equal(vqgan.encode(image), latent)
    if not isinstance(first_stage, AutoencoderTiny):
        assert torch.equal(vqgan.decode(latent), first_stage.decode(latent).sample)


@torch.no_grad()
@pytest.mark.parametrize("scale", ["base", "large_1.5x", "large_2x"])
def test_every_scale_decodes_with_a_condition(first_stage, scale):
    vqgan, (image, mask) = on(first_stage, scale, inherit=False), image_and_mask()
    latent = vqgan.encode(image)
    image_hat = vqgan.decode(latent, image, mask)
    assert image_hat.shape == image.shape and not torch.equal(image_hat, vqgan.decode(latent))


@torch.no_grad()
def test_saving_and_loading_keeps_everything(first_stage, tmp_path):
    vqgan, (image, mask) = on(first_stage), image_and_mask()
    vqgan.save_pretrained(tmp_path)
    again, latent = load_vqgan(tmp_path), vqgan.encode(image)
    assert torch.equal(again.encode(image), latent)
    assert torch.equal(again.decode(latent, image, mask), vqgan.decode(latent, image, mask))
    assert torch.equal(again.scale(latent), vqgan.scale(latent))


def test_not_a_tensor_of_the_frozen_part_is_trainable(first_stage):
    vqgan = on(first_stage)
    trainable = {name for name, p in vqgan.named_parameters() if p.requires_grad}
    assert trainable == {f"decoder.{name}" for name, _ in vqgan.decoder.named_parameters()}


def test_scaling_is_that_of_diffusers_pipelines():
    """SD3 and FLUX shift before they scale; SDXL may have a mean and a deviation for each channel."""
    latent = torch.ones(1, 4, 1, 1)
    vqgan = on(FIRST_STAGES["sdxl_statistics"]())
    scaled = vqgan.scale(latent)
    assert scaled.flatten().tolist() == pytest.approx(
        [0.18215 * (1 - m) / s for m, s in ((1, 2), (2, 3), (3, 4), (4, 5))]
    )
    assert torch.allclose(vqgan.unscale(scaled), latent)
    flux = on(FIRST_STAGES["flux"]())
    assert flux.scale(torch.ones(1, 16, 1, 1)).mean().item() == pytest.approx((1 - 0.1159) * 0.3611)
    assert flux.unscale(flux.scale(torch.full((1, 16, 1, 1), 2.0))).mean().item() == pytest.approx(2)


def test_only_an_autoencoder_that_says_so_is_upcast():
    """The class fills in `force_upcast: true`, also for Stable Diffusion 1, whose config does not have it."""
    assert (
        on(FIRST_STAGES["sdxl"]()).config.force_upcast
        and not on(FIRST_STAGES["stable_diffusion_1"]()).config.force_upcast
    )


@torch.no_grad()
def test_a_vq_latent_is_quantised_before_it_is_decoded():
    """Breaks when the codebook is left out: latents in one code's cell decode to the same picture."""
    first_stage = FIRST_STAGES["vq"]().eval()
    first_stage.quantize.embedding.weight.data.mul_(100)
    vqgan, (image, mask) = on(first_stage), image_and_mask()
    latent = vqgan.encode(image)
    assert torch.allclose(vqgan.decode(latent, image, mask), vqgan.decode(latent + 1e-4, image, mask), atol=1e-5)
    assert torch.allclose(vqgan.decode(latent), vqgan.decode(vqgan.quantize(latent)[0]), atol=1e-5)


def test_what_does_not_fit_is_not_inherited_and_is_listed(caplog):
    first_stage = FIRST_STAGES["stable_diffusion_1"]()
    vqgan = asymmetric_vqgan(first_stage, 8, 3, branch=True, inherit=True, seed=0)
    assert "up_blocks.0.resnets.2" in caplog.text and "conv_in" not in caplog.text
    assert torch.equal(vqgan.decoder.conv_in.weight, first_stage.decoder.conv_in.weight)


def test_what_a_first_stage_cannot_do_is_said_at_construction():
    with pytest.raises(ValueError, match="inherit: got an AutoencoderTiny, whose decoder has another layout"):
        on(FIRST_STAGES["tiny"](), inherit=True)
    movq = VQModel(norm_type="spatial")
    with pytest.raises(ValueError, match="first_stage: got norm_type 'spatial'"):
        on(movq)
    with pytest.raises(ValueError, match="first_stage: got AsymmetricAutoencoderKL, expected AutoencoderKL"):
        vanilla_size(AsymmetricAutoencoderKL())


@pytest.mark.parametrize("name", ["flux", "vq", "tiny"])
def test_diffusers_class_is_refused_where_it_cannot_hold_the_decoder(name):
    with pytest.raises(ValueError, match="first_stage: got an? Auto|first_stage: got an? VQ"):
        on(FIRST_STAGES[name]()).to_diffusers()

"""The asymmetric decoder is the official architecture, and known pixels are made by two convolutions."""

import pytest
import torch
from diffusers import AsymmetricAutoencoderKL
from torch import nn

from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.models.decoder import AsymmetricVQGAN, load_vqgan
from asymlib.models.first_stage import build_first_stage
from asymlib.models.interchange import AsymmetricVAE


def narrow_vqgan(**config):
    narrow = {"down_block_out_channels": (8, 16, 32, 32), "up_block_out_channels": (8, 16, 32, 32)}
    return AsymmetricVQGAN(
        **(narrow | {"layers_per_down_block": 1, "layers_per_up_block": 1, "norm_num_groups": 4} | config)
    )


@pytest.fixture
def vqgan():
    torch.manual_seed(0)
    return narrow_vqgan().eval()


def inputs(n=2, size=32):
    torch.manual_seed(1)
    mask = torch.zeros(n, 1, size, size)
    mask[..., 10:20, 8:22] = 1
    return torch.randn(n, 4, size // 8, size // 8), torch.rand(n, 3, size, size) * 2 - 1, mask


@pytest.mark.parametrize("width, blocks, total", [(128, 3, 94_439_911), (192, 4, 194_300_519), (256, 6, 406_130_151)])
def test_full_size_parameter_counts_equal_the_paper(width, blocks, total):
    """Breaks when a layer is added, dropped or resized."""
    with torch.device("meta"):
        model = AsymmetricVQGAN(
            up_block_out_channels=(width, 2 * width, 4 * width, 4 * width), layers_per_up_block=blocks - 1
        )
    assert sum(p.numel() for p in model.parameters()) == total


@pytest.mark.parametrize("masked", [True, False])
def test_decoding_equals_diffusers_port_of_the_official_code(vqgan, masked):
    """Breaks when a blend is removed, moved or inverted."""
    twin = AsymmetricAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        down_block_out_channels=(8, 16, 32, 32),
        layers_per_down_block=1,
        up_block_types=("UpDecoderBlock2D",) * 4,
        up_block_out_channels=(8, 16, 32, 32),
        layers_per_up_block=1,
        norm_num_groups=4,
    )
    twin.load_state_dict({k: v for k, v in vqgan.state_dict().items()})
    latent, image, mask = inputs()
    condition = {"image": image, "mask": mask} if masked else {}
    with torch.no_grad():
        assert (twin.eval().decode(latent, **condition).sample - vqgan.decode(latent, **condition)).abs().max() < 1e-5


def test_a_full_mask_is_decoding_without_a_condition(vqgan):
    """Breaks when the mask's polarity is inverted."""
    latent, image, mask = inputs()
    with torch.no_grad():
        assert torch.equal(vqgan.decode(latent, image, torch.ones_like(mask)), vqgan.decode(latent))


def test_known_pixels_do_not_depend_on_the_latent_beyond_one_pixel(vqgan):
    """Without the last GroupNorm only the last convolution carries the hole outwards, by one pixel."""
    vqgan.decoder.conv_norm_out = nn.Identity()
    latent, image, mask = inputs()
    with torch.no_grad():
        change = (vqgan.decode(latent, image, mask) - vqgan.decode(latent + 1, image, mask)).abs().amax(1, keepdim=True)
    reach = nn.functional.max_pool2d(mask, 3, 1, 1)
    assert change[reach == 0].max() == 0 and change[mask == 1].max() > 0


def test_hole_pixels_of_the_image_are_never_seen(vqgan):
    """Breaks when the branch is given the whole image."""
    latent, image, mask = inputs()
    with torch.no_grad():
        assert torch.equal(
            vqgan.decode(latent, image, mask), vqgan.decode(latent, image * (1 - mask) + 0.7 * mask, mask)
        )


def test_one_photo_serves_many_latents_and_any_size(vqgan):
    latent, image, mask = torch.randn(3, 4, 5, 4), torch.rand(1, 3, 37, 30) * 2 - 1, torch.zeros(37, 30)
    mask[5:9, 5:9] = 1
    with torch.no_grad():
        assert vqgan.decode(latent, image, mask).shape == (3, 3, 37, 30)


def test_the_base_starts_as_the_vanilla_decoder_and_copies_the_encoder():
    """Breaks when a tensor is not inherited: without a condition the base must be the first stage, bit for bit."""
    first_stage = build_first_stage(8, 1, 4).eval()
    width, blocks = scaled_size(first_stage, "base")
    vqgan = asymmetric_vqgan(first_stage, width, blocks, branch=True, inherit=True, seed=0)
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        latent = first_stage.encode(image).latent_dist.mean
        assert torch.equal(vqgan.encode(image), latent)
        assert torch.equal(vqgan.decode(latent), first_stage.decode(latent).sample)


def test_saving_and_loading_gives_the_same_pixels(vqgan, tmp_path):
    vqgan.save_pretrained(tmp_path)
    latent, image, mask = inputs()
    with torch.no_grad():
        assert torch.equal(
            AsymmetricVQGAN.from_pretrained(tmp_path).decode(latent, image, mask), vqgan.decode(latent, image, mask)
        )


@pytest.mark.parametrize("upcast", [True, False])
def test_diffusers_class_keeps_whether_half_precision_overflows(upcast, tmp_path):
    """Breaks when SDXL's decoder comes back from diffusers' class without its flag, and overflows."""
    vqgan = narrow_vqgan(force_upcast=upcast).eval()
    vae = vqgan.to_diffusers()
    vae.save_pretrained(tmp_path)
    loaded = AsymmetricVAE.from_pretrained(tmp_path, local_files_only=True)
    assert vae.config.force_upcast is loaded.config.force_upcast is upcast
    for again in (AsymmetricVQGAN.from_diffusers(vae), AsymmetricVQGAN.from_diffusers(loaded), load_vqgan(tmp_path)):
        assert again.config.force_upcast is upcast
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), vqgan.parameters(), strict=True))


def test_a_condition_without_a_branch_is_refused(first_stage):
    """Breaks when a setting that can do nothing is taken silently."""
    with pytest.raises(ValueError, match=r"^condition: got \{'layers': 1\} with branch False, expected None"):
        narrow_vqgan(branch=False, condition={"layers": 1})
    with pytest.raises(ValueError, match=r"^condition: got \{'layers': 1\} with branch False, expected None"):
        asymmetric_vqgan(first_stage, branch=False, condition={"layers": 1})
    assert narrow_vqgan(branch=False).decoder.condition_encoder is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mask": None}, "mask: got None"),
        ({"image": None}, "image: got None"),
        ({"mask": torch.zeros(16, 16)}, "mask"),
        ({"mask": torch.full((32, 32), 255.0)}, "mask"),
        ({"image": torch.full((2, 3, 32, 32), float("nan"))}, "image: got NaN"),
        ({"image": "photo.jpg"}, "image: got str"),
        ({"latent": torch.zeros(2, 3, 4, 4)}, "latent: got"),
        ({"latent": torch.zeros(2, 4, 5, 5)}, "image: got 32 x 32"),
        ({"latent": torch.zeros(3, 4, 4, 4)}, "image: got 2, expected a divisor of the 3 others"),
        ({"latent": [1, 2]}, r"latent: got list, expected a tensor \(N, 4, h, w\)"),
        ({"image": torch.full((2, 3, 32, 32), 255.0)}, r"image: got values from 255 to 255, expected \[-1, 1\]"),
    ],
)
def test_bad_input_is_one_clear_sentence(vqgan, change, message):
    latent, image, mask = inputs()
    with pytest.raises(ValueError, match=message):
        vqgan.decode(**({"latent": latent, "image": image, "mask": mask} | change))

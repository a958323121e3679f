"""Where diffusers' AsymmetricAutoencoderKL fails or is silent, and what ours does: one row a case.

Run with `-rP` to see the table.
"""

import numpy as np
import pytest
import torch
from diffusers import AsymmetricAutoencoderKL

from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.models.first_stage import build_first_stage

WIDTHS = (8, 16, 32, 32)


@pytest.fixture(scope="module")
def pair():
    """The same weights in diffusers' class and in ours."""
    first_stage = build_first_stage(8, 1, 4).eval()
    vqgan = asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), branch=True, inherit=True, seed=0)
    vae = AsymmetricAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        down_block_out_channels=WIDTHS,
        up_block_types=("UpDecoderBlock2D",) * 4,
        up_block_out_channels=WIDTHS,
        norm_num_groups=4,
    )
    vae.load_state_dict(vqgan.state_dict())
    return vae.eval(), vqgan


def case(latents=1, images=1, masks=1, height=32, width=32, kind=None):
    """(latent, image, mask) with a box for a hole; `kind` brings the mask to another type or shape."""
    torch.manual_seed(2)
    latent = torch.randn(latents, 4, -(-height // 8), -(-width // 8))
    image = torch.rand(images, 3, height, width) * 2 - 1
    mask = torch.zeros(masks, 1, height, width)
    for i in range(masks):
        mask[i, :, 8 : 20 + i, 8:20] = 1
    return latent, image, kind(mask) if kind else mask


CASES = {
    # name: inputs, what diffusers' class does, what ours returns (a shape) or says
    "2 latents, 1 image and mask": (case(2), "KeyError", (2, 3, 32, 32)),
    "1 latent, 2 masks": (case(1, 1, 2), "KeyError", (2, 3, 32, 32)),
    "2 latents, 2 images, 1 mask": (case(2, 2, 1), "works", (2, 3, 32, 32)),
    "60 x 65 pixels": (case(height=60, width=65), "KeyError", (1, 3, 60, 65)),
    "bool mask": (case(kind=lambda m: m.bool()), "error", (1, 3, 32, 32)),
    "int64 mask": (case(kind=lambda m: m.long()), "error", (1, 3, 32, 32)),
    "uint8 mask of 0 and 1": (case(kind=lambda m: m.byte()), "works", (1, 3, 32, 32)),
    "uint8 mask of 0 and 255": (case(kind=lambda m: m.byte() * 255), "garbage", "mask: got values from 0 to 255"),
    "float mask of 0 and 255": (case(kind=lambda m: m * 255), "garbage", "mask: got values from 0 to 255"),
    "soft mask": (case(kind=lambda m: 0.5 * m), "works", (1, 3, 32, 32)),
    "(H, W) array": (case(kind=lambda m: m[0, 0].numpy()), "error", (1, 3, 32, 32)),
    "(N, H, W) mask, 2 latents": (case(2, 2, 2, kind=lambda m: m[:, 0]), "error", (2, 3, 32, 32)),
    "mask of three channels": (case(kind=lambda m: m.expand(-1, 3, -1, -1)), "error", "mask: got shape"),
    "mask of the latent's size": (case(kind=lambda m: m[..., ::8, ::8]), "error", "mask: got shape"),
    "float64 mask": (case(kind=lambda m: m.double()), "RuntimeError", (1, 3, 32, 32)),
    "float16 mask": (case(kind=lambda m: m.half()), "works", (1, 3, 32, 32)),
    "mask without an image": ((case()[0], None, case()[2]), "ignored", "image: got None"),
    "image without a mask": ((*case()[:2], None), "ignored", "mask: got None"),
    "mask of ones": (case(kind=torch.ones_like), "works", (1, 3, 32, 32)),
    "mask of zeros": (case(kind=torch.zeros_like), "works", (1, 3, 32, 32)),
    "latent of another size": ((case()[0][..., :3], *case()[1:]), "KeyError", "image: got 32 x 32"),
}


def what_diffusers_does(vae, latent, image, mask) -> str:
    try:
        image_hat = vae.decode(latent, image=image, mask=mask).sample
    except Exception as error:
        return type(error).__name__
    if image is None or mask is None:
        return "ignored" if torch.equal(image_hat, vae.decode(latent).sample) else "works"
    return "garbage" if mask.max() > 1 else "works"


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_ours_works_or_says_why(name, pair):
    """Breaks when a kind of input that users have stops working, or is silently taken for something else."""
    vae, vqgan = pair
    inputs, theirs, ours = CASES[name]
    found = what_diffusers_does(vae, *inputs)
    assert found == theirs or (theirs == "error" and found.endswith("Error"))
    if isinstance(ours, str):
        with pytest.raises(ValueError, match=ours) as caught:
            vqgan.decode(*inputs)
        result = str(caught.value)
    else:
        image_hat = vqgan.decode(*inputs)
        assert image_hat.shape == ours and torch.isfinite(image_hat).all() and image_hat.dtype == torch.float32
        result = f"works, {tuple(image_hat.shape)}"
    print(f"| {name} | {found} | {result} |")


@torch.no_grad()
def test_every_kind_of_mask_means_the_same(pair):
    """Breaks when a type of mask is read in another way than float 0 and 1."""
    _, vqgan = pair
    latent, image, mask = case()
    expected = vqgan.decode(latent, image, mask)
    for kind in (
        mask.bool(),
        mask.byte(),
        mask.long(),
        mask.half(),
        mask.double(),
        mask[0],
        mask[0, 0],
        mask[0, 0].numpy(),
    ):
        assert torch.equal(vqgan.decode(latent, image, kind), expected)


@torch.no_grad()
def test_many_at_once_are_what_they_are_alone(pair):
    """Breaks when an image or a mask is given to the wrong latent."""
    _, vqgan = pair
    latent, image, mask = case(2, 1, 2)
    for i, together in enumerate(vqgan.decode(latent, image, mask)):
        assert (together - vqgan.decode(latent[i : i + 1], image, mask[i : i + 1])[0]).abs().max() < 1e-5


@torch.no_grad()
def test_slicing_changes_nothing(pair):
    _, vqgan = pair
    latent, image, mask = case(3, 3, 3)
    expected = vqgan.decode(latent, image, mask), vqgan.decode(latent)
    vqgan.enable_slicing()
    try:
        for whole, sliced in zip(expected, (vqgan.decode(latent, image, mask), vqgan.decode(latent)), strict=True):
            assert (whole - sliced).abs().max() < 1e-5
    finally:
        vqgan.disable_slicing()


def test_gradient_checkpointing_gives_the_same_gradients(pair):
    """diffusers' class refuses it."""
    vae, vqgan = pair
    with pytest.raises(ValueError):
        vae.enable_gradient_checkpointing()
    inputs, gradients = case(), []
    for enable in (vqgan.disable_gradient_checkpointing, vqgan.enable_gradient_checkpointing):
        enable()
        vqgan.train().zero_grad()
        vqgan.decode(*inputs).square().mean().backward()
        gradients.append([p.grad.clone() for p in vqgan.decoder.parameters()])
    vqgan.disable_gradient_checkpointing()
    vqgan.eval().zero_grad()
    assert all((a - b).abs().max() < 1e-6 for a, b in zip(*gradients, strict=True))


@torch.no_grad()
def test_half_precision_takes_what_it_is_given(pair):
    """A bfloat16 model with a float32 image and mask, which diffusers' class refuses."""
    vae, vqgan = pair
    latent, image, mask = case()
    expected = vqgan.decode(latent, image, mask)
    half = type(vqgan).from_config(vqgan.config).eval()
    half.load_state_dict(vqgan.state_dict())
    image_hat = half.to(torch.bfloat16).decode(latent, image, mask)
    assert image_hat.dtype == torch.bfloat16 and (image_hat - expected).abs().max() < 0.1
    vae.to(torch.bfloat16)
    try:
        with pytest.raises(RuntimeError):
            vae.decode(latent.bfloat16(), image=image.bfloat16(), mask=mask)
    finally:
        vae.to(torch.float32)


@torch.no_grad()
def test_an_autoencoder_that_overflows_in_half_precision_computes_in_single(pair):
    _, vqgan = pair
    upcasting = type(vqgan).from_config(dict(vqgan.config) | {"force_upcast": True}).eval().half()
    assert upcasting.decode(*case()).dtype == torch.float32


@pytest.mark.parametrize("widths", [(32, 48, 64, 64), (16, 16, 16, 16), (8, 16), (8, 16, 16, 16, 16)])
@torch.no_grad()
def test_any_widths_and_levels_have_a_branch_that_fits(widths):
    """diffusers' branch hard-codes doubling and a stride of 16: it fails, or is silently wired wrongly."""
    levels = len(widths)
    vqgan = type_of(widths)
    size = 2 ** (levels - 1) * 4
    latent, image, mask = torch.randn(1, 4, 4, 4), torch.rand(1, 3, size, size), torch.zeros(size, size)
    mask[: size // 2] = 1
    plain, with_condition = vqgan.decode(latent), vqgan.decode(latent, image, mask)
    assert len(vqgan.decoder.condition_encoder.layers) == levels + 1
    assert plain.shape == with_condition.shape == (1, 3, size, size) and not torch.equal(plain, with_condition)
    assert torch.equal(vqgan.decode(latent, image, torch.ones(size, size)), plain)


def type_of(widths):
    from asymlib.models.decoder import AsymmetricVQGAN

    torch.manual_seed(0)
    return AsymmetricVQGAN(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        down_block_out_channels=widths,
        layers_per_down_block=1,
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        up_block_out_channels=widths,
        layers_per_up_block=1,
        norm_num_groups=4,
    ).eval()


def test_a_mask_may_be_an_array_or_a_picture(pair):
    from PIL import Image

    _, vqgan = pair
    latent, image, mask = case()
    picture = Image.fromarray((mask[0, 0].numpy() * 255).astype(np.uint8))
    with torch.no_grad():
        assert torch.equal(vqgan.decode(latent, image, picture), vqgan.decode(latent, image, mask))

"""A decoder in diffusers' own pipelines, end to end: as `vae=`, and through `decode_with`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    StableDiffusionInpaintPipeline,
    UNet2DModel,
)
from PIL import Image

from asymlib.editing.pipelines import decode_with
from asymlib.models import holes
from asymlib.models.construction import asymmetric_vqgan
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.interchange import AsymmetricVAE

SIZE = (64, 48)  # width and height of the photo, and at which the pipelines work
STEPS = {"num_inference_steps": 2}
CALLS = {
    "stable_diffusion_inpaint": {"prompt": "a", "width": 64, "height": 48},
    "stable_diffusion_xl_inpaint": {"prompt": "a", "width": 64, "height": 48},
    "controlnet_inpaint": {"prompt": "a", "control_image": Image.new("RGB", SIZE, "red"), "width": 64, "height": 48},
    "paint_by_example": {"example_image": Image.new("RGB", (40, 40), "blue"), "width": 64, "height": 48},
    "flux_fill": {"prompt": "a", "width": 64, "height": 48, "max_sequence_length": 8},
    "diffedit": {"prompt": "b", "inpaint_strength": 1.0},
}


@dataclass
class Case:
    """A pipeline with an untrained base decoder on its own vae, and what to call it with."""

    pipe: DiffusionPipeline
    vqgan: AsymmetricVQGAN
    photo: Image.Image
    mask: Any
    call: dict[str, Any]

    def decode(self, mask=None, **call) -> np.ndarray:
        mask = self.mask if mask is None else mask
        return pixels(decode_with(self.vqgan, self.pipe, self.photo, mask, **self.call | call, generator=seeded()))

    def run(self, mask=None, **call):
        """The pipeline alone, on the same inputs."""
        pictures = {"image": self.photo, "mask_image": self.mask if mask is None else mask}
        if "image_latents" in self.call:
            del pictures["image"]
        return self.pipe(**pictures, **self.call | call, generator=seeded()).images


def case_of(tiny_pipelines, name: str) -> Case:
    pipe = getattr(tiny_pipelines, name)()
    vqgan = asymmetric_vqgan(pipe.vae, 8, 2, branch=True, inherit=True, seed=0)
    photo = photograph(SIZE)
    mask, call = box(photo.size), CALLS[name] | STEPS
    if name == "diffedit":
        prompts = {"target_prompt": "a", "source_prompt": "b"}
        mask = pipe.generate_mask(photo, **prompts, num_maps_per_mask=1, **STEPS, generator=seeded())
        call["image_latents"] = pipe.invert("b", photo, inpaint_strength=1.0, **STEPS, generator=seeded()).latents
    return Case(pipe, vqgan, photo, mask, call)


@pytest.fixture(scope="module", params=CALLS)
def case(request, tiny_pipelines):
    return case_of(tiny_pipelines, request.param)


@pytest.fixture(scope="module")
def inpaint(tiny_pipelines):
    return case_of(tiny_pipelines, "stable_diffusion_inpaint")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def photograph(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))


def box(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (16, 10, 41, 33))
    return mask


def pixels(images: list[Image.Image]) -> np.ndarray:
    """(N, H, W, 3) int, so that differences have a sign."""
    return np.stack([np.asarray(image) for image in images]).astype(int)


def by_hand(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pipeline's latents decoded with and without a condition, and the mask; each by the pipeline's own code."""
    pipe, config = case.pipe, case.pipe.vae.config
    latent = case.run(output_type="latent", num_images_per_prompt=2)
    if latent.ndim == 3:
        latent = pipe._unpack_latents(latent, SIZE[1], SIZE[0], pipe.vae_scale_factor)
    latent = latent / config.scaling_factor + (config.shift_factor or 0)
    if config.latents_mean:
        mean, std = (torch.tensor(config[key]).view(1, -1, 1, 1) for key in ("latents_mean", "latents_std"))
        latent = latent * std + mean
    image = pipe.image_processor.preprocess(case.photo, SIZE[1], SIZE[0])
    if isinstance(case.mask, Image.Image):
        hole = torch.from_numpy(np.asarray(case.mask) > 127).float()
    else:
        hole = torch.from_numpy(case.mask[0]).float().kron(torch.ones(8, 8))
    with torch.no_grad():
        decoded = [case.vqgan.decode(latent, image, hole), case.vqgan.decode(latent)]
    pictures = (pixels(pipe.image_processor.postprocess(d, output_type="pil")) for d in decoded)
    return *pictures, hole.bool().numpy()


def test_every_pipeline_is_decoded_with_the_known_pixels(case):
    """Breaks when latents are not unpacked or unscaled, image and mask are not at the latent's size, or are dropped."""
    result = case.decode(num_images_per_prompt=2)
    conditioned, unconditioned, hole = by_hand(case)
    assert result.shape == (2, SIZE[1], SIZE[0], 3) and 0 < hole.mean() < 1
    assert (result == pixels([case.photo]))[:, ~hole].all()
    assert np.abs(result - conditioned)[:, hole].max() <= 1
    assert np.abs(result - unconditioned)[:, hole].max() > 5  # the condition was used


def test_an_all_hole_mask_gives_the_pipelines_own_picture(case):
    """An untrained base without known pixels is the vanilla decoder, so any slip in the latents' scale shows."""
    whole = Image.new("L", SIZE, 255) if isinstance(case.mask, Image.Image) else np.ones_like(case.mask)
    assert np.abs(case.decode(whole) - pixels(case.run(whole))).max() <= 1


def test_several_prompts_share_one_image(inpaint):
    assert len(inpaint.decode(prompt=["a", "b"], num_images_per_prompt=2)) == 4


def with_vae(case: Case, vae: AsymmetricVAE) -> Case:
    pipe = StableDiffusionInpaintPipeline(**case.pipe.components | {"vae": vae}, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return Case(pipe, case.vqgan, case.photo, case.mask, case.call)


@pytest.mark.parametrize("count", [1, 2])
def test_as_the_vae_of_stable_diffusion_inpaint_it_gives_the_same_pictures(inpaint, count):
    """Breaks when the images of one prompt do not share image and mask, or the two ways resize them differently."""
    served = with_vae(inpaint, inpaint.vqgan.to_diffusers()).run(num_images_per_prompt=count)
    result, hole = inpaint.decode(num_images_per_prompt=count), np.asarray(inpaint.mask) > 0
    assert len(served) == count and np.abs(result - pixels(served))[:, hole].max() <= 1


def test_a_pipeline_saved_with_its_vae_loads_again(inpaint, tmp_path):
    """Breaks when diffusers cannot find how to load a class of ours."""
    case = with_vae(inpaint, inpaint.vqgan.to_diffusers())
    case.pipe.save_pretrained(tmp_path)
    again = StableDiffusionInpaintPipeline.from_pretrained(tmp_path, local_files_only=True)
    assert isinstance(again.vae, AsymmetricVAE)
    again.set_progress_bar_config(disable=True)
    expected, case.pipe = pixels(case.run(num_images_per_prompt=2)), again
    assert np.array_equal(pixels(case.run(num_images_per_prompt=2)), expected)


def test_fewer_images_serve_the_latents_in_turn_here_and_in_diffusers_class(inpaint):
    """Breaks when half a batch is refused by one and taken by the other, or the two pair pictures differently."""
    torch.manual_seed(0)
    latent, image = torch.randn(4, 4, 4, 4), torch.rand(2, 3, 32, 32)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16] = 1
    theirs = inpaint.vqgan.to_diffusers()
    with torch.no_grad():
        ours = inpaint.vqgan.decode(latent, image, mask)
        assert torch.allclose(ours, inpaint.vqgan.decode(latent, image[[0, 1, 0, 1]], mask), atol=1e-6)
        assert torch.allclose(
            ours, theirs.decode(latent.double(), image=image.double(), mask=mask.bool()).sample, atol=1e-5
        )
    for decode in (inpaint.vqgan.decode, lambda z, i, m: theirs.decode(z, image=i, mask=m)):
        with pytest.raises(ValueError, match="image: got 2, expected a divisor of the 3 others"):
            decode(latent[:3], image, mask)


@pytest.fixture
def free(inpaint):
    """Called with no size: the photo's decides."""
    call = {name: value for name, value in inpaint.call.items() if name not in ("width", "height")}
    return Case(inpaint.pipe, inpaint.vqgan, inpaint.photo, inpaint.mask, call)


@pytest.mark.parametrize("size", [(96, 64), (70, 50), (1, 40), (300, 40)])
def test_a_photo_of_any_size_comes_back_with_its_own_pixels(free, size):
    """Breaks when it comes back squashed to a square, scaled, or with decoded pixels outside the hole."""
    free.photo, hole = photograph(size), np.zeros(size[::-1], bool)
    hole[10:30, : (size[0] + 1) // 2] = True
    result = free.decode(Image.fromarray(hole))
    assert result.shape == (1, *size[::-1], 3)
    assert (result == pixels([free.photo]))[:, ~hole].all()
    assert (result != pixels([free.photo]))[:, hole].mean() > 0.9


def test_metadata_transparency_and_orientation_of_the_photo_are_kept(free, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    stored = photograph((64, 48)).transpose(Image.Transpose.ROTATE_180)
    stored.putalpha(Image.new("L", (64, 48), 128))
    stored.save(tmp_path / "photo.png", exif=exif, dpi=(300, 300))
    free.photo = Image.open(tmp_path / "photo.png")
    [result] = decode_with(free.vqgan, free.pipe, free.photo, free.mask, **free.call, generator=seeded())
    hole, edited = np.asarray(free.mask) > 0, np.asarray(result)
    assert (edited[~hole][:, :3] == np.asarray(photograph((64, 48)))[~hole]).all()
    assert (edited[~hole][:, 3] == 128).all() and (edited[hole][:, 3] == 255).all()
    assert round(result.info["dpi"][0]) == 300


def test_a_soft_mask_fades_to_the_photo(free):
    """Breaks when it is cut at half: the fade is the mixture of photo and edit that the mask says."""
    hole = np.asarray(free.mask) > 0
    whole = free.decode(Image.fromarray(hole.astype(np.uint8) * 255))
    soft = free.decode(np.where(hole, 0.25, 0).astype(np.float32))
    expected = 0.75 * pixels([free.photo]) + 0.25 * whole
    assert np.abs(soft - expected).max() <= 1


def test_only_a_window_around_the_hole_is_edited_with_padding_mask_crop(free):
    """Breaks when diffusers' own argument is handed on, which cannot give latents, or the window is put elsewhere."""
    free.photo, mask = photograph((200, 160)), Image.new("L", (200, 160))
    mask.paste(255, (150, 100, 170, 120))
    seen = {}
    encode = free.vqgan.decode

    def decode(latent, image, hole):
        seen.update(image=image, hole=hole)
        return encode(latent, image, hole)

    free.vqgan.decode = decode
    try:
        result = free.decode(mask, padding_mask_crop=8, width=64, height=64)
    finally:
        del free.vqgan.decode
    hole = np.asarray(mask) > 0
    assert result.shape == (1, 160, 200, 3) and (result == pixels([free.photo]))[:, ~hole].all()
    assert seen["hole"].shape[-2:] == (64, 64)
    assert seen["hole"].mean() == pytest.approx((20 / 36) ** 2, abs=0.05)  # 20 px of a window of 8 + 20 + 8
    with pytest.raises(ValueError, match="^mask: got no hole, expected one to crop around"):
        free.decode(Image.new("L", (200, 160)), padding_mask_crop=8)


def test_the_hole_alone_is_decoded_when_asked(free, monkeypatch):
    """Breaks when it is decoded from other latents, put elsewhere, or the whole picture is decoded all the same."""
    monkeypatch.setattr(free, "vqgan", asymmetric_vqgan(free.pipe.vae, branch=False))
    whole = free.decode(num_images_per_prompt=2)
    monkeypatch.setattr(free.vqgan, "decode", None)
    result = free.decode(num_images_per_prompt=2, hole_only=True)
    assert np.abs(result - whole).max() <= 1  # at this size the window is the picture


def test_a_plain_autoencoder_decodes_windows_around_small_holes(free, monkeypatch):
    """Breaks when the first stage of the pipeline itself is not taken, or when it decodes the whole picture."""
    photo, mask = photograph((256, 256)), Image.new("L", (256, 256))
    mask.paste(255, (112, 120, 136, 152))
    call = free.call | {"width": 256, "height": 256, "generator": seeded()}
    seen = []
    decode_box = holes._decode_box
    monkeypatch.setattr(holes, "_decode_box", lambda *given: seen.append(given[2]) or decode_box(*given))
    [windowed] = decode_with(free.pipe.vae, free.pipe, photo, mask, hole_only=True, **call)
    [whole] = decode_with(free.pipe.vae, free.pipe, photo, mask, **call | {"generator": seeded()})
    assert seen and sum(box.area for box in seen) < 256 * 256 / 2
    off, hole = np.abs(np.asarray(windowed, int) - np.asarray(whole, int)), np.asarray(mask) > 0
    assert not off[~hole].any() and 0 < off[hole].mean() < 8  # an untrained decoder, whose statistics tell little
    with pytest.raises(ValueError, match="^vqgan: got AutoencoderTiny, expected one of AsymmetricVQGAN, "):
        decode_with(AutoencoderTiny(), free.pipe, photo, mask, **call)


@pytest.mark.parametrize("kind", ["stable_diffusion_inpaint", "asymmetric"])
def test_what_diffusers_has_decodes_as_its_own_decoder_does(free, kind):
    """Breaks when an autoencoder is not converted, or to other weights."""
    if kind == "asymmetric":
        theirs, ours = free.vqgan.to_diffusers(), free.vqgan
    else:
        theirs, ours = free.pipe.vae, asymmetric_vqgan(free.pipe.vae, branch=False)
    made = [decode_with(v, free.pipe, free.photo, free.mask, **free.call, generator=seeded()) for v in (theirs, ours)]
    assert (pixels(made[0]) == pixels(made[1])).all()


@pytest.mark.parametrize("change, message", [
    ({"photo": 3}, "image: got int, expected a PIL image"),
    ({"mask": Image.new("L", (64, 49))}, "mask: got 64 x 49, expected the upright image's 64 x 48 or its"),
    ({"mask": np.zeros((2, 48, 64))}, "mask: got 2, expected one"),
    ({"mask": np.full((48, 64), 255)}, "mask: got values from 255 to 255"),
    ({"mask": 7}, "mask: got int"),
    ({"mask": None}, "mask: got NoneType"),
])  # fmt: skip
def test_bad_pictures_are_one_clear_sentence(inpaint, change, message):
    picture = {"photo": inpaint.photo, "mask": inpaint.mask} | change
    with pytest.raises(ValueError, match=message):
        decode_with(inpaint.vqgan, inpaint.pipe, picture["photo"], picture["mask"], **inpaint.call)


@pytest.mark.parametrize("name, message", [
    ("flux_fill", "vqgan: got latent_channels 4, expected 16"),
    ("stable_diffusion_xl_inpaint", "vqgan: got scaling_factor 0.18215, expected 0.13025"),  # the same shape
])  # fmt: skip
def test_a_decoder_for_another_latent_space_is_refused(tiny_pipelines, inpaint, name, message):
    pipe = getattr(tiny_pipelines, name)()
    with pytest.raises(ValueError, match=message):
        decode_with(inpaint.vqgan, pipe, inpaint.photo, inpaint.mask, **CALLS[name])


def test_a_pipeline_without_latents_is_refused(inpaint):
    unet = UNet2DModel(8, block_out_channels=(4, 4), layers_per_block=1, norm_num_groups=4,
                       down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)  # fmt: skip
    with pytest.raises(ValueError, match="pipe: got DDPMPipeline, expected a pipeline with a vae"):
        decode_with(inpaint.vqgan, DDPMPipeline(unet, DDPMScheduler()), inpaint.photo, inpaint.mask)


@pytest.mark.parametrize("output, message", [
    (torch.zeros(1, 3, 48, 64), r"pipe: got \(1, 3, 48, 64\) from Heedless, expected latents \(N, 4, h, w\)"),
    ([Image.new("RGB", SIZE)], "pipe: got list from Heedless"),
    (torch.zeros(1, 13, 16), "latent: got 13 patches, expected 3 x 4; give height and width"),
])  # fmt: skip
def test_a_pipeline_that_does_not_heed_output_type_is_refused(inpaint, output, message):
    class Heedless:
        vae = inpaint.pipe.vae

        def __call__(self, output_type="pil"):
            return (output,)

    with pytest.raises(ValueError, match=message):
        decode_with(inpaint.vqgan, Heedless(), inpaint.photo, inpaint.mask)

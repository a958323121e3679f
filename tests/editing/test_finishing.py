"""`finish` on pictures as people have them, and the last word in a pipeline of diffusers."""

import numpy as np
import pytest
import torch
from diffusers import AsymmetricAutoencoderKL
from PIL import Image

from asymlib.editing.compositing import paste_hard
from asymlib.editing.finishing import finish, with_last_word
from asymlib.models.last_word import LastWord

SIZE = (64, 48)


@pytest.fixture(scope="module")
def model():
    return LastWord(width=8, seed=0).eval()


def picture(seed: int, size=SIZE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def hole(value=255) -> Image.Image:
    mask = Image.new("L", SIZE)
    mask.paste(value, (16, 10, 41, 33))
    return mask


def test_a_finished_picture_is_the_photos_outside_with_its_metadata(model, tmp_path):
    photo = picture(0)
    photo.info["dpi"] = (300, 300)
    photo.save(tmp_path / "photo.png", dpi=(300, 300))
    result = finish(tmp_path / "photo.png", picture(1), hole(), model=model)
    outside = np.asarray(hole()) == 0
    assert result.size == SIZE and round(result.info["dpi"][0]) == 300
    np.testing.assert_array_equal(np.asarray(result)[outside], np.asarray(photo)[outside])
    assert (np.asarray(result)[~outside] != np.asarray(photo)[~outside]).any()


def test_pictures_arrays_and_files_give_the_same(model, tmp_path):
    given = picture(0), picture(1), hole()
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for image, file in zip(given, files, strict=True):
        image.save(file)
    arrays = np.asarray(given[0]), np.asarray(given[1]), np.asarray(given[2]) > 0
    expected = np.asarray(finish(*given, model=model))
    for others in (files, [str(file) for file in files], arrays):
        np.testing.assert_array_equal(np.asarray(finish(*others, model=model)), expected)
    with pytest.raises(
        ValueError, match=r"photo: got an array \(48, 64, 3\) of float64, expected \(H, W, 3\) of uint8"
    ):
        finish(arrays[0] / 255, *arrays[1:], model=model)


def test_an_edit_of_another_size_is_brought_to_the_photos(model):
    photo, edited = picture(0), picture(1)
    larger = edited.resize((128, 96), Image.Resampling.NEAREST)
    result = finish(photo, larger, hole(), model=model)
    assert result.size == SIZE and (np.asarray(result) != np.asarray(photo)).any()


def test_a_soft_mask_fades_once_and_not_twice(model):
    photo, edited = Image.new("RGB", SIZE, (0, 0, 0)), Image.new("RGB", SIZE, (0, 0, 0))
    edited.paste((200, 200, 200), (16, 10, 41, 33))
    result = finish(photo, edited, hole(128), strength=0, model=model)
    assert abs(int(np.asarray(result)[20, 25, 0]) - 200 * 128 / 255) <= 1


def test_tensors_go_in_and_come_out_as_the_edits_type(model):
    photo, edited = (torch.rand(2, 3, 24, 32) * 2 - 1 for _ in range(2))
    mask = torch.zeros(24, 32)
    mask[5:15, 5:20] = 1
    result = finish(photo, edited.half(), mask, model=model)
    assert result.dtype == torch.float16 and torch.equal(result[..., :5, :], photo.half()[..., :5, :])
    torch.testing.assert_close(finish(photo, edited, mask, 0, model), paste_hard(photo, edited, mask[None, None]))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"photo": 3}, "photo: got int, expected a PIL image"),
        ({"edited": picture(1, (64, 64))}, "edited: got 64 x 64, expected the shape of the photo's 64 x 48"),
        ({"mask": Image.new("L", (10, 10))}, "mask: got 10 x 10, expected the picture's "),
        ({"strength": 1.5}, "strength: got 1.5, expected 0 to 1"),
        ({"photo": torch.zeros(1, 3, 4, 4), "edited": picture(1)}, "edited: got Image, expected a tensor"),
        ({"photo": torch.zeros(1, 3, 4, 4), "edited": torch.zeros(1, 3, 4, 8)}, "edited: got"),
    ],
)
def test_bad_input_is_one_clear_sentence(model, change, message):
    with pytest.raises(ValueError, match=message):
        finish(**{"photo": picture(0), "edited": picture(1), "mask": hole(), "model": model} | change)


def test_stable_diffusion_users_get_it_by_their_vae_alone(tiny_pipelines, model):
    """Breaks when the pipeline does not hand photo and mask over, or the autoencoder that was given is changed."""
    pipe = tiny_pipelines.stable_diffusion_inpaint()
    call = {"prompt": "a", "width": 64, "height": 48, "num_inference_steps": 2, "output_type": "pt"}
    call |= {"image": picture(0), "mask_image": hole(), "num_images_per_prompt": 2}

    def run():
        return pipe(**call, generator=torch.Generator().manual_seed(0)).images

    vanilla, plain = pipe.vae, run()
    pipe.vae = with_last_word(vanilla, model=model)
    finished = run()
    photo = torch.from_numpy(np.array(picture(0))).permute(2, 0, 1)[None].float() / 127.5 - 1
    mask = torch.from_numpy(np.asarray(hole()) / 255).float()
    expected = finish(photo.expand(2, -1, -1, -1), plain * 2 - 1, mask, model=model)
    torch.testing.assert_close(finished * 2 - 1, expected, atol=0.01, rtol=0)
    assert isinstance(pipe.vae, AsymmetricAutoencoderKL) and not isinstance(vanilla, AsymmetricAutoencoderKL)
    assert pipe.vae.state_dict().keys() == vanilla.state_dict().keys() and "_finish" not in vars(vanilla)


def test_without_a_photo_it_is_the_autoencoder_that_it_was(tiny_pipelines, model):
    vae = tiny_pipelines.stable_diffusion_inpaint().vae
    latent = torch.randn(1, vae.config.latent_channels, 6, 8)
    with torch.no_grad():
        plain = vae.decode(latent)[0]
        assert torch.equal(with_last_word(vae, model=model).decode(latent).sample, plain)
        assert torch.equal(with_last_word(vae, model=model).decode(latent, return_dict=False)[0], plain)


def test_a_decoder_that_is_told_of_the_photo_still_is(base, model):
    photo, mask = torch.rand(1, 3, 32, 32) * 2 - 1, torch.zeros(1, 1, 32, 32)
    mask[..., 8:20, 8:20] = 1
    with torch.no_grad():
        latent = base.encode(photo)
        told = base.decode(latent, image=photo, mask=mask)
        finished = with_last_word(base, model=model).decode(latent, image=photo, mask=mask)
        torch.testing.assert_close(finished, model(photo, told, mask))

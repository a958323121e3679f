"""Stable Diffusion's pipelines in the place of the small diffusion model, on tiny ones that lie in folders."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError
from requests import Response

from asymlib.editing.generation import generate
from asymlib.editing.local_editing import edit_by_example, edit_by_prompt
from asymlib.models.inpainter import LatentInpainter
from asymlib.study.diffusion import load_diffusion
from asymlib.study.hub import PIPELINES, HubDiffusion, fetch


@pytest.fixture(scope="module")
def hub(tmp_path_factory, tiny_pipelines):
    """The section of params.yaml for pipelines in folders, and their autoencoder."""
    place = tmp_path_factory.mktemp("hub")
    tiny_pipelines.save_all(place)
    where = {task: {"repository": str(place / task), "revision": None} for task in tiny_pipelines.TASKS}
    return where | {"prompt": "b", "guidance_scale": 4.0, "eta": 0.0}


@pytest.fixture(scope="module")
def diffusion(hub, tiny_pipelines):
    return HubDiffusion(hub, tiny_pipelines.stable_diffusion_inpaint().vae)


@pytest.fixture(scope="module")
def pictures():
    torch.manual_seed(0)
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, :, 16:40, 8:48] = mask[1, :, :32] = 1
    return torch.rand(2, 3, 64, 64) * 2 - 1, mask


def encode(diffusion, image):
    with torch.no_grad():
        return diffusion.first_stage.encode(image).latent_dist.mean


def test_a_hole_is_filled_as_the_pipeline_fills_it(diffusion, pictures):
    """Breaks when the known latent is not scaled, the mask inverted, or an image depends on its batch."""
    image, mask = pictures
    known = encode(diffusion, (1 - mask) * image)
    latent = diffusion.sample(known, mask, 2, 5, "a", guidance_scale=3.0)
    assert latent.shape == (2, 4, 8, 8)
    scale = diffusion.first_stage.config.scaling_factor
    expected = diffusion.pipeline("inpainting")(
        "a",
        image=image[1:],
        mask_image=mask[1:],
        masked_image_latents=known[1:] * scale,
        num_inference_steps=2,
        guidance_scale=3.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(5 * 1_000_003 + 1),
        output_type="latent",
    )[0]
    assert torch.allclose(latent[1:] * scale, expected, atol=1e-5)
    assert not torch.allclose(latent, diffusion.sample(known, 1 - mask, 2, 5, "a", guidance_scale=3.0), atol=1e-3)


def test_a_hole_that_is_asked_for_nothing_gets_the_official_prompt(diffusion, pictures):
    image, mask = pictures
    known = encode(diffusion, (1 - mask) * image)
    asked = diffusion.sample(known, mask, 2, 0, "b", guidance_scale=4.0)
    assert torch.equal(diffusion.sample(known, mask, 2, 0), asked)
    assert not torch.equal(diffusion.sample(known, mask, 2, 0, "a", guidance_scale=4.0), asked)


def test_known_cells_that_are_put_back_end_as_they_were(diffusion, pictures):
    image, mask = pictures
    own, known = encode(diffusion, image), encode(diffusion, (1 - mask) * image)
    hole = (mask[..., ::8, ::8] > 0).expand_as(own)
    blended = diffusion.sample(known, mask, 3, 0, keep=own)
    torch.testing.assert_close(blended[~hole], own[~hole])
    assert not torch.allclose(blended[hole], own[hole], atol=0.1)
    assert not torch.allclose(
        blended[hole], diffusion.sample(known, mask, 3, 0)[hole]
    )  # they are seen while it samples


def test_a_full_mask_generates_from_text(diffusion, monkeypatch):
    asked = []
    real = diffusion.pipeline("text_to_image")
    monkeypatch.setattr(diffusion, "pipeline", lambda task: asked.append(task) or real)
    assert generate(diffusion, 2, 64, 2, 0, ["a", "b"], 7.5).shape == (2, 4, 8, 8)
    assert set(asked) == {"text_to_image"}


def test_edits_are_those_of_diffedit_and_paint_by_example(diffusion, pictures):
    image, mask = pictures
    by_prompt = edit_by_prompt(None, diffusion, image, ["a", "b"], ["b", "a"], 2, 0, 5.0)
    assert by_prompt.latent.shape == (2, 4, 8, 8) and by_prompt.mask.shape == (2, 1, 64, 64)
    assert set(by_prompt.mask.unique().tolist()) <= {0.0, 1.0}
    given = edit_by_prompt(None, diffusion, image, "a", "b", 2, 0, 5.0, mask)
    assert torch.equal(given.mask, mask)  # its edges lie on cells
    by_example = edit_by_example(None, diffusion, image, mask, image[:1], 2, 0, 5.0)
    assert by_example.latent.shape == (2, 4, 8, 8) and torch.equal(by_example.mask, mask)
    for latent in (by_prompt.latent, given.latent, by_example.latent):
        assert torch.isfinite(latent).all()


def test_a_folder_says_which_model_it_is(hub, tmp_path, tiny_pipelines):
    first_stage = tiny_pipelines.stable_diffusion_inpaint().vae
    HubDiffusion(hub, first_stage).save(tmp_path / "hub")
    assert load_diffusion(tmp_path / "hub", first_stage).hub == hub
    LatentInpainter.build((16, 32), 1.0, 0).save(tmp_path / "small")
    assert isinstance(load_diffusion(tmp_path / "small", first_stage), LatentInpainter)


@pytest.mark.parametrize("error", [GatedRepoError, RevisionNotFoundError, OSError])
def test_what_cannot_be_fetched_is_one_sentence(error, monkeypatch):
    """No network, a gated model and a wrong revision all end in the same advice, with the hub's own reason."""

    def fail(*args, **kwargs):
        raise error("no such thing", response=Response()) if error is not OSError else OSError("no network")

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", fail)
    with pytest.raises(FileNotFoundError, match=r"^pipeline: got 'a/b' at revision 'c', .* expected .*hf auth login`$"):
        fetch(PIPELINES["text_to_image"], "a/b", "c")

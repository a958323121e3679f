"""First stages are built, loaded and inherited from; two of them ship."""

import pytest
import torch
from diffusers import AutoencoderKL, VQModel

from asymlib.models.first_stage import (
    build_first_stage,
    fetch_first_stage,
    find_first_stage,
    inherit_first_stage,
    load_first_stage,
    normalise_stream,
    pretrained,
)
from asymlib.study.params import load_params


def test_the_small_one_that_ships_is_loaded_without_an_argument():
    """Breaks when weights are left out of the package, or a folder of the working directory is meant."""
    model = load_first_stage()
    assert isinstance(model, AutoencoderKL) and not model.training
    again = load_first_stage(pretrained("first_stage"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_one_that_does_not_ship_is_named_with_those_that_do():
    with pytest.raises(FileNotFoundError, match="^name: got 'sdxl', expected one of base, first_stage, "):
        pretrained("sdxl")


def test_a_quantised_first_stage_inherits_the_posterior_s_mean_and_the_decoder():
    """Breaks when the log-variance's channels are taken, or the 1 x 1 convolution is folded the wrong way round."""
    start, model = build_first_stage(8, 1, 4, seed=1).eval(), build_first_stage(8, 1, 4, seed=2, codes=32).eval()
    inherit_first_stage(model, start)
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latent = start.encode(image).latent_dist.mean
        assert torch.allclose(model.encode(image).latents, latent, atol=1e-5)
        assert torch.equal(model.decode(latent, force_not_quantize=True).sample, start.decode(latent).sample)
    with pytest.raises(ValueError, match="start: got widths, layers and groups .*16.*, expected the new model's .*8"):
        inherit_first_stage(model, build_first_stage(16, 1, 4))
    with pytest.raises(ValueError, match="start: got a VQModel, expected an AutoencoderKL"):
        inherit_first_stage(start, model)


def test_the_shipped_quantised_first_stage_is_a_vq_model_of_512_codes():
    model = load_first_stage(pretrained(load_params("default").first_stage_vq.bundled))
    assert isinstance(model, VQModel) and model.quantize.embedding.weight.shape == (512, 4)


def test_normalising_the_stream_changes_its_scale_and_not_the_function():
    """Breaks when a layer that adds to the stream is forgotten, or scaled twice."""
    decoder = build_first_stage(8, 1, 4).eval().decoder
    latent = torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for block in decoder.up_blocks[:-1]:
            block.upsamplers[0].conv.weight.mul_(5.0)  # a stream that grows, as training makes it grow
        for parameter in decoder.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        before = decoder(latent)
        normalise_stream(decoder, latent)
        assert torch.allclose(decoder(latent), before, atol=1e-4)
        entries = []
        for block in decoder.up_blocks:
            block.register_forward_pre_hook(lambda _, args: entries.append(args[0].std().item()))
        decoder(latent)
    assert entries == pytest.approx([1, 1, 1, 1], rel=1e-3)


def test_groups_must_divide_the_width_and_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="groups: got 5, expected a divisor of width 24"):
        build_first_stage(24, 1, 5)
    with pytest.raises(FileNotFoundError, match="first stage .* is missing; expected a folder with config.json"):
        load_first_stage(tmp_path / "none")
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ValueError, match="got a UNet2DModel, expected one of AutoencoderKL, VQModel, AutoencoderTiny"):
        load_first_stage(tmp_path)


def test_a_first_stage_on_the_hub_that_cannot_be_had_is_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="^first stage: got 'nobody/none' at revision '0123', .* a network$"):
        fetch_first_stage("nobody/none", "0123", "vae", tmp_path / "first_stage")
    assert not (tmp_path / "first_stage").exists()


def test_a_first_stage_is_found_in_a_folder_by_name_or_on_the_hub(tmp_path, monkeypatch):
    """Breaks when a folder is looked for on the hub, or what was fetched is fetched again."""
    model, fetched = build_first_stage(8, 1, 4, seed=3), []
    model.save_pretrained(tmp_path / "mine")

    def fetch(repository, revision, subfolder, home):
        fetched.append((repository, revision, subfolder))
        model.save_pretrained(home)

    monkeypatch.setattr("asymlib.models.first_stage.fetch_first_stage", fetch)
    assert find_first_stage(str(tmp_path / "mine"), tmp_path / "home").config.block_out_channels[0] == 8
    assert find_first_stage("first_stage_vq", tmp_path / "home").config.num_vq_embeddings == 512
    assert fetched == []
    for _ in range(2):
        assert find_first_stage("some/one", tmp_path / "home", "abc", "vae").config.block_out_channels[0] == 8
    assert fetched == [("some/one", "abc", "vae")]

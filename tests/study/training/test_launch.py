"""The launched entry: from a profile to a decoder's checkpoint, curve and record, here in one process."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from PIL import Image

from asymlib.files import content_hash
from asymlib.models.decoder import load_vqgan
from asymlib.study.dataset.images import make_images, make_masks
from asymlib.study.params import Stream, load_params
from asymlib.study.project import project_root
from asymlib.study.training.launch import launch, main
from asymlib.study.training.run import start_record


@pytest.fixture
def params(first_stage, monkeypatch, tmp_path):
    """Smoke's images and a tiny first stage in a folder of their own, and a folder of pictures to stream."""
    file = project_root() / "params.yaml"
    monkeypatch.setattr("asymlib.study.params.project_root", lambda: tmp_path)
    params = load_params("smoke", file)
    images = params.data / "images"
    manifest, _ = make_images(params.images.model_copy(update={"train_procedural": 1}), params.seed, images)
    make_masks(manifest, images, 1, params.seed, params.data / "masks")
    first_stage.save_pretrained(params.checkpoints / "first_stage")
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.effect_noise((40, 50), 60 + i).save(tmp_path / "pictures" / f"{i}.png")
    stream = Stream(folder=str(tmp_path / "pictures"), size=32, smallest=32, buffer=1)
    small = replace(params.training["base"], steps=4, batch=2, gan_start=2)
    return params.model_copy(update={"stream": stream, "training": params.training | {"base": small}})


def test_a_streamed_run_leaves_what_the_notebook_leaves_and_what_it_can_be_traced_to(params):
    launch(params, "base", cpu=True)
    curve = pd.read_csv(params.results / "curves" / "base.csv")
    assert curve["step"].tolist() == [0, 4] and curve["loss"].iloc[-1] > 0
    record = json.loads((params.results / "provenance" / "base.json").read_text())
    assert record["stream"]["size"] == 32 and record["steps"] == 4 and record["processes"] == 1
    first_stage = params.checkpoints / "first_stage"
    config, weights = first_stage / "config.json", first_stage / "diffusion_pytorch_model.safetensors"
    assert record["first_stage"] == content_hash(config, weights) and record["skipped_images"] == 0
    assert record["vanilla"].keys() == {"pre_error", "hole_psnr"} and record["training_tmac"] > 0
    assert load_vqgan(params.checkpoints / "decoders" / "base").config.branch
    assert not params.resume_path("base").exists()


def test_a_first_stage_s_card_is_not_what_a_decoder_is_traced_to(params):
    """Breaks when a word in the card beside the weights makes every decoder another one, or new weights do not."""
    folder = params.checkpoints / "first_stage"
    before = start_record(params, "base")
    (folder / "README.md").write_text("a card")
    assert start_record(params, "base") == before
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
        assert start_record(params, "base")["first_stage"] != before["first_stage"]
        before = start_record(params, "base")


def test_a_mistake_is_one_clear_sentence(monkeypatch):
    monkeypatch.setattr("sys.argv", ["launch", "--profile", "smoke", "--decoder", "3x", "--cpu"])
    with pytest.raises(SystemExit, match="^error: name: got '3x', expected one of base"):
        main()

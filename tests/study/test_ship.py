"""What a run trained becomes what ships: half precision, record, curve and a card without an empty place."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from asymlib.files import save_pretrained
from asymlib.models.decoder import load_vqgan
from asymlib.models.first_stage import PRETRAINED, pretrained
from asymlib.models.inpainter import LatentInpainter
from asymlib.models.last_word import LastWord
from asymlib.study import ship
from asymlib.study.dataset.procedural import procedural_image

NUMBERS = {"pictures": 400, "loss": 0.1, "known_ratio": 1.3, "kid": 0.2, "kid_deviation": 0.05}
SHIPPED = sorted(path.parent.name for path in PRETRAINED.glob("*/config.json"))
RECORD = {"commit": "abc1234", "seed": 0, "first_stage": "e59c", "settings": {"steps": 1200, "batch": 16}}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose profile `diffusion` has trained a model, and a folder of photographs."""
    place = tmp_path / ".profiles" / "diffusion"
    LatentInpainter.build((16, 32), 1.0, 0).save(place / "checkpoints" / "diffusion" / "inpainter")
    made = place / "results" / "diffusion" / "inpainter"
    made.mkdir(parents=True)
    (made / "record.json").write_text(json.dumps(RECORD))
    pd.DataFrame({"step": [50], "loss": [0.123456789]}).to_csv(made / "curve.csv", index=False)
    for split in ("train", "val", "test"):
        (tmp_path / "photos" / split).mkdir(parents=True)
        picture = procedural_image(140, np.random.default_rng(len(split)))
        Image.fromarray(picture).save(tmp_path / "photos" / split / "a.png")
    monkeypatch.setattr(ship, "numbers", lambda *given: NUMBERS)
    return tmp_path


def test_what_ships_is_the_model_in_half_precision_with_its_record_curve_and_card(project):
    out = project / "pretrained" / "inpainter"
    assert ship.ship_inpainter(project, "diffusion", project / "photos", out) == NUMBERS
    weights = load_file(out / "diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    shipped, trained = LatentInpainter.load(out), LatentInpainter.build((16, 32), 1.0, 0)
    assert shipped.dtype == torch.float32
    for name, weight in shipped.denoiser.state_dict().items():
        torch.testing.assert_close(weight, trained.denoiser.state_dict()[name], rtol=1e-3, atol=1e-6)
    assert json.loads((out / "record.json").read_text()) == RECORD
    assert (out / "curve.csv").read_text() == "step,loss\n50,0.1235\n"
    card = (out / "README.md").read_text()
    assert "abc1234" in card and "| 1.30 |" in card and "0.200 (0.050)" in card and "{" not in card


def test_the_last_word_ships_with_its_regret_on_every_source(project, monkeypatch):
    monkeypatch.setattr(ship, "STEPS", 1)
    for name in ("b.png", "c.png"):
        picture = Image.fromarray(procedural_image(140, np.random.default_rng(ord(name[0]))))
        picture.save(project / "photos" / "val" / name)
    place, out = project / ".profiles" / "finish", project / "pretrained" / "last_word"
    save_pretrained(LastWord(8), place / "checkpoints" / "finish" / "last_word")
    made = place / "results" / "finish" / "last_word"
    made.mkdir(parents=True)
    record = RECORD | {"codecs": ["jpeg", "small"], "settings": {"edits": {"64": 5}, "steps": 7, "batch": 2}}
    (made / "record.json").write_text(json.dumps(record))
    (made / "curve.csv").write_text("step,loss\n7,0.5\n")
    assert ship.ship_last_word(project, "finish", project / "photos", out)["worst"] > -1
    weights = LastWord.from_pretrained(out).state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in LastWord(8).state_dict().items())
    card = (out / "README.md").read_text()
    assert (
        "jpeg, small" in card
        and "tinted_gamma" in card
        and "{" not in card
        and json.loads((out / "record.json").read_text()) == record
    )


def test_a_decoder_ships_in_half_precision_unless_that_costs_too_much(project, base, monkeypatch):
    place, record = project / ".profiles" / "photos", RECORD | {"decoder_parameters": 7}
    base.save_pretrained(place / "checkpoints" / "photos" / "decoders" / "base")
    for folder in ("provenance", "curves"):
        (place / "results" / "photos" / folder).mkdir(parents=True)
    (place / "results" / "photos" / "provenance" / "base.json").write_text(json.dumps(record))
    (place / "results" / "photos" / "curves" / "base.csv").write_text("step,loss\n0,1\n")
    made = place / "data" / "photos" / "images"
    made.mkdir(parents=True)
    rows = [
        ("train", "photograph", "a"),
        ("train", "photograph", "a"),
        ("train", "procedural", "b"),
        ("val", "photograph", "c"),
    ]
    pd.DataFrame(rows, columns=["split", "stratum", "photograph"]).to_csv(made / "manifest.csv")
    out = project / "pretrained" / "base"
    for allowed, kind in ((0.02, torch.float16), (-1.0, torch.float32)):
        monkeypatch.setattr(ship, "ALLOWED", allowed)
        assert abs(ship.ship_decoder(project, "photos", "base", project / "photos", out)["cost"]) < 0.02
        assert {w.dtype for w in load_file(out / "diffusion_pytorch_model.safetensors").values()} == {kind}
        card = (out / "README.md").read_text()
        assert "| 1 of the profile `photos`" in card
        assert ("half precision on disk" in card) == (kind == torch.float16) and "{" not in card
    assert load_vqgan(out).dtype == torch.float32 and (out / "curve.csv").read_text() == "step,loss\n0,1\n"


def test_what_half_precision_costs_is_measured_on_the_worse_part(base):
    image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    other = copy.deepcopy(base)
    assert ship.decibels_lost(base, other, image) == 0
    with torch.no_grad():
        other.decoder.conv_out.bias += 1
    assert ship.decibels_lost(base, other, image) > 1


def test_a_profile_that_has_trained_none_is_named(project):
    with pytest.raises(
        FileNotFoundError, match="profile: got default without .*curve.csv, expected a trained .* model"
    ):
        ship.ship_inpainter(project, "default", project / "photos", project / "out")
    assert not (project / "out").exists()


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_has_a_card_as_the_hub_wants_it_and_a_history(name):
    """Breaks when weights come in without a licence, or nobody can say what they were trained with."""
    folder = pretrained(name)
    _, header, text = (folder / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(header)
    assert told["license"] == "apache-2.0" and told["library_name"] in ("diffusers", "asymlib") and told["tags"]
    assert text.startswith("# ") and "licence" in text
    record = json.loads((folder / "record.json").read_text())
    assert {"commit", "seed", "settings"} <= record.keys()

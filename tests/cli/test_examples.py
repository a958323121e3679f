"""Every line that help and pages tell to type is typed, in a folder with small files of the names that they use."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image

from asymlib.cli import app, main
from asymlib.models.construction import asymmetric_vqgan
from asymlib.models.last_word import LastWord
from asymlib.models.official import save_official
from asymlib.study.project import project_root
from asymlib.training import fitting

ROOT = project_root()
PAGES = ("README.md", "CONTRIBUTING.md", "docs/OWN_MODEL.md")
SHORTER = {"train": "--steps 2 --batch 2 --crop 32", "evaluate": "--scenes 4 --size 64", "inpaint": "--steps 2"}
# what is not on this machine, waits for a visitor, or is a test of its own (tests/study/test_pipeline.py)
LEFT_OUT = ("stable-diffusion", "asymlib paint", "asymlib repro")


def examples() -> list[str]:
    told = [command.callback.__doc__ for command in app.registered_commands]
    told += re.findall(r"```(?:bash|text)\n(.*?)```", "".join((ROOT / page).read_text() for page in PAGES), re.DOTALL)
    lines = [line.strip() for text in told for line in text.splitlines()]
    lines = [line.split(" #")[0].strip() for line in lines if line.startswith("asymlib ")]
    return sorted({line for line in lines if not any(left in line for left in LEFT_OUT)})


@pytest.fixture
def place(tmp_path, tiny_shipped, first_stage, monkeypatch):
    """A folder with a photo, an edit, a mask, folders of them, an autoencoder and an official file."""
    size = (70, 66)
    for i, name in enumerate(("photo.jpg", "edited.png", "photos/a.png", "photos/b.jpg", "edits/a.png", "edits/b.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    mask = Image.new("L", size)
    mask.paste(255, (20, 10, 50, 40))
    (tmp_path / "masks").mkdir()
    for name in ("mask.png", "masks/a.png", "masks/b.png"):
        mask.save(tmp_path / name)
    (tmp_path / "my_photographs").symlink_to(tmp_path / "photos")
    monkeypatch.setattr(fitting, "fit_known_pixels", lambda *_, **__: None)
    monkeypatch.setattr("asymlib.study.evaluation.finishers.load", lambda name: LastWord(8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_examples_of_every_kind():
    assert {line.split()[1] for line in examples()} == {"finish", "inpaint", "train", "convert", "info", "evaluate"}


@pytest.mark.parametrize("line", examples())
def test_an_example_does_what_it_says(place, first_stage, line, capsys):
    """Breaks when an argument of an example is gone, takes another value or stands in another order."""
    words = shlex.split(line)[1:]
    vqgan = asymmetric_vqgan(first_stage, 8, 2, seed=0)
    if "asymmetric.ckpt" in words:
        save_official(vqgan, place / "asymmetric.ckpt")
    else:  # or else it is what the example makes
        first_stage.save_pretrained(place / "my_vae") if words[0] != "convert" else vqgan.save_pretrained("my_vae")
    before = set(place.rglob("*"))
    assert main([*words, *SHORTER.get(words[0], "").split()]) == 0, capsys.readouterr().err
    assert set(place.rglob("*")) > before or words[0] == "info"

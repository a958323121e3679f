"""A first picture from shipped weights, of a packaged photograph or one's own, and the edits that it shows."""

import numpy as np
import pytest
import torch
from PIL import Image

from asymlib.models import first_stage as shipped
from asymlib.models.inpainter import LatentInpainter
from asymlib.models.last_word import LastWord
from asymlib.models.shipped import load
from asymlib.study import tour
from asymlib.study.examples import EXAMPLES, example_edit
from asymlib.study.reporting.plots import rim_rows


@pytest.fixture
def pretrained(base, first_stage, tmp_path, monkeypatch):
    """Models as small as can be in the place of those that ship."""
    base.save_pretrained(tmp_path / "base")
    first_stage.save_pretrained(tmp_path / "first_stage")
    LatentInpainter.build((16, 32), 1.0, 0).save(tmp_path / "inpainter")
    LastWord(8).save_pretrained(tmp_path / "last_word")
    monkeypatch.setattr(shipped, "PRETRAINED", tmp_path)
    return tmp_path


def test_what_ships_is_loaded_by_its_name(pretrained):
    kinds = {name: type(load(name)).__name__ for name in ("base", "first_stage", "inpainter")}
    assert kinds == {"base": "AsymmetricVQGAN", "first_stage": "AutoencoderKL", "inpainter": "LatentInpainter"}
    with pytest.raises(
        FileNotFoundError, match="name: got 'bass', expected one of base, first_stage, inpainter, last_word"
    ):
        load("bass")


def test_a_first_picture_of_a_packaged_photograph(pretrained, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["tour", "--out", str(tmp_path / "first.png")])
    tour.main()
    with Image.open(tmp_path / "first.png") as picture:
        assert 6 * 160 < picture.width < 1100 and picture.height > 3 * 160
    assert "Outside the hole vanilla is off by" in capsys.readouterr().out


def test_a_first_picture_of_one_s_own(pretrained, monkeypatch, tmp_path):
    """Breaks when photo and mask are cut or shrunk differently, or the hole's colour stays."""
    pixels = np.full((300, 400, 3), 120, np.uint8)
    pixels[100:200, 150:250] = (220, 40, 40)
    mask = np.zeros((300, 400), np.uint8)
    mask[100:200, 150:250] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    image, hole, wish = tour.own_edit(tmp_path / "photo.png", tmp_path / "mask.png")
    inside = hole.expand_as(image) > 0
    assert torch.equal(wish[~inside], image[~inside])
    red, now = ((picture[0, :, 80, 80] + 1) / 2 for picture in (image, wish))
    assert red.argmax() == 0 and now.argmax() != 0 and hole.mean() == pytest.approx(1 / 9, abs=0.01)
    mask[:] = 0
    mask[:, :20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="mask: got .*mask.png without a hole in the photo's middle square"):
        tour.own_edit(tmp_path / "photo.png", tmp_path / "mask.png")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.wish)
def test_an_example_changes_its_object_and_nothing_else(example):
    image, mask, wish = example_edit(example)
    hole = mask.expand_as(image) > 0
    assert torch.equal(wish[~hole], image[~hole]) and 0.01 < mask.mean() < 0.5
    assert (wish[hole] - image[hole]).abs().mean() > 0.1


def test_the_rim_is_magnified_where_known_pixels_have_detail():
    """Breaks when the square lies in the hole, or away from it, or on plain ground where there is detail elsewhere."""
    photograph, mask = torch.zeros(3, 64, 64), torch.zeros(1, 64, 64)
    mask[:, 16:48, 16:48] = 1
    photograph[:, ::2, 48:] = 0.5  # to the right of the hole
    whole, magnified, changed = rim_rows(photograph, mask, [photograph + 0.05], side=16)
    assert len(whole) == len(magnified) == len(changed) == 2 and magnified[0].shape == (3, 64, 64)
    square = magnified[0][:, ::4, ::4]
    columns = (square.diff(dim=1).abs().sum((0, 1)) > 0).float()
    assert 1 / 3 < columns.mean() < 2 / 3 and columns[-1] == 1 and columns[0] == 0
    torch.testing.assert_close(changed[1], 0.5 * (1 - mask).expand(3, -1, -1))

"""Photographs: those inside the dependencies, and any folder's, with all that folders contain."""

import numpy as np
import pytest
from PIL import Image

from asymlib.study.dataset.photographs import folder_photographs, packaged_photographs


def save(path, size=(100, 80), mode="RGB", **options):
    Image.fromarray(np.full((*size[::-1], 3), 200, np.uint8)).convert(mode).save(path, **options)


def test_packaged_photographs_are_colour_and_no_scene_is_on_two_sides():
    photographs = packaged_photographs()
    assert len(photographs) >= 12 and all(p.pixels.ndim == 3 and p.pixels.shape[2] == 3 for p in photographs)
    sides = {}
    for photograph in photographs:
        sides.setdefault(photograph.scene, set()).add(photograph.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert {p.split for p in photographs} == {"train", "val", "test"}


def test_both_views_of_the_motorcycle_are_one_scene():
    scenes = {p.name: p.scene for p in packaged_photographs()}
    assert scenes["motorcycle_left"] == scenes["motorcycle_right"]


def test_a_folder_with_everything_in_it(tmp_path):
    """Mixed sizes, orientation, greyscale, alpha, a palette: read. Broken, tiny, not an image: skipped and named."""
    save(tmp_path / "a.jpg")
    save(tmp_path / "b_grey.png", mode="L")
    Image.new("RGBA", (90, 90), (255, 0, 0, 0)).save(tmp_path / "c_alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    save(tmp_path / "d_turned.jpg", size=(120, 70), exif=exif)
    save(tmp_path / "e_palette.png", mode="P")
    (tmp_path / "sub").mkdir()
    save(tmp_path / "sub" / "f.webp")
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "tiny.png", size=(20, 20))
    (tmp_path / "notes.txt").write_text("not looked at")

    photographs, skipped = folder_photographs(tmp_path)
    assert set(skipped) == {"broken.jpg", "cut.jpg", "tiny.png"} and "20 x 20" in skipped["tiny.png"]
    by_name = {p.name: p.pixels for p in photographs}
    assert set(by_name) == {"a", "b_grey", "c_alpha", "d_turned", "e_palette", "sub_f"}
    assert by_name["d_turned"].shape == (120, 70, 3)  # upright
    assert (by_name["c_alpha"] == 255).all()  # transparency on white
    assert all(p.dtype == np.uint8 and p.shape[2] == 3 for p in by_name.values())


def test_every_tenth_photograph_is_held_out(tmp_path):
    for i in range(21):
        save(tmp_path / f"{i:02d}.png")
    splits = [p.split for p in folder_photographs(tmp_path)[0]]
    assert [i for i, s in enumerate(splits) if s == "test"] == [0, 10, 20]
    assert [i for i, s in enumerate(splits) if s == "val"] == [1, 11]


def test_an_empty_folder_and_a_missing_one_are_named(tmp_path):
    with pytest.raises(ValueError, match="folder: got .* with 0 usable photographs .*expected at least 3"):
        folder_photographs(tmp_path)
    with pytest.raises(FileNotFoundError, match="folder: got .*nowhere, expected an existing folder"):
        folder_photographs(tmp_path / "nowhere")

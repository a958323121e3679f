"""Photographs: those inside the dependencies, and any folder's, with all that folders contain."""

import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pillow_heif
import pytest
from PIL import Image

import asymlib
from asymlib.pixels import centre_square
from asymlib.study.dataset.copies import NEAR, distances, perceptual_hash
from asymlib.study.dataset.photographs import EXPLICIT, folder_photographs, packaged_photographs


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
    """Mixed sizes, orientation, greyscale, alpha, a palette: read. Broken, tiny, no image: skipped and named."""
    train = tmp_path / "train"
    for split in EXPLICIT:
        (tmp_path / split).mkdir()
    save(train / "a.jpg")
    save(train / "b_grey.png", mode="L")
    Image.new("RGBA", (90, 90), (255, 0, 0, 0)).save(train / "c_alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    save(train / "d_turned.jpg", size=(120, 70), exif=exif)
    save(train / "e_palette.png", mode="P")
    save(train / "g.avif"), save(train / "h.jfif", format="jpeg"), save(train / "i.gif")
    (tmp_path / "val" / "sub").mkdir()
    save(tmp_path / "val" / "sub" / "f.webp")
    pillow_heif.register_heif_opener()
    save(tmp_path / "test" / "phone.HEIC", format="heif")
    (train / "broken.jpg").write_bytes(b"not a picture")
    whole = (train / "a.jpg").read_bytes()
    (train / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    save(train / "tiny.png", size=(20, 20))
    save(tmp_path / "beside.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".DS_Store").write_text("hidden")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all of them are grey, so nearly the same
        photographs, skipped = folder_photographs(tmp_path)
    assert set(skipped) == {*(f"train/{n}" for n in ("broken.jpg", "cut.jpg", "tiny.png")), "notes.txt", "beside.png"}
    assert "20 x 20" in skipped["train/tiny.png"] and skipped["beside.png"] == "outside of train/, val/, test/"
    by_name = {p.name: p for p in photographs}
    assert {p.name: p.split for p in photographs} == {
        **{f"train_{n}": "train" for n in ("a", "b_grey", "c_alpha", "d_turned", "e_palette", "g", "h", "i")},
        "val_sub_f": "val",
        "test_phone": "test",
    }
    assert by_name["train_d_turned"].pixels.shape == (120, 70, 3)  # upright
    assert (by_name["train_c_alpha"].pixels == 255).all()  # transparency on white
    assert all(p.pixels.dtype == np.uint8 and p.pixels.shape == (*p.size, 3) for p in photographs)


def noise(seed, side=96):
    """A picture of its own: blotches, so that it is the same when it is made smaller."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def splits_of(folder):
    return {p.file.name: p.split for p in folder_photographs(folder)[0]}


@pytest.fixture
def forty(tmp_path):
    for i in range(40):
        noise(i).save(tmp_path / f"{i:02d}.png")
    return tmp_path


def test_a_photograph_s_split_depends_on_its_content_alone(forty):
    """Breaks when a file that is added, removed, renamed or too small moves another one."""
    before = splits_of(forty)
    shares = Counter(before.values())
    assert shares["train"] >= 20 and shares["val"] and shares["test"]
    (forty / "07.png").unlink()
    (forty / "20.png").rename(forty / "zz.png")
    for i in range(40, 45):
        noise(i).save(forty / f"00_{i}.png")
    noise(99, side=32).save(forty / "small.png")
    after = splits_of(forty)
    assert after.pop("zz.png") == before["20.png"]
    assert {name: split for name, split in after.items() if name in before} == {
        name: split for name, split in before.items() if name not in ("07.png", "20.png")
    }


def test_near_copies_share_a_split_and_a_scene(forty):
    """Twelve copies of one photo: resized, saved anew, brighter, cut by some pixels."""
    photo, copies = noise(5, 160), forty / "copies"
    copies.mkdir()
    for i, side in enumerate((64, 80, 100, 128)):
        photo.resize((side, side)).save(copies / f"{i}.png")
        photo.resize((side, side)).save(copies / f"{i}.jpg", quality=40 + 10 * i)
    for i in range(1, 4):
        photo.crop((i, 0, 160, 160 - i)).save(copies / f"cut_{i}.webp")
    photo.point(lambda level: min(255, level + 15)).save(copies / "brighter.png")
    photographs = [p for p in folder_photographs(forty)[0] if p.file.parent == copies or p.file.name == "05.png"]
    assert len(photographs) == 13 and len({(p.scene, p.split) for p in photographs}) == 1
    assert photographs[0].scene == "05.png"


def test_near_copies_in_two_splits_that_were_given_are_a_warning_with_the_files(tmp_path):
    for i, split in enumerate(EXPLICIT):
        (tmp_path / split).mkdir()
        noise(i).save(tmp_path / split / "a.png")
    noise(0, 70).save(tmp_path / "test" / "again.jpg")
    with pytest.warns(UserWarning, match="folder: test/again.jpg and train/a.png are nearly the same picture"):
        photographs, _ = folder_photographs(tmp_path)
    assert Counter(p.split for p in photographs) == {"train": 1, "val": 1, "test": 2}


def test_files_of_one_name_are_told_apart(forty):
    """Breaks when 05.jpg overwrites the crops of 05.png, or b_f.jpg those of b/f.jpg."""
    noise(50).save(forty / "05.jpg")
    (forty / "b").mkdir()
    noise(51).save(forty / "b" / "f.jpg"), noise(52).save(forty / "b_f.jpg"), noise(53).save(forty / "B_F.png")
    names = [p.name for p in folder_photographs(forty)[0]]
    assert len({name.casefold() for name in names}) == len(names) == 44
    assert "06" in names and "05" not in names


def test_an_empty_folder_and_a_missing_one_are_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"folder: got .* with 0 in train, 0 in val, 0 in test .*expected at least one"
    ):
        folder_photographs(tmp_path)
    with pytest.raises(FileNotFoundError, match="folder: got .*nowhere, expected an existing folder"):
        folder_photographs(tmp_path / "nowhere")


def test_no_packaged_test_scene_was_trained_on_by_anything_that_ships():
    """Breaks when the headline would be read on a training photograph, or a near-copy of one."""
    trained = pd.read_csv(asymlib.__path__[0] + "/pretrained/training_photographs.csv", dtype={"perceptual_hash": str})
    assert len(trained) >= 563
    scenes = [p for p in packaged_photographs() if p.split == "test"]
    hashes = [perceptual_hash(pixels) for p in scenes for pixels in (p.pixels, centre_square(p.pixels))]
    assert distances(hashes, [int(h, 16) for h in trained["perceptual_hash"]]).min() > NEAR

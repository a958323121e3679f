"""The photographs of the profile `photos`, found in public clones by their checksums."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from asymlib.study.dataset import public
from asymlib.study.dataset.procedural import procedural_image


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def clones(tmp_path, monkeypatch):
    """Two clones with a photograph for each split, and a list of them; the training one is of ImageNet's kind."""
    rng = np.random.default_rng(0)
    (tmp_path / "sample").mkdir(), (tmp_path / "BSDS500" / "data").mkdir(parents=True)
    wide = np.concatenate([np.zeros((400, 40, 3), np.uint8), procedural_image(400, rng)], axis=1)
    files = {"train": tmp_path / "sample" / "n01_fish.JPEG"}
    Image.fromarray(wide).save(files["train"], quality=95)
    for split in ("val", "test"):
        files[split] = tmp_path / "BSDS500" / "data" / f"{split}.jpg"
        Image.fromarray(procedural_image(300, rng)).save(files[split])
    square = tmp_path / "square.jpg"
    middle = Image.open(files["train"]).crop((20, 0, 420, 400)).resize((256, 256), Image.Resampling.LANCZOS)
    middle.save(square, quality=92, subsampling=0)
    rows = [("train", "n01_fish.jpg", digest(files["train"]), digest(square))]
    rows += [(split, files[split].name, digest(files[split]), "") for split in ("val", "test")]
    pd.DataFrame(rows, columns=["split", "file", "original", "square"]).to_csv(tmp_path / "list.csv", index=False)
    monkeypatch.setattr(public, "LIST", tmp_path / "list.csv")
    return tmp_path


def test_squares_are_made_of_originals_and_the_others_copied_wherever_they_lie(clones):
    done = public.prepare([clones / "sample", clones / "BSDS500"], clones / "photos")
    assert done["made"] == 1 and done["copied"] == 2 and not done["other bytes"]
    assert (clones / "photos/train/n01_fish.jpg").read_bytes() == (clones / "square.jpg").read_bytes()
    assert (clones / "photos/test/test.jpg").read_bytes() == (clones / "BSDS500/data/test.jpg").read_bytes()
    assert [photograph.split for photograph in public.check(clones / "photos")] == ["test", "train", "val"]


def test_what_was_made_before_is_copied(clones):
    (clones / "made").mkdir()
    (clones / "square.jpg").rename(clones / "made" / "any_name.jpg")
    (clones / "sample" / "n01_fish.JPEG").unlink()
    assert public.prepare([clones / "made", clones / "BSDS500"], clones / "photos")["copied"] == 3


def test_an_incomplete_clone_is_named_and_nothing_is_written(clones):
    with pytest.raises(FileNotFoundError, match="sources: got .*sample without 2 of 3 photographs .val.jpg, test.jpg"):
        public.prepare([clones / "sample"], clones / "photos")
    with pytest.raises(FileNotFoundError, match="sources: got .*nowhere, expected an existing folder"):
        public.prepare([clones / "nowhere"], clones / "photos")
    assert not (clones / "photos").exists()


def test_a_folder_with_other_files_than_the_list_is_refused(clones):
    public.prepare([clones / "sample", clones / "BSDS500"], clones / "photos")
    Image.fromarray(procedural_image(300, np.random.default_rng(9))).save(clones / "photos/train/mine.jpg")
    with pytest.raises(ValueError, match="folder: got .* with 1 files missing, broken or not listed .*train/mine.jpg"):
        public.check(clones / "photos")


def test_the_list_holds_the_two_hundred_scenes_and_nothing_twice():
    table = pd.read_csv(public.LIST, keep_default_na=False)
    assert table["split"].value_counts().to_dict() == {"train": 763, "val": 100, "test": 200}
    assert table["original"].is_unique and table["original"].str.len().eq(64).all()

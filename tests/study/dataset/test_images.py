"""The images stage: manifests, splits, checksums, and the folder source."""

import hashlib
import json
import weakref
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from asymlib.pictures import photo_size
from asymlib.study.dataset import photographs as module
from asymlib.study.dataset.images import load_images, load_pairs, make_images, make_larger, make_masks
from asymlib.study.dataset.photographs import folder_photographs, packaged_photographs
from asymlib.study.dataset.procedural import procedural_image
from asymlib.study.params import load_params


@pytest.fixture(scope="module")
def settings():
    small = {"train_photograph_crops": 10, "train_procedural": 4, "val_photograph_crops": 2, "val_procedural": 1}
    small |= {"test_crops": 2, "test_procedural": 2, "train_size": 64, "val_size": 64, "test_size": 64}
    return load_params("default").images.model_copy(update=small | {"gallery_size": 64})


@pytest.fixture(scope="module")
def made(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    manifest, _ = make_images(settings, 0, folder / "images")
    masks = make_masks(manifest, folder / "images", 1, 0, folder / "masks")
    return folder, manifest, masks


def test_no_photograph_is_trained_and_tested_on(made):
    """Breaks when crops of one photograph land in two splits."""
    _, manifest, _ = made
    known = set(manifest.loc[manifest["split"].isin(["train", "val"]), "photograph"])
    held_out = set(manifest.loc[manifest["split"].isin(["test", "gallery"]), "photograph"])
    assert held_out and not known & held_out


def test_the_manifest_names_every_file_with_origin_licence_and_checksum(made):
    folder, manifest, masks = made
    assert not manifest.isna().any().any() and not masks.isna().any().any()
    for row in manifest.itertuples():
        pixels = np.asarray(Image.open(folder / "images" / row.split / f"{row.image}.png"))
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == row.sha256
    for row in masks.itertuples():
        mask = np.asarray(Image.open(folder / "masks" / row.split / f"{row.mask}.png"))
        assert mask.mean() / 255 == pytest.approx(row.hole_area, abs=1e-6)
        assert hashlib.sha256(mask.tobytes()).hexdigest() == row.sha256


def test_the_same_seed_gives_the_same_images_and_another_does_not(settings, made, tmp_path):
    _, manifest, _ = made
    pd.testing.assert_frame_equal(make_images(settings, 0, tmp_path / "again")[0], manifest)
    other = make_images(settings, 1, tmp_path / "other")[0]
    assert (other["sha256"] != manifest["sha256"]).mean() > 0.5


def test_no_crop_is_cut_twice_in_a_split(tmp_path):
    """`ihc` at a quarter of its size has one place for a crop of 128 px; breaks when it is cut again and again."""
    images = load_params("default").images.model_copy(update={"train_procedural": 0, "test_procedural": 0})
    manifest, _ = make_images(images, 0, tmp_path)
    assert not manifest.duplicated(["split", "sha256"]).any()
    assert (manifest["split"] == "train").sum() == images.train_photograph_crops


def test_a_photograph_whose_crops_are_all_cut_gives_no_more(settings, tmp_path):
    for split in ("train", "val", "test"):
        (tmp_path / "photos" / split).mkdir(parents=True)
        Image.fromarray(procedural_image(65, np.random.default_rng(len(split)))).save(
            tmp_path / "photos" / split / "a.png"
        )
    folder = settings.model_copy(update={"source": "folder", "folder": str(tmp_path / "photos")})
    manifest, _ = make_images(folder, 0, tmp_path / "out")
    crops = manifest[manifest["stratum"] == "photograph"]
    assert (crops["split"] == "train").sum() == 4 and not crops.duplicated(["split", "sha256"]).any()


def test_pairs_are_in_range_with_white_as_the_hole(made):
    folder, _, masks = made
    pairs = load_pairs(folder / "images", folder / "masks", "test")
    assert pairs.image.shape[1:] == (3, 64, 64) and pairs.mask.shape[1:] == (1, 64, 64)
    assert pairs.image.min() >= -1 and pairs.image.max() <= 1 and set(pairs.mask.unique().tolist()) == {0.0, 1.0}
    assert pairs.mask.mean((1, 2, 3)).tolist() == pytest.approx(pairs.table["hole_area"].tolist(), abs=1e-5)
    assert set(pairs.table["stratum"]) == {"photograph", "procedural"}


def test_any_folder_serves_as_a_source(settings, tmp_path):
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(procedural_image(80 + 8 * i, rng)).save(tmp_path / "photos" / f"{i:02d}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"x")
    folder = settings.model_copy(update={"source": "folder", "folder": str(tmp_path / "photos")})
    manifest, skipped = make_images(folder, 0, tmp_path / "out")
    assert list(skipped) == ["broken.png"] and "broken.png" in (tmp_path / "out" / "skipped.json").read_text()
    assert (manifest["split"] == "train").sum() == 14


@pytest.fixture
def folder_source(settings, photographs, tmp_path):
    """Twelve photographs as JPEG files in a folder, and the settings that read them."""
    photographs(tmp_path / "png", 12)
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "png").iterdir():
        Image.open(path).save(tmp_path / "photos" / f"{path.stem}.jpg")
    return settings.model_copy(update={"source": "folder", "folder": str(tmp_path / "photos")})


def read_counts(monkeypatch) -> Counter:
    counts = Counter()
    real = module.Photograph.pixels.fget
    monkeypatch.setattr(module.Photograph, "pixels", property(lambda photo: counts.update([photo.name]) or real(photo)))
    return counts


def test_one_photograph_at_a_time_is_read_and_each_once_in_a_split(folder_source, monkeypatch, tmp_path):
    """Breaks when a folder is held in memory as a whole, or a photograph is decoded for every one of its crops."""
    counts, alive, most = read_counts(monkeypatch), weakref.WeakSet(), []
    counted = module.Photograph.pixels.fget

    def watched(photograph):
        most.append(len(alive))
        pixels = counted(photograph).view(Watched)
        alive.add(pixels)
        return pixels

    monkeypatch.setattr(module.Photograph, "pixels", property(watched))
    manifest, _ = make_images(folder_source.model_copy(update={"train_photograph_crops": 30}), 0, tmp_path / "out")
    splits = manifest[manifest["stratum"] == "photograph"].groupby("photograph")["split"].nunique()
    assert {f"{name}.jpg": count for name, count in counts.items()} == splits.to_dict() and len(splits) == 12
    assert max(most) <= 1  # when one is read, at most the one before it is still there


class Watched(np.ndarray):
    """An array that can be referred to weakly, and hashed by its identity."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


def test_a_list_of_photographs_holds_no_pixels(folder_source, monkeypatch):
    """Breaks when listing a folder keeps what it decoded."""
    counts = read_counts(monkeypatch)
    sources, skipped = folder_photographs(folder_source.folder)
    sources += packaged_photographs()
    assert len(sources) == 12 + 12 and not skipped and not counts
    for photograph in sources:
        assert not any(isinstance(value, np.ndarray | bytes) for value in photograph)
        assert photograph.size == photo_size(photograph.file)


@pytest.mark.parametrize("which", ["05", "10"])
def test_a_photograph_that_is_cut_short_is_skipped_and_named_and_all_others_stay(folder_source, tmp_path, which):
    """Breaks when a file whose header is whole ends the stage, or moves the others' splits."""
    before, nothing = make_images(folder_source, 0, tmp_path / "before")
    file = tmp_path / "photos" / f"{which}.jpg"
    size = photo_size(file)
    file.write_bytes(file.read_bytes()[: -len(file.read_bytes()) // 3])
    assert photo_size(file) == size
    after, skipped = make_images(folder_source, 0, tmp_path / "after")
    assert nothing == {} and list(skipped) == [f"{which}.jpg"] and "truncated" in skipped[f"{which}.jpg"]
    assert json.loads((tmp_path / "after" / "skipped.json").read_text()) == skipped
    splits = [
        {row.photograph: row.split for row in table.itertuples() if row.split != "gallery"} for table in (before, after)
    ]
    assert splits[1] == {name: split for name, split in splits[0].items() if name != f"{which}.jpg"}


def test_a_missing_manifest_and_an_unknown_split_are_named(made, tmp_path):
    folder, _, _ = made
    with pytest.raises(FileNotFoundError, match="manifest .* is missing; expected what stage images writes"):
        load_images(tmp_path, "train")
    with pytest.raises(ValueError, match="split: got 'dev'"):
        load_images(folder / "images", "dev")


def test_pictures_that_are_shown_can_be_the_packaged_ones(folder_source, tmp_path):
    """Breaks when a picture of a folder that may not be shown lies in the gallery, or its test split changes."""
    for gallery, origin in {"own": "folder:", "packaged": "skimage:"}.items():
        settings = folder_source.model_copy(update={"gallery": gallery})
        manifest, _ = make_images(settings, 0, tmp_path / gallery)
        photographs = manifest[manifest["stratum"] == "photograph"]
        shown = photographs[photographs["split"] == "gallery"]
        assert len(shown) and shown["origin"].str.startswith((origin, "sklearn:")).all()
        assert photographs.loc[photographs["split"] == "test", "origin"].str.startswith("folder:").all()


def test_larger_scenes_are_middle_squares_of_photographs_of_their_split(settings, tmp_path):
    """Breaks when a larger scene is a training photograph's, or an enlarged one has another size or content."""
    settings = settings.model_copy(update={"larger": (96, 512), "larger_scenes": 3})
    manifest = make_larger(settings, 0, tmp_path / "images")
    make_masks(manifest, tmp_path / "images", 1, 0, tmp_path / "masks")
    splits = {photograph.scene: photograph.split for photograph in packaged_photographs()}
    assert dict(manifest["split"].value_counts()) == {"test_96": 3, "test_512": 3, "val_96": 1, "val_512": 1}
    assert all(splits[row.photograph] == row.split.split("_")[0] for row in manifest.itertuples())
    coffee = next(photograph for photograph in packaged_photographs() if photograph.name == "coffee")
    enlarged = Image.fromarray(coffee.pixels[:, 100:500]).resize((512, 512), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "images/test_512/coffee.png")), enlarged)
    pairs = load_pairs(tmp_path / "images", tmp_path / "masks", "test_512")
    assert pairs.image.shape == (3, 3, 512, 512) and pairs.table["kind"].nunique() == 3


def test_a_photograph_may_be_called_by_a_number(settings, photographs, tmp_path):
    """Breaks when 01 is read as 1."""
    photographs(tmp_path / "photos", 12)
    settings = settings.model_copy(update={"source": "folder", "folder": str(tmp_path / "photos"), "larger": (64,)})
    manifest = make_larger(settings, 0, tmp_path / "images")
    make_masks(manifest, tmp_path / "images", 1, 0, tmp_path / "masks")
    assert manifest["image"].str.startswith("0").any()
    pairs = load_pairs(tmp_path / "images", tmp_path / "masks", "test_64")
    assert list(pairs.table["image"]) == list(manifest.loc[manifest["split"] == "test_64", "image"])


def test_larger_scenes_without_photographs_are_drawn(tmp_path):
    settings = load_params("smoke").images
    manifest = make_larger(settings, 0, tmp_path)
    assert set(manifest["stratum"]) == {"procedural"} and set(manifest["split"]) == {"val_96", "test_96"}
    assert manifest["sha256"].nunique() == len(manifest) == 10

"""The images stage: manifests, splits, checksums, and the folder source."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from asymlib.data.images import load_images, load_pairs, make_images, make_masks, to_tensor
from asymlib.data.procedural import procedural_image
from asymlib.params import load_params


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


def test_a_missing_manifest_and_an_unknown_split_are_named(made, tmp_path):
    folder, _, _ = made
    with pytest.raises(FileNotFoundError, match="manifest .* is missing; expected what stage images writes"):
        load_images(tmp_path, "train")
    with pytest.raises(ValueError, match="split: got 'dev'"):
        load_images(folder / "images", "dev")


def test_to_tensor_takes_both_layouts():
    pixels = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    assert torch.equal(to_tensor(pixels), to_tensor(tensor))
    assert to_tensor(np.array([[[[0, 255, 51]]]], np.uint8)).flatten().tolist() == pytest.approx([-1, 1, -0.6])

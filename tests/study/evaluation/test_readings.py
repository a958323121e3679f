"""What results are measured on, and the log of who has read the test split."""

import json

import pandas as pd
import pytest
import torch
from PIL import Image

from asymlib.study.dataset.images import Pairs
from asymlib.study.evaluation.readings import note_reading, read_pairs, thin
from asymlib.study.params import load_params
from asymlib.study.project import project_root


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """`profile(split)`: one that evaluates on it, in a project with one pair in each of val and test."""
    params = load_params("smoke", project_root() / "params.yaml")
    for module in ("params", "evaluation.readings"):
        monkeypatch.setattr(f"asymlib.study.{module}.project_root", lambda: tmp_path)
    monkeypatch.setenv("ASYMLIB_COMMIT", "abc1234")
    rows = pd.DataFrame({"image": ["v", "t"], "split": ["val", "test"]})
    for folder, table in {
        "images": rows.assign(photograph=["scene v", "scene t"], stratum="photograph", sha256=""),
        "masks": rows.assign(mask=["v_0", "t_0"], kind="box", sha256=""),
    }.items():
        for name, split in zip(table["mask" if folder == "masks" else "image"], table["split"], strict=True):
            (params.data / folder / split).mkdir(parents=True, exist_ok=True)
            mode = "RGB" if folder == "images" else "L"
            Image.new(mode, (16, 16), "white").save(params.data / folder / split / f"{name}.png")
        table.to_csv(params.data / folder / "manifest.csv", index=False)
    return lambda split: params.model_copy(update={"evaluation": params.evaluation.model_copy(update={"split": split})})


def log(params, reader="05_inpainting"):
    return params.results / "readings" / f"{reader}.json"


def test_the_pairs_are_those_of_the_split_that_params_name(profile):
    for split in ("val", "test"):
        pairs = read_pairs(profile(split), "05_inpainting")
        assert pairs.table["photograph"].tolist() == [f"scene {split[0]}"] and torch.all(pairs.mask == 1)


def test_a_reading_of_the_test_split_is_noted_once_for_each_state_of_code_and_data(profile, monkeypatch):
    params = profile("test")
    read_pairs(params, "05_inpainting")
    first = log(params).read_bytes()
    (reading,) = json.loads(first)["readings"]
    assert reading["commit"] == "abc1234" and len(reading["data"]) == 12
    read_pairs(params, "05_inpainting")
    assert log(params).read_bytes() == first  # an identical run
    monkeypatch.setenv("ASYMLIB_COMMIT", "0000000+")
    read_pairs(params, "05_inpainting")
    noted = json.loads(log(params).read_text())
    assert noted["reader"] == "05_inpainting" and [r["commit"] for r in noted["readings"]] == ["0000000+", "abc1234"]
    with (params.data / "images" / "manifest.csv").open("a") as manifest:
        manifest.write("w,val,scene w,photograph,\n")
    read_pairs(params, "05_inpainting")
    assert len(json.loads(log(params).read_text())["readings"]) == 3


def test_readers_have_files_of_their_own_and_nothing_else_is_left(profile):
    params = profile("test")
    read_pairs(params, "05_inpainting")
    note_reading(params, "02_what_the_autoencoder_loses")
    names = ["02_what_the_autoencoder_loses.json", "05_inpainting.json"]
    assert sorted(path.name for path in (params.results / "readings").iterdir()) == names


def test_val_is_read_without_a_note_but_the_stage_has_its_output(profile):
    read_pairs(profile("val"), "05_inpainting")
    assert json.loads(log(profile("val")).read_text())["readings"] == []
    read_pairs(profile("test"), "05_inpainting")
    noted = log(profile("test")).read_bytes()
    read_pairs(profile("val"), "05_inpainting")
    assert log(profile("val")).read_bytes() == noted  # what was read once stays so


def test_missing_pairs_are_named_and_no_reading_is_noted(profile):
    params = profile("test")
    (params.data / "images" / "manifest.csv").unlink()
    with pytest.raises(FileNotFoundError, match="manifest .* is missing"):
        read_pairs(params, "05_inpainting")
    assert not log(params).exists()


@pytest.fixture
def crops():
    """As the default profile has them: ten crops of each of six scenes in turn, and drawings."""
    photographs = [f"scene {i % 6}" for i in range(60)] + [f"drawing {i}" for i in range(4)]
    table = pd.DataFrame({"photograph": photographs, "stratum": ["photograph"] * 60 + ["procedural"] * 4})
    number = torch.arange(64.0)[:, None, None, None]
    return Pairs(number.expand(-1, 3, 8, 8), number.expand(-1, 1, 8, 8), table)


@pytest.mark.parametrize("every, left", [(1, 10), (2, 5), (3, 4), (10, 1), (100, 1)])
def test_every_so_many_pairs_of_each_scene_are_measured(crops, every, left):
    """Breaks when pairs are thinned by position: every second one is of three scenes of the six."""
    some = thin(crops, every)
    assert some.table["photograph"].value_counts().to_dict() == {f"scene {i}": left for i in range(6)}
    assert some.image[:, 0, 0, 0].tolist() == some.mask[:, 0, 0, 0].tolist()
    numbers = some.image[:, 0, 0, 0].int().tolist()
    assert numbers == sorted(numbers) and [f"scene {n % 6}" for n in numbers] == some.table["photograph"].tolist()


def test_the_second_of_a_scene_is_its_third_pair(crops):
    """Scene 0 has the numbers 0, 6, 12, ...; scene 1 has 1, 7, 13, ..."""
    numbers = thin(crops, 2).image[:, 0, 0, 0].int().tolist()
    assert numbers[:12] == [0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17]

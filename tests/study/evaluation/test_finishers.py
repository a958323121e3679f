"""Finishers compared: each baseline does what it is there for, and regret is told with the right sign."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from skimage import data

from asymlib.editing.compositing import paste_hard, paste_poisson
from asymlib.pixels import to_tensor
from asymlib.study.dataset.images import Pairs
from asymlib.study.edits import TINTS
from asymlib.study.evaluation.finishers import evaluate_finishers, evaluate_rim, make_edits, regret, scenes_of
from asymlib.study.evaluation.last_words import compare_last_words
from asymlib.study.finishers import LENGTHS, finishers, paste_colour_transferred


@pytest.fixture(scope="module")
def scene():
    image = to_tensor(data.astronaut()[None, 100:164, 200:264])
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:44, 20:50] = 1
    return image, mask


def test_screened_lengths_lie_between_hard_and_poisson(scene):
    image, mask = scene
    edited = (image + 0.2).clamp(-1, 1)
    ways = finishers(None)
    off = [(ways[f"screened_{n}"](image, edited, mask) - paste_hard(image, edited, mask)).abs().mean() for n in LENGTHS]
    poisson = (paste_poisson(image, edited, mask) - paste_hard(image, edited, mask)).abs().mean()
    assert all(a < b for a, b in zip([0, *off], [*off, poisson], strict=True))


def test_transferred_colours_undo_a_mixture_of_channels(scene):
    image, mask = scene
    edited = 0.8 * image + 0.1 * image.flip(1) + 0.05
    result = paste_colour_transferred(image, edited, mask)
    inside = mask.expand_as(image) > 0
    assert (result - image)[inside].abs().mean() < 0.4 * (edited - image)[inside].abs().mean()
    assert torch.equal(result[~inside], image[~inside])


@pytest.mark.parametrize("name", finishers(None))
def test_every_finisher_takes_a_whole_hole_and_none(scene, name):
    image, _ = scene
    edited, way = (image + 0.1).clamp(-1, 1), finishers(None)[name]
    for full in (0.0, 1.0):
        result = way(image, edited, torch.full((1, 1, 64, 64), full))
        torch.testing.assert_close(result, edited if full else image, atol=0.005, rtol=0)


def test_sources_and_rows(scene, first_stage):
    image, mask = (torch.cat([part, part.flip(-1)]) for part in scene)
    table = pd.DataFrame({"kind": "box", "mask": ["a", "b"], "photograph": ["a", "b"], "stratum": "photograph"})
    pairs = Pairs(image, mask, table)
    edits = make_edits(first_stage, None, pairs, 0, 0)
    assert set(edits) == {"own", "swapped", "removed", "recoloured", *(f"tinted_{kind}" for kind in TINTS)}
    some = {source: edits[source] for source in ("own", "swapped")}
    rows = evaluate_finishers(some, pairs, {"paste_hard": paste_hard, "ours": paste_poisson}, 0)
    assert set(rows["variant"]) == {"paste_hard", "ours"} and (rows.query("metric == 'pre_error'")["value"] == 0).all()
    assert "seam_added" not in set(rows.query("source == 'swapped'")["metric"])
    some["without"] = edits["own"]._replace(reference=None)
    of_rim = evaluate_rim(some, pairs, {"paste_hard": paste_hard, "ours": paste_poisson}, 0)
    pd.testing.assert_frame_equal(of_rim, rows.query("metric == 'ring_l1_4'").reset_index(drop=True))


def rows_with(values: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Four scenes, on which each variant has these metrics, a little more from scene to scene."""
    rows = []
    for variant, metrics in values.items():
        for i in range(4):
            common = {"variant": variant, "seed": 0, "source": "own", "mask_kind": f"k{i % 2}", "stratum": "photograph"}
            common |= {"photograph": f"p{i}", "pair": f"p{i}"}
            rows += [common | {"metric": metric, "value": value + 0.01 * i} for metric, value in metrics.items()]
    return pd.DataFrame(rows)


def test_regret_is_against_the_best_fair_finisher():
    """Breaks when the unfair ones compete, or PSNR, where more is better, is told like an error."""
    values = {"last_word": (2.2, 30.0), "good": (2.0, 29.0), "bad": (4.0, 20.0), "paste_feathered": (1.0, 40.0)}
    rows = rows_with({name: {"ring_l1_4": ring, "hole_psnr": psnr} for name, (ring, psnr) in values.items()})
    told = regret(rows).set_index("metric")
    assert set(told["best"]) == {"good"} and set(told["variant"]) == {"last_word"}
    assert told.loc["ring_l1_4_ratio_to_best", "value"] == pytest.approx(1.1, abs=0.01)
    assert told.loc["hole_psnr_difference_to_best", "value"] == pytest.approx(1.0)


def test_scenes_are_middle_squares_of_a_split(tmp_path):
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (80, 100, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / f"{i}.png")
    pairs = scenes_of(tmp_path, 2, 64, 0, "val")
    assert pairs.image.shape == (2, 3, 64, 64) and pairs.mask.shape == (2, 1, 64, 64)
    assert pairs.table["photograph"].str.startswith("val/").all()
    Image.open(tmp_path / "train" / "0.png").resize((90, 72)).save(tmp_path / "train" / "copy.png")
    own = scenes_of(tmp_path / "train", 24, 64, 0, None)  # a folder of one's own has no splits, and maybe copies
    assert len(own.image) == 4 and own.table["mask"].is_unique and own.table["photograph"].nunique() == 3
    with pytest.raises(ValueError, match="with 0 of 128 px or more, expected two at least"):
        scenes_of(tmp_path / "train", 24, 128, 0, None)


def test_last_words_of_other_seeds_are_no_competitors():
    rings = {"seed_1": 2.2, "seed_2": 1.0, "paste_hard": 4.0, "paste_poisson": 2.0}
    rows = rows_with(
        {name: {"ring_l1_4": ring, "seam_added": ring, "hole_changed": ring} for name, ring in rings.items()}
    )
    told = compare_last_words(rows, ["seed_1", "seed_2"]).set_index(["variant", "metric"])["value"]
    assert told["seed_1", "ring_l1_4_ratio_to_best"] == pytest.approx(1.1, abs=0.01)
    assert told["seed_2", "seam_added_ratio_to_paste_hard"] == pytest.approx(0.25, abs=0.01)
    assert told["seed_1", "hole_changed_ratio_to_paste_poisson"] == pytest.approx(1.1, abs=0.01)

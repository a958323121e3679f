"""The protocol: sources of the latent, and rows that a decoder's mistakes show up in."""

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch.nn.functional import avg_pool2d

from asymlib.editing.compositing import PASTES
from asymlib.models.inpainter import LatentInpainter
from asymlib.study.dataset.images import Pairs
from asymlib.study.evaluation.protocol import (
    SOURCES,
    evaluate,
    make_tasks,
    other_photograph,
    read_decoders,
    store_results,
)
from asymlib.study.params import load_params


@pytest.fixture(scope="module")
def pairs():
    image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(4, 1, 32, 32)
    mask[..., 8:16, 8:24] = 1
    table = pd.DataFrame({"mask": list("abcd"), "photograph": list("ppqq"), "stratum": "photograph", "kind": "box"})
    return Pairs(image, mask, table)


@pytest.fixture(scope="module")
def tasks(first_stage, pairs):
    return make_tasks(first_stage, LatentInpainter.build((16, 32), 1.0, 0), pairs, 2, 0)


def test_swapped_takes_the_hole_s_latent_and_reference_from_another_photograph(tasks, pairs):
    own, swapped = tasks["own"], tasks["swapped"]
    assert tuple(tasks) == SOURCES
    assert torch.equal(swapped.latent[0, :, 1:2, 1:3], own.latent[2, :, 1:2, 1:3])
    assert torch.equal(swapped.latent[0, :, 0], own.latent[0, :, 0])
    hole = pairs.mask.bool().expand_as(pairs.image)
    assert torch.equal(swapped.reference[0][hole[0]], pairs.image[2][hole[0]])
    assert torch.equal(swapped.reference[~hole], pairs.image[~hole])


def test_another_photograph_is_of_the_same_stratum():
    others = other_photograph(list("aabbxy"), ["photo"] * 4 + ["drawn"] * 2)
    assert others[4:] == [5, 4] and all(o in (2, 3) for o in others[:2]) and all(o in (0, 1) for o in others[2:4])
    with pytest.raises(ValueError, match="photographs: got only 'a' in stratum 'photo'"):
        other_photograph(list("aa"), ["photo"] * 2)


def test_rows_tell_a_perfect_decoder_from_one_with_an_inverted_mask(tasks, pairs):
    """Breaks when paste-back is inverted, a mask is dropped, or the reference is another one."""
    decoders = {
        "perfect": lambda latent, image, mask: image,
        "inverted": lambda latent, image, mask: image * mask,
    }
    rows = evaluate(decoders, {"own": tasks["own"]}, pairs, 2, 0)
    value = rows.pivot_table(index="variant", columns="metric", values="value")
    assert value.loc["perfect", "pre_error"] == 0 and value.loc["inverted", "pre_error"] > 0.01
    assert (
        value.loc["inverted_paste_hard", "pre_error"] == 0 and value.loc["inverted_paste_hard", "changed_pixels"] == 0
    )
    assert set(rows.columns) >= {"variant", "seed", "source", "mask_kind", "stratum", "photograph", "pair"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_measures_what_a_cpu_measures(tasks, pairs):
    """Breaks when a constant of a metric or of the feature network stays on the CPU."""
    decoders = {"blurred": lambda latent, image, mask: avg_pool2d(image, 3, 1, 1)}
    rows = [
        evaluate(decoders, {"own": tasks["own"]}, pairs, 2, 0, accelerator=accelerator)
        for accelerator in (None, Accelerator())
    ]
    assert rows[0]["value"].tolist() == pytest.approx(rows[1]["value"].tolist(), rel=0.01, abs=1e-6)


def test_a_missing_decoder_is_named(first_stage, monkeypatch, tmp_path):
    monkeypatch.setattr("asymlib.study.params.project_root", lambda: tmp_path)
    params = load_params("smoke", path=_params_file())
    with pytest.raises(FileNotFoundError, match="decoder .*base is missing; expected a folder with config.json"):
        read_decoders(params, first_stage)


def _params_file():
    from asymlib.study.project import project_root

    return project_root() / "params.yaml"


def test_results_are_pasted_in_every_way_that_is_asked_for(pairs, tasks):
    decoders = {"vanilla": lambda latent, image, mask: 0.5 * image}
    rows = evaluate(decoders, {"own": tasks["own"]}, pairs, 2, 0, PASTES)
    assert set(rows["variant"]) == {"vanilla", *(f"vanilla_{paste}" for paste in PASTES)}
    error = rows[rows["metric"] == "pre_error"].groupby("variant")["value"].mean()
    assert error["vanilla_paste_poisson"] == 0 < error["vanilla_paste_feathered"] < error["vanilla"]


def test_stored_results_are_the_pictures_that_were_measured(pairs, tasks, tmp_path):
    """Breaks when a picture is stored under another's name, truncated, or not pasted."""
    decoders = {"base": lambda latent, image, mask: 0.5 * image}
    store_results(decoders, tasks["own"], pairs, ["base", "base_paste_hard"], [1, 3], 2, tmp_path)
    assert len(list(tmp_path.iterdir())) == 8
    read = {
        name: np.asarray(Image.open(tmp_path / f"b_{name}.png")) for name in ("reference", "mask", "base_paste_hard")
    }
    reference = ((pairs.image[1] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    known = read["mask"] == 0
    assert (read["reference"] == reference).all() and known.mean() == 1 - pairs.mask[1].mean()
    assert (read["base_paste_hard"] == reference)[known].all() and not (read["base_paste_hard"] == reference).all()

"""Sets of samples: a decoder's KID is worse the more it blurs, and what cannot be had is empty."""

import pandas as pd
import pytest
import torch

from asymlib.study.dataset.images import Pairs
from asymlib.study.evaluation.generation import decode_all, distribution_table, reconstruction_rows
from asymlib.study.params import load_params
from asymlib.study.reporting.tables import COLUMNS, comparisons, summarise, wide_table


@pytest.fixture(scope="module")
def images():
    coarse = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(-1, 1)


def blurred(images, factor):
    small = torch.nn.functional.avg_pool2d(images, factor)
    return torch.nn.functional.interpolate(small, scale_factor=factor, mode="bilinear")


def test_a_blurring_decoder_is_further_from_real_images_and_fid_stays_empty(images):
    settings = load_params("smoke").generation
    table = distribution_table({"vanilla": blurred(images[:8], 2), "base": blurred(images[:8], 8)}, images, settings, 0)
    assert list(table.columns) == COLUMNS
    values = table.set_index(["variant", "metric"])["value"]
    assert values["real", "kid_effnet_to_real"] < values["vanilla", "kid_effnet_to_real"]
    assert values["vanilla", "kid_effnet_to_real"] < values["base", "kid_effnet_to_real"]
    assert ("base", "kid_effnet_to_vanilla") in values and ("vanilla", "kid_effnet_to_vanilla") not in values
    assert values["base", "kid_effnet_to_real_subset_deviation"] > 0  # in a row of its own, and no interval
    assert table[["low", "high"]].isna().all(axis=None) and set(table["n"]) == {8}
    assert wide_table(table, {"fid_effnet_to_real": ".2f"})["fid_effnet_to_real"].eq("").all()


def test_own_latents_are_judged_pair_by_pair(images):
    table = pd.DataFrame({"mask": list("abcd"), "photograph": list("ppqq"), "stratum": "photograph", "kind": "box"})
    pairs = Pairs(images[:4], torch.zeros(4, 1, 64, 64), table)
    rows = reconstruction_rows({"vanilla": images[:4] + 0.2, "base": images[:4] + 0.02}, pairs, 0)
    assert list(summarise(rows).columns) == COLUMNS
    difference = comparisons(rows, "psnr", "vanilla", "difference")
    assert difference["variant"].tolist() == ["base"] and difference["value"].item() == pytest.approx(20, abs=1e-3)


def test_decoding_gives_no_condition():
    seen = []
    result = decode_all(lambda *given: seen.append(given[1:]) or 3 * given[0], torch.ones(5, 3, 2, 2), 2)
    assert seen == [(None, None)] * 3 and torch.equal(result, torch.ones(5, 3, 2, 2))

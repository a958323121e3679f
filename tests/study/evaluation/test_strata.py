"""Pairs are sorted by what is in the hole, not by what is around it."""

import numpy as np
import pandas as pd
import torch

from asymlib.study.dataset.images import Pairs
from asymlib.study.evaluation.strata import AGAINST, by_class, classes_of, describe_pairs, where_table


def pairs_of(pictures: dict[str, torch.Tensor], sides: list[int]) -> Pairs:
    mask = torch.zeros(len(pictures), 1, 64, 64)
    for hole, side in zip(mask, sides, strict=True):
        hole[:, 32 - side // 2 : 32 + side // 2, 32 - side // 2 : 32 + side // 2] = 1
    return Pairs(torch.stack(list(pictures.values())), mask, pd.DataFrame({"mask": list(pictures)}))


def test_flat_texture_and_edges_are_told_apart():
    """Breaks when the surroundings count, or detail and direction are mixed up."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(3, 64, 64, generator=generator) * 2 - 1
    stripes = torch.sin(torch.arange(64.0) / 2).expand(3, 64, 64)
    flat = noise.clone()
    flat[:, 12:52, 12:52] = 0.2
    described = describe_pairs(pairs_of({"flat": flat, "noise": noise, "stripes": stripes}, [24, 28, 32]))
    table = described.set_index("pair")
    assert table["hole_share"].tolist() == [24**2 / 64**2, 28**2 / 64**2, 32**2 / 64**2]
    assert table.loc["flat", "detail"] < 0.01 < table.loc["noise", "detail"]
    assert table.loc["noise", "coherence"] < 0.6 < 0.95 < table.loc["stripes", "coherence"]
    classes = classes_of(described)
    assert classes["content"].to_dict() == {"flat": "flat", "noise": "texture", "stripes": "edges"}
    assert classes["hole"].tolist() == ["small", "middle", "large"]


def test_every_row_stands_in_its_kind_its_size_and_its_content():
    described = pd.DataFrame({"pair": list("abc"), "hole_share": [0.1, 0.2, 0.3], "detail": [0, 1, 1.0]})
    rows = pd.DataFrame({"pair": list("abc"), "mask_kind": "box", "value": np.arange(3.0)})
    sorted_rows = by_class(rows, described.assign(coherence=[0.5, 0.1, 0.9]))
    kinds = sorted_rows.groupby("mask_kind")["value"].apply(list).to_dict()
    assert kinds["box"] == [0, 1, 2] and kinds["hole small"] == [0] and kinds["content edges"] == [2]
    assert len(sorted_rows) == 9


def test_every_class_is_compared_with_pasting_on_its_own_pairs():
    """Breaks when a class takes the numbers of all pairs, or a metric that a source lacks is an error."""
    described = pd.DataFrame({"pair": list("abc"), "hole_share": [0.1, 0.2, 0.3], "detail": [0, 1, 1.0]})
    keys = {"seed": 0, "source": "own", "stratum": "photograph", "mask_kind": "box", "metric": "ring_l1_4"}
    rows = [
        pd.DataFrame(keys | {"pair": list("abc"), "photograph": list("xyy"), "variant": variant, "value": values})
        for variant, values in ((AGAINST, [1.0, 2, 3]), ("base", [2.0, 4, 8]))
    ]
    table = where_table(pd.concat(rows), described.assign(coherence=[0.5, 0.1, 0.9]))
    values = table.set_index("mask_kind")["value"]
    assert values["hole small"] == 1 and values["hole large"] == 5 and values["box"] == (1 + 3.5) / 2
    assert table["scenes"].tolist() == [2, 1, 1, 1, 1, 1, 1] and set(table["variant"]) == {"base"}

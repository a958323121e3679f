"""The distances grow with the damage, and the ladder would show it if they did not."""

import pandas as pd
import pytest
import torch

from asymlib.metrics import effnet_distance
from asymlib.models.features import EffNetFeatures
from asymlib.study.evaluation.ladder import LEVELS, damage, ladder_table, trust


@pytest.fixture
def image():
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(small, scale_factor=6, mode="bicubic").clamp(-1, 1)


@pytest.mark.parametrize("kind", LEVELS)
def test_every_step_is_more_damage_than_the_one_before(image, kind):
    """Breaks when a level is not used, or the levels are in the wrong order."""
    features, worse = EffNetFeatures(), [damage(image, kind, level) for level in LEVELS[kind]]
    assert all(w.shape == image.shape and w.abs().max() <= 1 for w in worse)
    means = [effnet_distance((image + 1) / 2, (w + 1) / 2, features).mean().item() for w in worse]
    assert means == sorted(means) and 0 < means[0]


def test_damage_that_there_is_not_is_named(image):
    with pytest.raises(ValueError, match="kind: got 'rain', expected one of blur, noise"):
        damage(image, "rain", 1)


def test_a_distance_that_does_not_follow_the_damage_is_found_out():
    """Breaks when the correlation is taken over the wrong axis, or one bad picture is averaged away."""
    rows = [
        {"kind": "blur", "level": level, "picture": picture, "effnet_distance": value, "kid_effnet": value}
        for picture, values in enumerate(([1, 2, 3, 4], [1, 2, 3, 4], [4, 3, 2, 1]))
        for level, value in zip(LEVELS["blur"], values, strict=True)
    ]
    found = trust(pd.DataFrame(rows)).iloc[0]
    assert found["effnet_distance"] == pytest.approx(1 / 3) and found["lowest"] == -1 and found["kid_effnet"] == 1
    table = ladder_table(pd.DataFrame(rows), 0).set_index(["variant", "metric"])["value"]
    assert table["blur_0.5", "effnet_distance"] == 2 and table["blur", "rank_correlation_lowest"] == -1

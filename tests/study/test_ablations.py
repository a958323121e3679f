"""On what the short runs are measured."""

import pandas as pd
import pytest
import torch

from asymlib.study.ablations import thin
from asymlib.study.dataset.images import Pairs


@pytest.fixture
def pairs():
    """As the default profile has them: ten crops of each of six scenes in turn, and drawings."""
    photographs = [f"scene {i % 6}" for i in range(60)] + [f"drawing {i}" for i in range(4)]
    table = pd.DataFrame({"photograph": photographs, "stratum": ["photograph"] * 60 + ["procedural"] * 4})
    number = torch.arange(64.0)[:, None, None, None]
    return Pairs(number.expand(-1, 3, 8, 8), number.expand(-1, 1, 8, 8), table)


@pytest.mark.parametrize("every, left", [(1, 10), (2, 5), (3, 4), (10, 1), (100, 1)])
def test_every_so_many_pairs_of_each_scene_are_measured(pairs, every, left):
    """Breaks when pairs are thinned by position: every second one is of three scenes of the six."""
    some = thin(pairs, every)
    assert some.table["photograph"].value_counts().to_dict() == {f"scene {i}": left for i in range(6)}
    assert some.image[:, 0, 0, 0].tolist() == some.mask[:, 0, 0, 0].tolist()
    numbers = some.image[:, 0, 0, 0].int().tolist()
    assert numbers == sorted(numbers) and [f"scene {n % 6}" for n in numbers] == some.table["photograph"].tolist()


def test_the_second_of_a_scene_is_its_third_pair(pairs):
    """Scene 0 has the numbers 0, 6, 12, ...; scene 1 has 1, 7, 13, ..."""
    numbers = thin(pairs, 2).image[:, 0, 0, 0].int().tolist()
    assert numbers[:12] == [0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17]

"""What reaches a known pixel of the official decoder, and what does not."""

import pandas as pd
import pytest
import torch
from torch import nn

from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.study.dataset.images import Pairs
from asymlib.study.evaluation.drift import known_errors, last_norm, what_reaches_known_pixels
from asymlib.study.evaluation.protocol import Task


@pytest.fixture
def vqgan(first_stage):
    return asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), True, True, 0)


@pytest.fixture
def given(vqgan):
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(2, 1, 32, 32)
    mask[..., 8:20, 8:20] = 1
    return vqgan.encode(image), image, mask


def test_beyond_the_rim_only_the_last_norm_carries_anything(vqgan, given):
    """Breaks when the rim is too narrow, or a disturbance does nothing."""
    weights = {name: p.clone() for name, p in vqgan.named_parameters()}
    reached = what_reaches_known_pixels(vqgan, *given, seed=0)
    assert (reached.loc[reached["last_norm"] == "identity", "beyond"] == 0).all()
    assert (reached.loc[reached["last_norm"] == "as it is", "beyond"] > 0).all() and (reached["rim"] > 0).all()
    assert all(torch.equal(p, weights[name]) for name, p in vqgan.named_parameters())
    assert isinstance(vqgan.decoder.conv_norm_out, nn.GroupNorm)


def test_two_sources_differ_beyond_the_rim_by_the_statistics_alone(vqgan, given):
    latent, image, mask = given
    columns = {"mask": list("ab"), "photograph": list("pq"), "stratum": "photograph", "kind": "box"}
    tasks = {"own": Task(latent, image), "other": Task(latent + torch.randn(latent.shape), image)}
    rows = known_errors(vqgan, tasks, Pairs(image, mask, pd.DataFrame(columns)), 2, 0)
    value = rows.groupby(["variant", "source"])["value"].mean()
    assert set(value.index) == {("as_it_is", "own"), ("as_it_is", "other"), ("all_known_statistics", "own")}
    assert value["as_it_is", "own"] != value["as_it_is", "other"]
    with last_norm(vqgan, nn.Identity()):
        plain = [vqgan.decode(task.latent, image, mask)[..., :7, :] for task in tasks.values()]
    assert torch.equal(*plain)

"""Simulated edits: what is known is the photo's, what is meant is right, and what is left out stays out."""

import numpy as np
import pytest
import torch

from asymlib.pixels import to_tensor
from asymlib.study.dataset import artefacts
from asymlib.study.dataset.artefacts import (
    MASKS,
    autoencoder_codec,
    draw_mask,
    fixed_codecs,
    simulate,
    small_autoencoder,
)
from asymlib.study.dataset.procedural import procedural_image


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.stack([procedural_image(128, rng) for _ in range(4)])).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def codecs(images, first_stage):
    small = {"small": autoencoder_codec(small_autoencoder(8, 4, 8, 0), images)}
    return fixed_codecs({"first_stage": first_stage}, images) | small


def test_every_codec_gives_a_picture_of_the_same_size(codecs, images):
    for size in (64, 128):
        picture = to_tensor(images[:1, :, :size, :size])
        for name, codec in codecs.items():
            with torch.no_grad():
                assert codec.decode(codec.encode(picture)).shape == picture.shape, name


def test_a_better_code_is_nearer_to_the_picture(codecs, images):
    picture = to_tensor(images[:1])
    with torch.no_grad():
        off = {name: (c.decode(c.encode(picture)) - picture).square().mean() for name, c in codecs.items()}
    assert off["pca_f4"] < off["pca_f8"] and off["jpeg"] < off["first_stage"]


@pytest.mark.parametrize("kind", MASKS)
def test_every_mask_has_a_hole_and_something_known(kind):
    for seed in range(5):
        mask = draw_mask(kind, 64, np.random.default_rng(seed))
        assert mask.shape == (1, 1, 64, 64) and 0 < mask.mean() < 1 and set(mask.unique().tolist()) == {0, 1}
    if kind == "frame":
        assert (mask[..., 8:-8, 8:-8] == 1).all() and (mask[..., 0, :] == 0).all()


def test_what_is_meant_is_the_photo_outside_and_the_codec_shows_in_the_edit(codecs, images):
    edits = simulate(codecs, images, {64: 24}, seed=0)[64]
    known = (edits.mask == 0).expand_as(edits.photo)
    assert torch.equal(edits.meant[known], edits.photo[known])
    assert all((e != p).any() for e, p in zip(edits.edited, edits.photo, strict=True))
    contents = {kind[1] for kind in edits.kinds}
    assert contents == {"own", "swapped", "removed", "recoloured", "continued"}
    same = [torch.equal(m, p) for m, p in zip(edits.meant, edits.photo, strict=True)]
    own = [content == "own" for _, content, _ in edits.kinds]
    assert all(s for s, o in zip(same, own, strict=True) if o)
    assert sum(same) <= sum(own) + 2  # flat ground may have been put in the place of flat ground


def test_what_continues_its_surroundings_means_less_of_a_step_than_other_content(codecs, images, monkeypatch):
    monkeypatch.setattr(artefacts, "SOFT", 0.0)
    steps = {}
    for content in ("continued", "swapped"):
        monkeypatch.setattr(artefacts, "CONTENTS", {content: 1.0})
        edits = simulate({"jpeg": codecs["jpeg"]}, images, {64: 16}, seed=0)[64]
        rim = (torch.diff(edits.mask.float(), dim=3) != 0).expand(-1, 3, -1, -1)
        steps[content] = torch.diff(to_tensor(edits.meant), dim=3).abs()[rim].mean()
    assert 0 < steps["continued"] < steps["swapped"] / 2


def test_an_edit_does_not_depend_on_how_many_there_are(codecs, images):
    few, many = (simulate(codecs, images, {64: count}, seed=3)[64] for count in (2, 5))
    assert torch.equal(few.edited, many.edited[:2]) and few.kinds == many.kinds[:2]
    assert not torch.equal(simulate(codecs, images, {64: 2}, seed=4)[64].edited, few.edited)


@pytest.mark.parametrize("without", ["jpeg", "swapped", "gamma"])
def test_what_is_left_out_is_in_no_edit_and_all_others_stay(codecs, images, without):
    edits = simulate(codecs, images, {64: 20}, seed=0)[64]
    left = edits.without(without)
    stays = [i for i, kind in enumerate(edits.kinds) if without not in "+".join(kind).split("+")]
    assert 0 < len(stays) < 20 and left.kinds == [edits.kinds[i] for i in stays]
    assert torch.equal(left.edited, edits.edited[stays]) and torch.equal(left.mask, edits.mask[stays])

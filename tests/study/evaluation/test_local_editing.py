"""The inside of an edit, on worked examples, and rows that judge decoders from both sides."""

import pandas as pd
import pytest
import torch

from asymlib.editing.local_editing import Edit
from asymlib.study.dataset.images import Pairs
from asymlib.study.evaluation.distribution import PooledEffNet
from asymlib.study.evaluation.local_editing import (
    ADDED,
    OUTSIDE,
    choose,
    edit_rows,
    followed_example,
    followed_prompt,
    make_requests,
    mask_agreement,
    spread,
)


def halves(left, right, size=32):
    """A picture of two colours in [0, 1]."""
    image = torch.empty(1, 3, size, size)
    image[..., : size // 2] = torch.tensor(left).reshape(3, 1, 1) * 2.0 - 1
    image[..., size // 2 :] = torch.tensor(right).reshape(3, 1, 1) * 2.0 - 1
    return image


RED, BLUE, BLACK = (1, 0, 0), (0, 0, 1), (0, 0, 0)
LEFT = halves((1, 1, 1), (0, 0, 0))[:, :1] / 2 + 0.5


def test_a_request_replaces_one_word_of_several():
    requests = make_requests(torch.cat([halves(RED, RED), halves(RED, BLACK)]))
    assert [r.image for r in requests] == [1]  # a picture of one word has no part to edit
    (request,) = requests
    with pytest.raises(ValueError, match="image: got 1 pictures of one word each"):
        make_requests(halves(RED, RED))
    assert request.source == "red dark" and request.old not in request.target and request.new in request.target.split()


def test_the_prompt_s_word_is_looked_for_in_the_hole_alone():
    before, after = halves(RED, BLUE), halves(BLUE, RED)
    assert followed_prompt(before, LEFT, ["blue"])["word_share"].item() == 0
    assert followed_prompt(after, LEFT, ["blue"])["word_share"].item() == 1
    assert followed_prompt(before, LEFT, ["blue"])["word_score"].item() == pytest.approx(-0.5)
    assert followed_prompt(after, LEFT, ["blue"])["word_score"].item() == pytest.approx(1.0)


def test_the_example_s_colour_and_features_are_compared_with_the_hole():
    network, example, photograph = PooledEffNet(), halves(BLUE, BLUE), halves(RED, BLACK)
    near, far = (
        followed_example(image, LEFT, photograph, example, network) for image in (halves(BLUE, RED), photograph)
    )
    assert near["example_colour_distance"].item() == pytest.approx(0, abs=1e-6)
    assert far["example_colour_distance"].item() == pytest.approx(2**0.5)
    assert near["example_effnet_distance"].item() < far["example_effnet_distance"].item()
    changed_outside = followed_example(halves(BLUE, BLUE), LEFT, photograph, example, network)
    assert torch.equal(changed_outside["example_effnet_distance"], near["example_effnet_distance"])


def test_a_found_region_is_compared_with_the_word_s_cells():
    image = halves(RED, BLACK)
    exact, all_of_it = (mask_agreement(mask, image, ["red"]) for mask in (LEFT, torch.ones_like(LEFT)))
    assert exact["precision"].item() == exact["recall"].item() == 1 and exact["chance"].item() == 0.5
    assert all_of_it["precision"].item() == 0.5 and all_of_it["recall"].item() == 1
    assert mask_agreement(torch.zeros_like(LEFT), image, ["red"])["precision"].item() == 0


def test_indices_are_spread_and_no_more_than_there_are():
    assert spread(80, 3) == [0, 40, 79] or spread(80, 3) == [0, 39, 79]
    assert spread(2, 5) == [0, 1] and spread(0, 5) == []


@pytest.fixture
def edited():
    """Two red pictures whose left half is to become blue: the edit, its pairs, and how well the wish is met."""
    table = pd.DataFrame({"mask": ["a", "b"], "photograph": ["p", "q"], "stratum": "photograph", "kind": "box"})
    red, left = halves(RED, RED).repeat(2, 1, 1, 1), LEFT.repeat(2, 1, 1, 1)
    pairs = choose(Pairs(red, left, table), [0, 1], left)
    return (
        Edit(torch.zeros(2, 4, 4, 4), pairs.mask),
        pairs,
        lambda image: followed_prompt(image, pairs.mask, ["blue", "blue"]),
    )


def decode_to(left, right):
    return lambda latent, image, mask: halves(left, right).repeat(len(latent), 1, 1, 1)


def test_rows_judge_known_pixels_by_the_photograph_and_the_inside_by_the_wish(edited):
    """A decoder that returns blue everywhere follows the wish and keeps nothing; pasting back keeps all."""
    vanilla = decode_to(BLUE, BLUE)
    rows = edit_rows({"vanilla": vanilla}, vanilla, *edited, "prompt", 1, 0)
    means = rows.groupby(["variant", "metric"])["value"].mean()
    assert means["vanilla", "word_share"] == means["vanilla_paste_hard", "word_share"] == 1
    assert means["photograph", "word_share"] == 0 and ("photograph", "pre_error") not in means
    assert means["vanilla", "pre_error"] == pytest.approx(2 / 3) and means["vanilla_paste_hard", "pre_error"] == 0
    assert set(rows.loc[rows["variant"] == "vanilla", "metric"]) == {*OUTSIDE, *ADDED, "word_score", "word_share"}
    assert set(rows["mask_kind"]) == {"found"}


def test_who_undoes_an_edit_wins_nothing(edited):
    """The edit turns the left half blue. `undoing` shows the photograph: by the photograph it would be perfect, even
    at the rim. Breaks when anything in the hole or at its rim is compared with the unedited photograph."""
    decoders = {"vanilla": decode_to(BLUE, RED), "undoing": decode_to(RED, RED), "keeping": decode_to(BLUE, RED)}
    rows = edit_rows(decoders, decode_to(BLUE, RED), *edited, "prompt", 2, 0)
    means = rows.groupby(["variant", "metric"])["value"].mean().unstack()
    assert means.loc["undoing", "word_share"] == 0 and means.loc["keeping", "word_share"] == 1
    assert means.loc["undoing", "hole_changed"] == pytest.approx(170, rel=1e-5)  # two channels of three by 255
    assert means.loc["undoing", "seam_added"] == pytest.approx(170, rel=1e-5)
    assert (means.loc[["vanilla", "vanilla_paste_hard", "keeping"], list(ADDED)] == 0).all(axis=None)


def test_another_latent_s_vanilla_decoder_is_compared_with_itself(edited):
    """As notebook 07 measures what the diffusion model paints unasked: under a name of its own, without pasting."""
    vanilla = decode_to(BLUE, BLACK)
    rows = edit_rows({"vanilla_unasked": vanilla}, vanilla, *edited, "prompt", 2, 0)
    assert set(rows["variant"]) == {"photograph", "vanilla_unasked"}
    assert (rows.loc[rows["metric"].isin(ADDED), "value"] == 0).all()

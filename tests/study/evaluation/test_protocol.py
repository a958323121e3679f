"""The protocol: sources of the latent, and rows that a decoder's mistakes show up in."""

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch.nn.functional import avg_pool2d

from asymlib.editing.compositing import PASTES
from asymlib.models.first_stage import encode_means
from asymlib.models.inpainter import LatentInpainter
from asymlib.study.dataset.images import Pairs
from asymlib.study.evaluation.protocol import (
    evaluate,
    make_tasks,
    other_photograph,
    plain,
    read_decoders,
    store_results,
)
from asymlib.study.params import load_params
from asymlib.study.sources import EDGED, REFERENCES, SOURCES


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


def black(latent, image, mask):
    return -torch.ones_like(image)


def test_swapped_takes_the_hole_s_latent_and_reference_from_another_photograph(tasks, pairs):
    own, swapped = tasks["own"], tasks["swapped"]
    assert tuple(tasks) == SOURCES
    assert torch.equal(swapped.latent[0, :, 1:2, 1:3], own.latent[2, :, 1:2, 1:3])
    assert torch.equal(swapped.latent[0, :, 0], own.latent[0, :, 0])
    hole = pairs.mask.bool().expand_as(pairs.image)
    assert torch.equal(swapped.reference[0][hole[0]], pairs.image[2][hole[0]])
    assert torch.equal(swapped.reference[~hole], pairs.image[~hole])


def test_only_a_hole_with_a_right_answer_has_a_reference(tasks, pairs):
    """Breaks when the photograph, which nobody asked the diffusion model for, is the reference of its hole."""
    assert {source: task.reference is not None for source, task in tasks.items()} == {
        source: bool(REFERENCES[source]) for source in SOURCES
    }
    assert torch.equal(tasks["own"].reference, pairs.image) and tasks["inpainted"].reference is None


@pytest.mark.parametrize("source", ["removed", "recoloured"])
def test_an_edit_is_encoded_as_a_whole_and_is_its_own_reference(tasks, pairs, first_stage, source):
    """Breaks when the latent is that of the photograph, or the reference is changed outside of the hole."""
    task, hole = tasks[source], pairs.mask.bool().expand_as(pairs.image)
    assert torch.equal(task.reference[~hole], pairs.image[~hole])
    assert (task.reference[hole] - pairs.image[hole]).abs().mean() > 0.05
    torch.testing.assert_close(task.latent, encode_means(first_stage, task.reference))


def test_blended_latents_end_with_the_photograph_s_known_cells(tasks, pairs):
    known = (pairs.mask[..., ::8, ::8] == 0).expand_as(tasks["own"].latent)
    torch.testing.assert_close(tasks["blended"].latent[known], tasks["own"].latent[known])
    assert (tasks["inpainted"].latent[known] - tasks["own"].latent[known]).abs().mean() > 0.1


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
    rows = evaluate(decoders, black, {"own": tasks["own"]}, pairs, 2, 0)
    value = rows.pivot_table(index="variant", columns="metric", values="value")
    assert value.loc["perfect", "pre_error"] == 0 and value.loc["inverted", "pre_error"] > 0.01
    assert (
        value.loc["inverted_paste_hard", "pre_error"] == 0 and value.loc["inverted_paste_hard", "changed_pixels"] == 0
    )
    assert set(rows.columns) >= {"variant", "seed", "source", "mask_kind", "stratum", "photograph", "pair"}


KNOWN = {"pre_error", "pre_error_all", "pre_error_uint8", "rounding_floor", "psnr_kept"}
KNOWN |= {"max_abs_uint8", "changed_pixels"}
AGAINST = {"seam_grad", "ring_l1_2", "ring_l1_4", "ring_l1_8", "hole_psnr", "hole_effnet_distance", "effnet_distance"}


def test_a_source_is_measured_by_what_means_something_there(first_stage, tasks, pairs):
    """Breaks when a hole without a right answer is compared with one, or a seam is looked for on an edge of v's own."""
    rows = evaluate({"other": lambda latent, image, mask: -image}, plain(first_stage), tasks, pairs, 2, 0)
    assert {source: set(group["metric"]) for source, group in rows.groupby("source")} == {
        "own": KNOWN | AGAINST | {"seam_added", "hole_changed"},
        "swapped": KNOWN | AGAINST | {"hole_changed"},
        "removed": KNOWN | AGAINST | {"hole_changed"},
        "recoloured": KNOWN | AGAINST | {"hole_changed"},
        "inpainted": KNOWN | {"seam_added", "hole_changed"},
        "blended": KNOWN | {"seam_added", "hole_changed"},
    }
    assert rows["value"].notna().all()


def test_results_are_compared_with_what_the_vanilla_decoder_makes_of_the_same_latent(first_stage, tasks, pairs):
    """A hole 12.75 levels brighter than v, in every source; breaks when v is of another latent, batch or decoder."""
    decoded = []

    def vanilla(latent, image, mask):
        decoded.append(len(latent))
        return 0.5 * plain(first_stage)(latent, image, mask).clamp(-1, 1)

    def brighter(latent, image, mask):
        return 0.5 * plain(first_stage)(latent, image, mask).clamp(-1, 1) + 0.1 * mask

    rows = evaluate({"brighter": brighter}, vanilla, tasks, pairs, 2, 0)
    added = rows[(rows["variant"] == "brighter") & rows["metric"].isin(["seam_added", "hole_changed"])]
    assert added["value"].tolist() == pytest.approx([12.75] * (2 * len(SOURCES) - len(EDGED)) * 4, rel=1e-4)
    assert decoded == [2, 2] * len(SOURCES)
    rows = evaluate({"vanilla": vanilla}, vanilla, tasks, pairs, 2, 0).set_index(["variant", "metric"])["value"]
    assert (rows["vanilla", "seam_added"] == 0).all() and (rows["vanilla", "hole_changed"] == 0).all()
    pasted = rows["vanilla_paste_hard"]
    assert (pasted["seam_added"] > 1).all() and (pasted["hole_changed"] == 0).all()
    assert len(decoded) == 4 * len(SOURCES)  # what is evaluated is not decoded once more


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_measures_what_a_cpu_measures(tasks, pairs):
    """Breaks when a constant of a metric or of the feature network stays on the CPU."""
    decoders = {"blurred": lambda latent, image, mask: avg_pool2d(image, 3, 1, 1)}
    rows = [
        evaluate(decoders, black, tasks, pairs, 2, 0, accelerator=accelerator) for accelerator in (None, Accelerator())
    ]
    assert rows[0]["value"].tolist() == pytest.approx(rows[1]["value"].tolist(), rel=0.01, abs=1e-6)


def test_a_hole_that_is_the_whole_picture_has_no_seam_and_stays_in_the_rows(tasks, pairs):
    """Missing is told apart from 0, which would be praise; the other pairs of the batch are measured."""
    whole = pairs._replace(mask=torch.cat([torch.ones_like(pairs.mask[:1]), pairs.mask[1:]]))
    rows = evaluate({"vanilla": black}, black, {"inpainted": tasks["inpainted"]}, whole, 2, 0, pastes={})
    assert rows.loc[rows["metric"] == "seam_added", "value"].isna().tolist() == [True, False, False, False]
    assert rows.loc[rows["metric"] == "hole_changed", "value"].tolist() == [0] * 4


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
    rows = evaluate(decoders, decoders["vanilla"], {"own": tasks["own"]}, pairs, 2, 0, PASTES)
    assert set(rows["variant"]) == {"vanilla", *(f"vanilla_{paste}" for paste in PASTES)}
    error = rows[rows["metric"] == "pre_error"].groupby("variant")["value"].mean()
    assert error["vanilla_paste_poisson"] == 0 < error["vanilla_paste_feathered"] < error["vanilla"]


@pytest.mark.parametrize("source", SOURCES)
def test_stored_results_are_the_pictures_that_were_measured(pairs, tasks, tmp_path, source):
    """Breaks when a picture is stored under another's name, truncated, or not pasted; or known pixels are another's."""
    decoders = {"base": lambda latent, image, mask: 0.5 * image}
    store_results(decoders, tasks[source], pairs, ["base", "base_paste_hard"], [1, 3], 2, tmp_path)
    assert len(list(tmp_path.iterdir())) == 8
    read = {
        name: np.asarray(Image.open(tmp_path / f"b_{name}.png")) for name in ("reference", "mask", "base_paste_hard")
    }
    photograph, right = (
        ((image[1] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        for image in (pairs.image, pairs.image if tasks[source].reference is None else tasks[source].reference)
    )
    known = read["mask"] == 0
    assert (read["reference"] == right).all() and known.mean() == 1 - pairs.mask[1].mean()
    assert (read["base_paste_hard"] == photograph)[known].all() and not (read["base_paste_hard"] == photograph).all()

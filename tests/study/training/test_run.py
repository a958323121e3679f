"""A decoder's row decides how it starts."""

from functools import partial

import pytest
import torch

from asymlib.models.first_stage import load_first_stage, pretrained
from asymlib.study.params import DecoderRow, load_ablations, load_params
from asymlib.study.reporting.budget import HEAVIER
from asymlib.study.training import run
from asymlib.training.fitting import FittingSettings


@pytest.mark.parametrize(("inherit", "changes"), [("fitted", True), (True, False)])
def test_a_row_that_says_so_is_fitted_before_it_is_trained(first_stage, crops, tmp_path, monkeypatch, inherit, changes):
    monkeypatch.setattr(run, "FittingSettings", partial(FittingSettings, pictures=2, steps=2, batch=2))
    rows = {"base": DecoderRow(scale="base", branch=True, inherit=inherit)}
    params = load_params("smoke").model_copy(update={"decoders": rows})
    vqgan = run.build_decoder(params, "base", first_stage)
    start = vqgan.decoder.conv_out.weight.clone()
    assert torch.equal(start, first_stage.decoder.conv_out.weight)
    run.fit(params, "base", vqgan, crops, tmp_path / "fitted.safetensors", "data")
    assert torch.equal(vqgan.decoder.conv_out.weight, start) != changes
    assert (tmp_path / "fitted.safetensors").is_file() == changes


def test_base_has_as_much_compute_as_the_heavier_ones_that_it_is_compared_with():
    """Breaks when the fit, which is dearer on a heavier trunk, is left out, or the steps no longer fit."""
    _, params = load_ablations(section="long_runs")
    bundled = load_first_stage(pretrained("first_stage"))
    for heavier, (_, of_compute) in HEAVIER.items():
        two = (heavier, of_compute)
        ours, bases = (run.what_it_cost(params, n, run.build_decoder(params, n, bundled))["training_tmac"] for n in two)
        assert bases == pytest.approx(ours, rel=0.01)

"""The bench: what it counts and writes; what it times decides nothing here."""

import json

import pandas as pd
import pytest
import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderKL

from asymlib.models.construction import asymmetric_vqgan
from asymlib.study import bench

COLUMNS = ["subject", "reference", "size_px", "hole_share", "metric", "ratio", "low", "high"]


@pytest.fixture
def tiny_decoders(monkeypatch):
    """The same classes, eight channels wide."""
    types = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    widths, rest = (8, 16, 32, 32), {"latent_channels": 4, "norm_num_groups": 4}
    plain = AutoencoderKL(**types, block_out_channels=widths, **rest)
    both = {"down_block_out_channels": widths, "up_block_out_channels": widths}
    layers = {"layers_per_down_block": 1, "layers_per_up_block": 1}
    asymmetric = AsymmetricAutoencoderKL(**types, **both, **layers, **rest)
    decoders = {"vanilla": plain, "asymmetric": asymmetric, "base": asymmetric_vqgan(plain)}
    monkeypatch.setattr(bench, "all_decoders", lambda: decoders)
    monkeypatch.setattr(bench, "LARGE", (1024, 2048))
    monkeypatch.setattr(bench, "SIDES", (64, 128, 256))
    monkeypatch.setattr(bench, "_launched", lambda processes: 4.0 / processes)


def test_it_writes_ratios_to_both_references_and_the_machine(tiny_decoders, tmp_path):
    bench.bench([256], 2, tmp_path / "bench.csv")
    table = pd.read_csv(tmp_path / "bench.csv")
    assert list(table.columns) == COLUMNS and table["size_px"].dtype == int
    timed = {"vanilla", "base", "decode_hole", "last_word", "paste_poisson"}
    by_onnx = {"onnx", "onnx_last_word"} & set(table["subject"])
    assert timed <= set(table["subject"]) and len(by_onnx) == (0 if torch.cuda.is_available() else 2)
    assert {"vanilla_channels_last", "vanilla_bfloat16"} <= set(table.loc[table["reference"] == "vanilla", "subject"])
    references = {"vanilla", "asymmetric", "vanilla_128_px", "training_1_process", "decode_hole"}
    assert set(table["reference"]) == references
    halved = set(table.loc[table["reference"] == "decode_hole", "subject"])
    assert halved == {"decode_hole_channels_last", "decode_hole_bfloat16"}
    sizes = table[table["metric"] == "parameters"].set_index(["subject", "reference"])["ratio"]
    assert sizes["vanilla", "asymmetric"] < 1 == sizes["base", "asymmetric"] and sizes["last_word", "vanilla"] > 0
    times = table[table["metric"] == "time"]
    assert (times["low"] <= times["ratio"]).all() and (times["ratio"] <= times["high"]).all()
    facts = json.loads((tmp_path / "bench.json").read_text())
    assert facts["rounds"] == 2 and facts["threads"] >= 1 and facts["commit"]
    assert {"training_share_of_peak", "training_steps_a_second", "masks_a_second"} <= facts.keys()
    grown = table[table["reference"] == "vanilla_128_px"].set_index(["subject", "metric"])["ratio"]
    assert grown["vanilla_batch_4", "macs"] == 4 and 4 <= grown["vanilla_256_px", "macs"] < 5
    assert grown["vanilla_1024_px", "macs"] > 64 and grown["vanilla_1024_px", "memory"] == pytest.approx(64, rel=0.05)
    if not torch.cuda.is_available():
        assert table.set_index("subject").loc["training_2_processes", "ratio"] == 2  # as slow a step
    large = table[table["size_px"] == 2048]
    assert large["metric"].tolist() == ["memory"] and large["ratio"].item() < 0.5
    assert 0 < facts["decode_hole_gib"]["1024"] < facts["decode_hole_gib"]["2048"] < 1


def test_memory_is_counted_as_if_it_were_taken(tiny_decoders):
    """Breaks when the meta device sees other windows, or other tensors, than a run does."""
    plain, side = bench.all_decoders()["vanilla"], 1024
    table = bench.large_memory(plain).set_index(["size_px", "reference"])["ratio"]
    image, mask = torch.zeros(1, 3, side, side), bench.square_hole(side, bench.SMALL)
    taken = bench.peak_memory(lambda: bench.decode_hole(plain, torch.zeros(1, 4, side // 8, side // 8), image, mask))
    assert taken == pytest.approx(table[side, bench.ABSOLUTE] * 2**30, rel=0.1)


def test_a_smaller_hole_counts_fewer_macs_and_less_memory(tiny_decoders):
    table = bench.measured(bench.runs_at(bench.all_decoders(), 256, "cpu"), 1, "cpu")
    of_holes = table[(table["subject"] == "decode_hole") & (table["reference"] == "vanilla")]
    macs = of_holes[of_holes["metric"] == "macs"].set_index("hole_share")["ratio"]
    assert macs.is_monotonic_increasing and macs[0.05] < 0.8
    assert macs[1.0] == pytest.approx(1)
    memory = of_holes[of_holes["metric"] == "memory"].set_index("hole_share")["ratio"]
    assert memory[0.05] < 0.8 * memory[1.0]


def test_a_gpu_is_timed_by_its_events(monkeypatch):
    """Breaks when the clock of Python is taken, or the events before the work has ended."""
    told = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            told.append("event")

        def elapsed_time(self, stop):
            assert told == ["event", "work", "event", "wait"]
            return 250.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: told.append("wait"))
    assert bench._seconds(lambda: told.append("work"), "cuda") == 0.25


def test_the_record_of_a_gpu_has_milliseconds(tiny_decoders):
    runs = {key: run for key, run in bench.runs_at(bench.all_decoders(), 64, "cpu").items() if key[0] == "vanilla"}
    table = bench.measured(runs, 2, "cpu").assign(size_px=64)
    [of_vanilla] = bench._milliseconds(table)
    assert of_vanilla["low"] <= of_vanilla["milliseconds"] <= of_vanilla["high"]
    assert (of_vanilla["subject"], of_vanilla["size_px"], of_vanilla["hole_share"]) == ("vanilla", 64, 1.0)


def test_full_size_is_stable_diffusions():
    """Breaks when the ratios are those of another architecture."""
    with torch.device("meta"):
        plain, asymmetric = bench.plain_decoder(), bench.asymmetric_decoder()
    assert sum(p.numel() for p in plain.parameters()) == 83_653_863
    assert sum(p.numel() for p in asymmetric.parameters()) == 94_439_911


@pytest.mark.parametrize("processes", [1, 2])
def test_training_is_timed_in_as_many_processes(processes):
    """Breaks when the launcher refuses, which a mocked one does not show."""
    assert bench._launched(processes) > 0

"""`make bench`: what decoding and finishing cost beside each other, timed alternately in one run on this machine.

    python -m asymlib.study.bench [--sizes 256 512] [--rounds 3] [--out results/bench.csv]
    accelerate launch --multi_gpu --num_processes 2 -m asymlib.study.bench --training

The second times training alone, in the processes that it is launched in; the first calls it.

Full-size decoders of Stable Diffusion's make with random weights: what they cost does not depend on their values. The
table has ratios alone, since another machine is faster or slower at all of it; beside them what was counted. On a GPU,
which is one of few and whose times others can compare, the record has its milliseconds as well.
"""

import argparse
import copy
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import count, repeat
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderKL
from onnxruntime import InferenceSession, SessionOptions
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from tqdm import tqdm

from asymlib.editing.compositing import PASTES
from asymlib.files import written
from asymlib.masks import training_masks
from asymlib.models.construction import asymmetric_vqgan
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.export import export_onnx
from asymlib.models.first_stage import load_first_stage, pretrained
from asymlib.models.holes import decode_hole
from asymlib.models.shipped import load
from asymlib.study.evaluation.cost import peak_memory, square_hole
from asymlib.study.provenance import provenance
from asymlib.training.decoder import decode_macs, train_decoder
from asymlib.training.distributed import make_accelerator
from asymlib.training.settings import TrainingSettings

SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)  # of the picture that is hole, a square in its middle
REFERENCES = ("vanilla", "asymmetric")
# torch sees nothing, or not all, of what they do
UNCOUNTED = ("onnx", "onnx_last_word", "vanilla_compiled", "paste_laplacian", "paste_poisson", "paste_overlay")
ABSOLUTE = "none"  # the reference of what is no ratio
FINISHED = 0.25  # the hole of what comes after a decoder
LARGE = (2048, 4096)  # pixels a side of pictures whose memory alone is counted
SMALL = 0.1  # the hole of windows
WINDOWED = ("channels_last", "bfloat16")  # what windows gain by as well; they call parts of a decoder, none compiled
SIDES = (128, 256, 512)  # pixels, of decodes whose growth is timed; beyond them it is counted
BATCHES = (2, 4)  # of pictures of the middle side
BATCH, CROP = 8, 48  # crops of a training step, and the side of one in pixels
TYPES = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
WIDTHS = (128, 256, 512, 512)


def _attention(query: tuple, key: tuple, value: tuple, *_, **__) -> int:
    return sdpa_flop_count(query, key, value)


ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}  # torch counts only the GPU's

Runs = dict[tuple[str, float], Callable[[], object]]  # (subject, hole's share of the picture) -> what is timed


def plain_decoder() -> AutoencoderKL:
    """Stable Diffusion's autoencoder, untrained."""
    return AutoencoderKL(**TYPES, block_out_channels=WIDTHS, layers_per_block=2, latent_channels=4)


def asymmetric_decoder() -> AsymmetricAutoencoderKL:
    """diffusers' class for the paper's base, untrained."""
    widths = {"down_block_out_channels": WIDTHS, "up_block_out_channels": WIDTHS}
    layers = {"layers_per_down_block": 2, "layers_per_up_block": 2}
    return AsymmetricAutoencoderKL(**TYPES, **widths, **layers, latent_channels=4)


def all_decoders() -> dict[str, torch.nn.Module]:
    """What is decoded with, by name: the plain one, diffusers' class for the paper's, and ours."""
    plain = plain_decoder()
    return {"vanilla": plain, "asymmetric": asymmetric_decoder(), "base": asymmetric_vqgan(plain)}


def onnx_sessions(vqgan: AsymmetricVQGAN) -> dict[str, InferenceSession]:
    """A decoder, `onnx`, and the last word, `onnx_last_word`, as onnxruntime has them on the CPU, with as many threads
    as torch; none without the extra `onnx`."""
    if not find_spec("onnxscript"):
        return {}
    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the next run has the cores to itself
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in {"onnx": vqgan, "onnx_last_word": load("last_word")}.items():
            export_onnx(model, path := Path(folder) / f"{name}.onnx")
            sessions[name] = InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return sessions


def runs_at(
    decoders: dict[str, torch.nn.Module], size: int, device: str, sessions: dict[str, InferenceSession] | None = None
) -> Runs:
    """What is timed at a size in pixels.

    Args:
        decoders: From `all_decoders`, on the device.
        size: In pixels.
        device: Where all of it lies.
        sessions: From `onnx_sessions`, on the CPU; None leaves them out.
    """
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, 4, size // 8, size // 8, generator=generator).to(device)
    image, edited = (torch.rand(1, 3, size, size, generator=generator).to(device) * 2 - 1 for _ in range(2))
    masks = {share: square_hole(size, share).to(device) for share in SHARES}
    hole, last_word = masks[FINISHED], load("last_word").to(device)
    runs: Runs = {("vanilla", 1.0): lambda: decoders["vanilla"].decode(latent)}
    for name in ("asymmetric", "base"):
        runs[name, FINISHED] = partial(decoders[name].decode, latent, image=image, mask=hole)
    if sessions:
        photo, made, known = image.numpy(), edited.numpy(), hole.numpy()
        inputs = {"onnx": {"latent": latent.numpy(), "image": photo, "mask": known}}
        inputs["onnx_last_word"] = {"photo": photo, "edited": made, "mask": known}
        for name, session in sessions.items():
            runs[name, FINISHED] = partial(session.run, None, inputs[name])
    for share, mask in masks.items():
        runs["decode_hole", share] = partial(decode_hole, decoders["vanilla"], latent, image, mask)
    for name, finisher in {**PASTES, "last_word": last_word}.items():
        runs[name, FINISHED] = partial(_finish_new_hole, finisher, image, edited, hole, count())
    return runs


def measured(runs: Runs, rounds: int, device: str, references: Sequence[str] = REFERENCES) -> pd.DataFrame:
    """Every run beside those of `references` of the same round.

    Returns:
        Rows `subject, reference, hole_share, metric, ratio, low, high`: `time` is the median of the rounds' ratios with
        the least and the largest, `macs` and `memory` (the peak of what is alive beside the weights) are counted once,
        but for UNCOUNTED. And of every run one whose reference is ABSOLUTE, of its milliseconds.
    """
    counted = {}
    for key, run in runs.items():  # which also warms up
        if key[0] in UNCOUNTED:
            _seconds(run, device)
            counted[key] = {}
            continue
        with FlopCounterMode(display=False, custom_mapping=ATTENTION) as flops:
            memory = peak_memory(run)
        counted[key] = {"macs": flops.get_total_flops() // 2, "memory": memory}
    seconds = {key: [] for key in runs}
    for _ in tqdm(range(rounds), desc="rounds"):
        for key, run in runs.items():
            seconds[key].append(_seconds(run, device))
    rows = []
    for key, times in seconds.items():
        thousand = [1000 * time for time in times]
        rows.append([key[0], ABSOLUTE, key[1], "milliseconds", median(thousand), min(thousand), max(thousand)])
        for against in [other for other in runs if other[0] in references and other[0] != key[0]]:
            ratios = [a / b for a, b in zip(times, seconds[against], strict=True)]
            rows.append([key[0], against[0], key[1], "time", median(ratios), min(ratios), max(ratios)])
            for metric, number in counted[key].items():
                rows.append([key[0], against[0], key[1], metric, number / counted[against][metric], None, None])
    return pd.DataFrame(rows, columns=["subject", "reference", "hole_share", "metric", "ratio", "low", "high"])


def parameters(decoders: dict[str, torch.nn.Module]) -> pd.DataFrame:
    """Of what decodes, and of the last word, beside those of both references."""
    counts = {name: sum(p.numel() for p in model.decoder.parameters()) for name, model in decoders.items()}
    counts["last_word"] = sum(p.numel() for p in load("last_word").parameters())
    pairs = [(name, against) for name in counts for against in REFERENCES if name != against]
    rows = [[name, against, 1.0, "parameters", counts[name] / counts[against]] for name, against in pairs]
    return pd.DataFrame(rows, columns=["subject", "reference", "hole_share", "metric", "ratio"])


def large_memory(plain: AutoencoderKL) -> pd.DataFrame:
    """Peak memory of windows around a hole beside the whole decode's, `memory`; and in GiB, with ABSOLUTE as reference.
    Both are counted on the meta device as `_counted` does."""
    rows, spared = [], _spared(plain)
    for side in LARGE:
        latent, image = (torch.zeros(s, device="meta") for s in (_latent_shape(side), (1, 3, side, side)))
        mask = square_hole(side, SMALL)  # not there: where the hole is has to be known
        windows = peak_memory(partial(decode_hole, spared, latent, image, mask))
        told = {"subject": "decode_hole", "size_px": side, "hole_share": SMALL, "metric": "memory"}
        rows.append(told | {"reference": "vanilla", "ratio": windows / _counted(plain, side)["memory"]})
        rows.append(told | {"reference": ABSOLUTE, "metric": "gib", "ratio": windows / 2**30})
    return pd.DataFrame(rows)


def torchs_means(plain: AutoencoderKL, rounds: int, device: str) -> pd.DataFrame:
    """What torch itself offers, beside the same without it: convolutions in `channels_last`, bfloat16, and a compiled
    decoder where there is a compiler, for a decode of the middle side; the first two for windows at the largest."""
    latent = torch.zeros(_latent_shape(SIDES[1]), device=device)
    ways = {"channels_last": copy.deepcopy(plain).to(memory_format=torch.channels_last)}
    ways["bfloat16"] = copy.deepcopy(plain).bfloat16()
    if shutil.which("g++"):
        ways["compiled"] = copy.deepcopy(plain)
        ways["compiled"].decoder.compile()
    runs: Runs = {("vanilla", 1.0): partial(plain.decode, latent)}
    for name, model in ways.items():
        runs[f"vanilla_{name}", 1.0] = partial(model.decode, latent.to(model.dtype))
    rows = [measured(runs, rounds, device, ("vanilla",)).assign(size_px=SIDES[1])]
    side, models = SIDES[-1], {"decode_hole": plain} | {f"decode_hole_{name}": ways[name] for name in WINDOWED}
    given = torch.zeros(_latent_shape(side)), torch.zeros(1, 3, side, side), square_hole(side, SMALL)
    latent, image, mask = (tensor.to(device) for tensor in given)
    runs = {(name, SMALL): partial(decode_hole, model, latent, image, mask) for name, model in models.items()}
    rows.append(measured(runs, rounds, device, ("decode_hole",)).assign(size_px=side))
    return pd.concat([part[part["metric"].isin(["time", "milliseconds"])] for part in rows])


def growth(plain: AutoencoderKL, rounds: int, device: str) -> pd.DataFrame:
    """A decode over the side of the picture and over the batch, beside one of the middle side; of sides beyond, what is
    counted on the meta device. And a training step in two processes, beside one with the threads of both."""
    middle = SIDES[1]
    shapes = {f"vanilla_{side}_px": _latent_shape(side) for side in SIDES}
    shapes |= {f"vanilla_batch_{n}": _latent_shape(middle, n) for n in BATCHES}
    runs: Runs = {(name, 1.0): partial(plain.decode, torch.zeros(s, device=device)) for name, s in shapes.items()}
    rows = [measured(runs, rounds, device, (f"vanilla_{middle}_px",))]
    reference = _counted(plain, middle)
    for side in (2 * SIDES[-1], LARGE[0]):
        subject = {"subject": f"vanilla_{side}_px", "reference": f"vanilla_{middle}_px", "hole_share": 1.0}
        counted = _counted(plain, side)
        rows += [pd.DataFrame([subject | {"metric": m, "ratio": counted[m] / reference[m]}]) for m in counted]
    rows = [part.assign(size_px=middle) for part in rows]
    if device == "cpu":
        seconds = [[1 / _launched(processes) for _ in range(rounds)] for processes in (1, 2)]
        ratios = [two / one for one, two in zip(*seconds, strict=True)]
        subject = {"subject": "training_2_processes", "reference": "training_1_process", "metric": "time"}
        subject["size_px"] = CROP
        rows.append(pd.DataFrame([subject | {"ratio": median(ratios), "low": min(ratios), "high": max(ratios)}]))
    return pd.concat(rows)


def _launched(processes: int) -> float:
    """Training steps a second in so many processes on the CPU, each with its share of the threads."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
    command += ["--dynamo_backend", "no", "--num_processes", str(processes)] + ["--multi_gpu"] * (processes > 1)
    command += ["-m", "asymlib.study.bench", "--training"]
    own = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    environment = own | os.environ | {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // processes))}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])["training_steps_a_second"]


def _counted(plain: AutoencoderKL, side: int) -> dict[str, float]:
    """Multiply-accumulates and peak memory of a decode, on the meta device."""
    with torch.device("meta"):
        latent = torch.zeros(_latent_shape(side))
        whole = type(plain).from_config(plain.config)
        with torch.no_grad(), FlopCounterMode(display=False) as flops:
            whole.decode(latent)
    return {"macs": flops.get_total_flops() // 2, "memory": peak_memory(partial(_spared(plain).decode, latent))}


def _spared(plain: AutoencoderKL) -> AutoencoderKL:
    """The same on the meta device, without attention: all its scores would be kept there, flash attention keeps none,
    and what that needs lies below the peak of the upper levels."""
    with torch.device("meta"):
        return type(plain).from_config(plain.config, mid_block_add_attention=False)


def _latent_shape(side: int, batch: int = 1) -> tuple[int, ...]:
    return batch, 4, side // 8, side // 8


def training_speed(device: str, steps: int = 10) -> dict[str, float]:
    """Steps a second of base on the bundled first stage, 8 crops of 48 px, in the processes of the launch; and its
    multiply-accumulates a second as a share of those of the fastest convolution found, forward and backward."""
    vqgan, size = asymmetric_vqgan(load_first_stage(pretrained("first_stage"))), CROP
    accelerator = make_accelerator(TrainingSettings(), device == "cpu")
    share = BATCH // accelerator.num_processes
    image, mask = torch.rand(share, 3, size, size), torch.ones(share, 1, size, size)
    batches = repeat((image, torch.randn(share, 4, size // 8, size // 8), mask, torch.zeros(())))
    train = partial(train_decoder, vqgan, lambda _: batches, accelerator=accelerator)
    train(TrainingSettings(batch=BATCH, steps=1))  # warms up
    counts = (1, 1 + steps)
    times = [_seconds(partial(train, TrainingSettings(batch=BATCH, steps=n)), device, grad=True) for n in counts]
    a_second = steps / (times[1] - times[0])
    macs = 3 * share * decode_macs(vqgan, size) * a_second
    return {"training_steps_a_second": a_second, "training_share_of_peak": macs / _fastest_convolution(device)}


def _fastest_convolution(device: str) -> float:
    """Multiply-accumulates a second of 3 x 3 convolutions of two widths, forward and backward; the larger."""
    speeds = []
    for width, side in ((64, 96), (128, 64)):
        layer = torch.nn.Conv2d(width, width, 3, padding=1).to(device)
        h = torch.rand(8, width, side, side, device=device, requires_grad=True)
        seconds = min(_seconds(partial(_there_and_back, layer, h), device, grad=True) for _ in range(5))
        speeds.append(3 * 8 * layer.weight.numel() * side**2 / seconds)
    return max(speeds)


def _there_and_back(layer: torch.nn.Module, h: torch.Tensor) -> None:
    layer(h).sum().backward()


def masks_a_second(count: int = 200, size: int = 256) -> float:
    """Training masks a second, of the official generator's distribution (`masks.training_masks`), one thread."""
    rng = np.random.default_rng(0)
    return count / _seconds(lambda: training_masks(count, size, 0.5, rng), "cpu")


def machine(device: str) -> dict[str, object]:
    """What the ratios were measured on, and what is a speed and no ratio."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    facts = {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    speeds = training_speed(device) | {"masks_a_second": masks_a_second()}
    return facts | {name: round(speed, 3) for name, speed in speeds.items()}


def bench(sizes: list[int], rounds: int, out: Path) -> pd.DataFrame:
    """Measure, and write `out` and, beside it, the machine's facts and the code's as OUT.json."""
    record = provenance()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    decoders = {name: model.to(device).eval() for name, model in all_decoders().items()}
    sessions = onnx_sessions(decoders["base"]) if device == "cpu" else {}
    runs = {size: runs_at(decoders, size, device, sessions) for size in sizes}
    parts = [measured(of_size, rounds, device).assign(size_px=size) for size, of_size in runs.items()]
    parts += [of(decoders["vanilla"], rounds, device) for of in (torchs_means, growth)]
    parts += [parameters(decoders).assign(size_px=size) for size in sizes]
    parts += [large_memory(decoders["vanilla"])]
    table = pd.concat(parts)[["subject", "reference", "size_px", "hole_share", "metric", "ratio", "low", "high"]]
    absolute = table["reference"] == ABSOLUTE
    facts = record | machine(device) | {"rounds": rounds}
    gib = table[absolute & (table["metric"] == "gib")].set_index("size_px")["ratio"]
    facts["decode_hole_gib"] = {str(side): round(float(value), 3) for side, value in gib.items()}
    if device == "cuda":
        facts["milliseconds"] = _milliseconds(table[absolute & (table["metric"] == "milliseconds")])
    table = table[~absolute]
    with written(out) as temporary:
        table.round(4).to_csv(temporary, index=False)
    with written(out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n")
    return table


def _milliseconds(table: pd.DataFrame) -> list[dict]:
    """Rows of ABSOLUTE as a record has them: `subject, hole_share, size_px, milliseconds, low, high`."""
    named = table.rename(columns={"ratio": "milliseconds"}).round(3)
    return named[["subject", "hole_share", "size_px", "milliseconds", "low", "high"]].to_dict("records")


def _finish_new_hole(finisher: Callable, image: torch.Tensor, edited: torch.Tensor, hole: torch.Tensor, met: count):
    """Each time with the hole a pixel further: Poisson blending keeps the factors of one that it has met."""
    return finisher(image, edited, hole.roll(next(met), -1))


def _seconds(run: Callable[[], object], device: str, grad: bool = False) -> float:
    """On a GPU by its own events, which do not count how late Python hears of the end."""
    with torch.set_grad_enabled(grad):
        if device == "cuda":
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            stop.record()
            torch.cuda.synchronize()
            return start.elapsed_time(stop) / 1000
        begun = time.perf_counter()
        run()
        return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m asymlib.study.bench", description=bench.__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="sides in pixels, multiples of 8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/bench.csv"))
    parser.add_argument("--training", action="store_true", help="time training alone, in the processes of the launch")
    arguments = parser.parse_args()
    if arguments.training:
        print(json.dumps(training_speed("cuda" if torch.cuda.is_available() else "cpu")))
        return
    table = bench(arguments.sizes, arguments.rounds, arguments.out)
    times = table[(table["metric"] == "time") & (table["reference"] == "vanilla")]
    print(times.round(3).to_string(index=False))


if __name__ == "__main__":
    main()

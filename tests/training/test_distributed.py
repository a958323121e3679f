"""Two real processes on the CPU (gloo), started by the launcher: this file is also what they run."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from asymlib.editing.compositing import PASTES
from asymlib.metrics import curve_point
from asymlib.models.construction import asymmetric_vqgan
from asymlib.models.features import perceptual_loss
from asymlib.models.first_stage import build_first_stage, encode_means
from asymlib.pixels import to_tensor
from asymlib.study.dataset.images import Pairs
from asymlib.study.evaluation.protocol import Task, evaluate, plain
from asymlib.study.params import load_params
from asymlib.study.project import project_root
from asymlib.training import checkpoints, decoder
from asymlib.training.decoder import Validation, train_decoder
from asymlib.training.distributed import make_accelerator
from asymlib.training.latents import cache_crops
from asymlib.training.losses import PatchDiscriminator, adaptive_weight

STEPS = 6


class Recorded(PatchDiscriminator):
    """The discriminator, which the loop keeps to itself, for the test to look at."""

    last: "Recorded"

    def __init__(self, width: int) -> None:
        super().__init__(width)
        Recorded.last = self


class WithoutNorm(Recorded):
    """No BatchNorm, hence nothing that depends on how a batch is shared out."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        for i, module in enumerate(self):
            if isinstance(module, nn.BatchNorm2d):
                self[i] = nn.Identity()


def distance(image, reference):
    return (image - reference).square().mean((1, 2, 3))


def problem():
    """A tiny first stage, its crops and the validation batch, the same in every process."""
    first_stage = build_first_stage(8, 1, 4).eval().requires_grad_(False)
    images = torch.randint(0, 256, (6, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    crops = cache_crops(first_stage, images, crop=32, crops_per_image=2, seed=0)
    image, mask = to_tensor(crops.image[:5]), torch.zeros(5, 1, 32, 32)
    mask[..., 8:20, 8:20] = 1
    return first_stage, crops, Validation(image, encode_means(first_stage, image), mask)


def run(discriminator=Recorded, measure=curve_point, resume_path=None, distributed=False, **changes):
    """Train; return the curve, and every tensor that has to be the same in all processes."""
    first_stage, crops, validation = problem()
    given = {"steps": STEPS, "batch": 8, "warmup": 1, "validate_every": 1, "perceptual_weight": 0.5, "gan_start": None}
    settings = replace(load_params("smoke").training["base"], **given | changes)
    torch.set_num_threads(1)
    weights = []

    def recorded(*args):
        assert not any(p.requires_grad for p in Recorded.last.parameters())  # the decoder's step does not train it
        weights.append(adaptive_weight(*args))
        return weights[-1]

    decoder.PatchDiscriminator, decoder.adaptive_weight = discriminator, recorded
    decoder.perceptual_loss, decoder.curve_point = lambda which, device: distance, measure
    vqgan = asymmetric_vqgan(first_stage, 8, 2, branch=True, inherit=True, seed=0)
    accelerator = make_accelerator(settings, cpu=True) if distributed else None
    try:
        curve = train_decoder(vqgan, crops, settings, validation, 0, True, None, resume_path, "data", accelerator)
    finally:
        decoder.PatchDiscriminator, decoder.adaptive_weight = PatchDiscriminator, adaptive_weight
        decoder.perceptual_loss, decoder.curve_point = perceptual_loss, curve_point
    state = {f"decoder.{k}": v for k, v in vqgan.state_dict().items()}
    state |= {f"discriminator.{k}": v for k, v in Recorded.last.state_dict().items()}
    for name, module in {"decoder": vqgan, "discriminator": Recorded.last}.items():
        state |= {f"{name}.grad.{k}": p.grad for k, p in module.named_parameters() if p.grad is not None}
    return curve, state | {"adaptive_weights": torch.tensor(weights)}


def rows(accelerator=None):
    """Five images in batches of two, of which one process gets two and the other one."""
    first_stage, _, validation = problem()
    table = pd.DataFrame({"mask": list("abcde"), "photograph": list("ppqqr"), "stratum": "photograph", "kind": "box"})
    tasks = {"own": Task(validation.latent, validation.image)}
    vanilla = plain(first_stage)
    pairs = Pairs(validation.image, validation.mask, table)
    return evaluate({"vanilla": vanilla}, vanilla, tasks, pairs, 2, 0, PASTES, accelerator)


def killed_and_resumed(path: Path, process: int):
    """A run that dies after its fourth step, and its continuation: only one process has written the state."""
    checkpoints.ResumeState.__init__.__defaults__ = (2,)
    points = []

    def die(*args):
        points.append(args)
        if len(points) == 5:
            raise KeyboardInterrupt
        return curve_point(*args)

    try:
        run(measure=die, resume_path=path, distributed=True, gan_start=1)
    except KeyboardInterrupt:
        written = sorted(p.name for p in path.parent.glob("*resume*"))
    return written, run(resume_path=path, distributed=True, gan_start=1)


def of_a_process(out: Path) -> None:
    """What each of the two processes does: all the runs, whose results it writes to a file of its own."""
    accelerator = make_accelerator(load_params("smoke").training["base"], cpu=True)
    torch.set_num_threads(1)
    results = {
        "processes": accelerator.num_processes,
        "plain": run(distributed=True),
        "accumulated": run(distributed=True, accumulate=2, gradient_checkpointing=True, clip=1.0),
        "gan": run(distributed=True, gan_start=1),
        "gan_without_norm": run(WithoutNorm, distributed=True, gan_start=1, accumulate=1),
        "resumed": killed_and_resumed(out / "resume.pt", accelerator.process_index),
        "rows": rows(accelerator).to_json(double_precision=15),
    }
    torch.save(results, out / f"{accelerator.process_index}.pt")
    accelerator.end_training()


def of_a_process_that_dies(out: Path) -> None:
    """The second process is killed in the middle of a run, while the first waits for its gradients."""
    process = int(os.environ["RANK"])
    (out / f"{process}.pid").write_text(str(os.getpid()))
    points = []

    def die(*args):
        points.append(args)
        if len(points) == 3 and process == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return curve_point(*args)

    run(measure=die, distributed=True, gan_start=1, steps=10_000)


def start(what: str, out: Path) -> subprocess.CompletedProcess:
    """`accelerate launch` on the CPU; the launcher's `multi_gpu` is plain torch elastic, which also starts CPUs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
    root = str(project_root())
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        [*command, __file__, what, str(out)], cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    out = tmp_path_factory.mktemp("processes")
    done = start("train", out)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [torch.load(out / f"{i}.pt", weights_only=True) for i in range(2)]
    assert [r["processes"] for r in results] == [2, 2]
    return results


@pytest.mark.parametrize("kind", ["plain", "accumulated", "gan"])
def test_everything_stays_equal_between_processes(processes, kind):
    """Breaks when a decode goes past the wrapper, a weight is a process's own, or running statistics drift apart."""
    (curve, state), (other_curve, other_state) = (result[kind] for result in processes)
    assert str(curve) == str(other_curve)
    assert all(torch.equal(value, other_state[name]) for name, value in state.items()) and len(state) == len(
        other_state
    )
    parts = [name for name in state if name.startswith("decoder.grad.")]
    assert any("condition_encoder" in name for name in parts) and not any("grad.encoder" in name for name in parts)
    if kind == "gan":
        assert len(state["adaptive_weights"]) == STEPS - 1 and (state["adaptive_weights"] > 0).all()
        assert any(name.startswith("discriminator.grad.") for name in state)
        assert any("running_mean" in name for name in state)


def close(curve, other, tolerance=1e-5):
    numbers, others = pd.DataFrame(curve), pd.DataFrame(other)
    assert list(numbers) == list(others) and len(numbers) == STEPS + 1
    return ((numbers - others).abs() <= tolerance * numbers.abs()).iloc[1:].all(axis=None)  # no loss at step 0


def test_two_processes_give_the_curve_of_one(processes):
    """Breaks when batches are drawn for each process, or gradients are summed and not averaged."""
    assert close(processes[0]["plain"][0], run()[0])


def test_accumulated_parts_give_the_curve_of_a_whole_batch(processes):
    # parts have another shape than the whole, hence other rounding, which Adam's first steps magnify on some machines
    assert close(processes[0]["accumulated"][0], run(clip=1.0)[0], tolerance=1e-3)


def test_with_a_gan_it_is_batchnorm_alone_that_sees_how_a_batch_is_shared(processes):
    """Without it two processes give the curve of one, adaptive weight and discriminator included; with it they do up
    to the first step of the GAN, and from then on each process normalises its own share, as officially."""
    curve, state = run(WithoutNorm, gan_start=1)
    assert close(processes[0]["gan_without_norm"][0], curve)
    weights = processes[0]["gan_without_norm"][1]["adaptive_weights"]
    assert torch.allclose(weights, state["adaptive_weights"], rtol=1e-3)
    shared, alone = processes[0]["gan"][0], run(gan_start=1)[0]
    assert shared[1]["loss"] == pytest.approx(alone[1]["loss"], rel=1e-5)
    assert shared[-1]["loss"] != pytest.approx(alone[-1]["loss"], rel=1e-5)


def test_a_killed_run_of_two_processes_continues_bit_for_bit(processes):
    """Breaks when one process alone restores, or every process writes."""
    for result in processes:
        written, (curve, state) = result["resumed"]
        assert written == ["resume.pt"]
        whole_curve, whole = result["gan"]
        assert str(curve) == str(whole_curve)
        assert all(torch.equal(state[k], v) for k, v in whole.items() if k != "adaptive_weights")


def test_a_shared_evaluation_is_that_of_one_process_to_the_last_digit(processes):
    """Three batches between two processes: breaks when an image is left out, or comes twice to fill a share up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes: sums over more threads round otherwise
    alone = rows()
    torch.set_num_threads(threads)
    assert len(alone) == (1 + len(PASTES)) * 5 * alone["metric"].nunique()
    for result in processes:
        assert json.loads(result["rows"]) == json.loads(alone.to_json(double_precision=15))


def test_a_killed_process_ends_all_with_a_message_that_names_it(tmp_path):
    done = start("die", tmp_path)
    assert done.returncode != 0
    assert "Signal 9 (SIGKILL) received" in done.stderr and "rank      : 1" in done.stderr
    for process in range(2):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / f"{process}.pid").read_text()), 0)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(
        ValueError, match="batch: got 8 for 1 processes x 3 accumulated parts, expected a multiple of 3"
    ):
        run(accumulate=3)


if __name__ == "__main__":
    {"train": of_a_process, "die": of_a_process_that_dies}[sys.argv[1]](Path(sys.argv[2]))

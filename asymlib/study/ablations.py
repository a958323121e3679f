"""Runs of many decoders, several seeds each, for notebooks 08 and 09: `make ablations` and `make long_runs`.

A run is a row of a section of params.yaml, `ablations` or `long_runs`, and a seed. It starts from the trained vanilla
decoder, trains with what the row changes, and is measured on some photographs of the profile's `evaluation.split`. As
many runs go side by side as the profile has threads; what a killed call has finished is kept, and a changed row reruns
itself alone.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from asymlib.files import content_hash
from asymlib.metrics import curve_point
from asymlib.models.first_stage import load_first_stage
from asymlib.study.dataset.images import Pairs, load_pairs
from asymlib.study.diffusion import load_diffusion
from asymlib.study.evaluation.generation import decode_all
from asymlib.study.evaluation.protocol import Decode, Task, evaluate, make_tasks, plain, rows_of
from asymlib.study.evaluation.readings import read_pairs, thin
from asymlib.study.evaluation.reconstruction import psnr
from asymlib.study.params import Ablations, Profile, load_ablations
from asymlib.study.project import project_root
from asymlib.study.provenance import write_json
from asymlib.study.reporting.tables import read_rows, write_rows
from asymlib.study.sources import SHORT
from asymlib.study.training import run
from asymlib.study.training.inpainter import make_edits
from asymlib.training.checkpoints import forget, load_tensors, save_tensors
from asymlib.training.decoder import train_decoder
from asymlib.training.latents import Crops

METRICS = ["pre_error", "seam_added", "hole_changed", "seam_grad", "ring_l1_4", "hole_psnr", "hole_effnet_distance"]
IDENTITY = [
    "seed",
    "data",
    "first_stage",
    "latents",
    "inpainter",
    "row",
    "settings",
    "code",
    "split",
    "every",
    "sampling_steps",
]
WHOLE = "whole"  # the source that is decoded without a mask; its hole is the whole picture


def run_ablations(ablations: Ablations, params: Profile, results: Path) -> None:
    """Make every run that is not there yet, then RESULTS/rows.csv.gz and RESULTS/provenance.json.

    Args:
        ablations: The section of params.yaml.
        params: Its profile, see `load_ablations`; its stages up to `inpainter` have been run.
        results: Where to.

    Raises:
        FileNotFoundError, ImportError: The profile's data or checkpoints, or the weights of its loss, are missing.
        BrokenProcessPool: The system has killed a run, mostly for want of memory.
    """
    if not (params.checkpoints / "inpainter").is_dir():
        raise FileNotFoundError(
            f"checkpoint {params.checkpoints / 'inpainter'} is missing; `make {ablations.name}` makes it"
        )
    home = params.checkpoints.parent / ablations.name
    if any(row.training.get("inpainted_share") for row in ablations.rows.values()):
        _provide_edits(params)
    runs = {}  # folder -> what its record has to say
    for name, row in ablations.rows.items():
        record = run.start_record(params, name) | {
            "inpainter": content_hash(params.checkpoints / "inpainter"),
            "split": params.evaluation.split,
            "every": ablations.every,
            "sampling_steps": params.inpainter.sampling_steps,
        }
        runs |= {home / f"{name}_{seed}": record | {"seed": seed} for seed in row.seeds or ablations.seeds}
    pending = {folder: record for folder, record in runs.items() if not _is_done(record, folder)}
    if pending:
        first_stage = load_first_stage(params.checkpoints / "first_stage")
        inpainter = load_diffusion(params.checkpoints / "inpainter", first_stage)
        pairs = thin(read_pairs(params, ablations.name), ablations.every)
        tasks = make_tasks(first_stage, inpainter, pairs, params.inpainter.sampling_steps, params.seed)
        for source, task in tasks.items():
            there = {name: tensor for name, tensor in task._asdict().items() if tensor is not None}
            save_tensors(home / f"{source}.safetensors", there)
        vanilla = plain(first_stage)
        rows = evaluate({"vanilla": vanilla}, vanilla, tasks, pairs, params.evaluation.batch, params.seed, pastes={})
        rows = pd.concat([rows.assign(seed=seed) for seed in ablations.seeds])  # needs no training, hence no seed
        write_rows(rows[rows["metric"].isin(METRICS)], home / "vanilla" / "rows.csv")
    with ProcessPoolExecutor(params.threads, get_context("spawn"), _be_quiet) as pool:
        started = [pool.submit(one_run, params, ablations, record, folder) for folder, record in pending.items()]
        try:
            for future in tqdm(started, desc="runs"):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else a mistake is told when all other runs have ended
            raise
    folders = [home / "vanilla", *runs]
    write_rows(pd.concat([read_rows(folder / "rows.csv") for folder in folders]), results / "rows.csv.gz")
    write_json({f.name: json.loads((f / "record.json").read_text()) for f in runs}, results / "provenance.json")


def one_run(params: Profile, ablations: Ablations, record: dict, folder: Path) -> None:
    """Train and measure one row with one seed, on one thread.

    Args:
        params: As they were when the record was taken, see `run_ablations`.
        ablations: Likewise.
        record: What it can be traced to; it names row and seed.
        folder: Gets rows.csv and, at last, record.json, with the curve and the processor's seconds.
    """
    torch.set_num_threads(1)
    name, seed = record["decoder"], record["seed"]
    params = params.model_copy(update={"seed": seed})
    first_stage = run.read_first_stage(params, name)
    vqgan = run.build_decoder(params, name, first_stage)
    validation = run.read_validation(params, first_stage)
    with torch.no_grad():
        by_vanilla = first_stage.decode(validation.latent).sample
        change = vqgan.decode(validation.latent) - by_vanilla
    record["vanilla"] = curve_point(validation.image, by_vanilla, validation.mask)
    record["start_error"] = float(change.square().mean() / 4)  # of pixels in [0, 1], without a mask
    record["perceptual_loss"] = params.training[name].perceptual
    source, settings = run.read_source(params, name, vqgan), params.training[name]
    data_hash, kept, state = record["data"] + record["latents"], folder / "fitted.safetensors", folder / "resume.pt"
    whole = not (kept.is_file() or state.is_file())
    start = time.process_time()
    run.fit(params, name, vqgan, source, kept, data_hash)
    fitted, inherits = time.process_time(), bool(params.decoder(name).inherit)
    record["curve"] = train_decoder(
        vqgan, source, settings, validation, seed, inherits, resume_path=state, data_hash=data_hash
    )
    if whole:  # else the time before the run was killed is not known
        record["seconds"] = {"fitting": fitted - start, "training": time.process_time() - fitted}
    # `run_ablations` has noted that they are read
    pairs = thin(load_pairs(params.data / "images", params.data / "masks", params.evaluation.split), ablations.every)
    rows = _measured(vqgan, plain(first_stage), pairs, folder.parent, params.evaluation.batch, seed)
    write_rows(rows.assign(variant=name), folder / "rows.csv")
    write_json(record | run.what_it_cost(params, name, vqgan), folder / "record.json")
    forget(state)
    kept.unlink(missing_ok=True)


def _provide_edits(params: Profile) -> None:
    """Fill holes of training crops with the diffusion model, unless that was done with the same."""
    path, latents = run.edits_path(params), params.checkpoints / "first_stage_latents.safetensors"
    made_of = content_hash(params.checkpoints / "inpainter", latents)
    if path.is_file() and load_tensors(path)[1].get("made_of") == made_of:
        return
    first_stage, settings = load_first_stage(params.checkpoints / "first_stage"), params.inpainter
    inpainter = load_diffusion(params.checkpoints / "inpainter", first_stage)
    crops = Crops(**load_tensors(latents)[0])
    edits = make_edits(first_stage, inpainter, crops, settings.edits, settings.sampling_steps, params.seed)
    save_tensors(path, edits._asdict(), {"made_of": made_of})


def _is_done(record: dict, folder: Path) -> bool:
    """Whether a run of this row, with this seed and on these data, is there."""
    path = folder / "record.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    return all(known.get(fact) == record[fact] for fact in IDENTITY)


def _be_quiet() -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # progress bars of many processes; errors come back as such


def _measured(vqgan, vanilla: Decode, pairs: Pairs, home: Path, batch: int, seed: int) -> pd.DataFrame:
    """Rows of METRICS for every source of SHORT, and of the whole picture's PSNR without a mask."""
    tasks = {source: Task(**load_tensors(home / f"{source}.safetensors")[0]) for source in SHORT}
    rows = evaluate({"run": vqgan.decode}, vanilla, tasks, pairs, batch, seed, pastes={})
    without = psnr(pairs.image, decode_all(vqgan.decode, tasks["own"].latent, batch))
    whole = rows_of({"hole_psnr": without}, pairs, "run", WHOLE, seed)
    return pd.concat([rows[rows["metric"].isin(METRICS)], whole])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m asymlib.study.ablations", description=__doc__.splitlines()[0])
    parser.add_argument("section", nargs="?", default="ablations", choices=["ablations", "long_runs"])
    parser.add_argument("--out", type=Path, help="where to write; results/SECTION if not given")
    arguments = parser.parse_args()
    try:
        out = arguments.out or project_root() / "results" / arguments.section
        run_ablations(*load_ablations(section=arguments.section), out)
    except BrokenProcessPool:
        sys.exit("error: threads: got a run that the system has killed, expected memory for as many runs side by side")
    except (OSError, ImportError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

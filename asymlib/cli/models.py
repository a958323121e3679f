"""Commands about models: `train`, `convert` and `info`."""

import json
import math
import shutil
from dataclasses import asdict
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from asymlib.cli.jobs import picture_files

CROPS = 6  # of each photo
RECORD = "record.json"


class Layout(StrEnum):
    """How a decoder's weights lie on the disk."""

    asymlib = "asymlib"
    diffusers = "diffusers"
    official = "official"
    onnx = "onnx"


def train(
    photos: Annotated[Path, typer.Argument(help="A folder of photos to train on.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the trained decoder.")],
    first_stage: Annotated[
        str, typer.Option(help="The frozen autoencoder: a folder, a name that ships or one on the hub.")
    ] = "first_stage",
    revision: Annotated[str, typer.Option(help="Its commit, on the hub.")] = "main",
    subfolder: Annotated[str, typer.Option(help="Where it lies on the hub, such as vae.")] = "",
    branch: Annotated[bool, typer.Option(help="The condition branch; without it, the control.")] = True,
    steps: Annotated[int, typer.Option(min=1)] = 1300,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    crop: Annotated[int, typer.Option(min=16, help="Side of a training crop in pixels.")] = 48,
    seed: Annotated[int, typer.Option()] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Train again what is there.")] = False,
) -> int:
    """Train the paper's base decoder for an autoencoder on photos of your own; a stopped run goes on where it was.

    With the branch it begins with a fit of the layers that make known pixels, 8,000 steps that take a minute or two
    whatever --steps says, then follows the paper.

    asymlib train photos/ --out my_decoder

    asymlib train photos/ --first-stage stable-diffusion-v1-5/stable-diffusion-v1-5 --subfolder vae --out sd_decoder
    """
    from diffusers import AutoencoderTiny

    from asymlib.files import content_hash
    from asymlib.models.construction import asymmetric_vqgan
    from asymlib.models.first_stage import find_first_stage
    from asymlib.training.checkpoints import code_hash
    from asymlib.training.decoder import batches, train_decoder
    from asymlib.training.fitting import LR_BRANCH, FittingSettings, fit_known_pixels
    from asymlib.training.settings import TrainingSettings

    if (out / "config.json").is_file() and not overwrite:
        raise ValueError(f"out: got {out}, where a model is; expected another folder, or --overwrite")
    home = out.with_name(out.name + ".first_stage")
    autoencoder = find_first_stage(first_stage, home, revision, subfolder)
    inherit = not isinstance(autoencoder, AutoencoderTiny)  # whose decoder is of another make
    vqgan = asymmetric_vqgan(autoencoder, branch=branch, inherit=inherit, seed=seed)
    if crop % vqgan.factor:
        raise ValueError(f"crop: got {crop}, expected a multiple of {vqgan.factor}, the side of a latent's cell")
    crops, files = _read_crops(photos, autoencoder, crop, seed)
    settings = TrainingSettings(steps=steps, batch=batch, lr_branch=LR_BRANCH)
    data_hash, fitted = content_hash(*files), out.with_name(out.name + ".fitted.safetensors")
    out.parent.mkdir(parents=True, exist_ok=True)
    if branch:
        fit_known_pixels(vqgan, batches(crops, settings, seed, 0), seed=seed, kept=fitted, data_hash=data_hash)
    curve = train_decoder(
        vqgan,
        crops,
        settings,
        seed=seed,
        inherits=inherit,
        out=out,
        resume_path=out.with_name(out.name + ".resume.pt"),
        data_hash=data_hash,
    )
    fitted.unlink(missing_ok=True)
    facts = {"first_stage": first_stage, "photos": len(files), "data": data_hash, "seed": seed, "crop": crop}
    facts |= {"fitting": asdict(FittingSettings()) if branch else None}
    facts |= {"settings": asdict(settings), "code": code_hash(), "torch": version("torch"), "loss": curve[-1]["loss"]}
    (out / RECORD).write_text(json.dumps(facts, indent=1) + "\n")
    print(out)
    return 0


def _read_crops(folder: Path, autoencoder, crop: int, seed: int):
    """Training crops of every picture in a folder, with their latents, and the files."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from asymlib.models.first_stage import encode_moments
    from asymlib.pictures import read_photo
    from asymlib.pixels import to_tensor
    from asymlib.training.latents import Crops

    if not folder.is_dir():
        raise FileNotFoundError(f"photos: got {folder}, expected an existing folder")
    files = picture_files("photos", folder)
    rng, cut = np.random.default_rng([seed, 60]), []
    for file in tqdm(files, desc="photos", mininterval=5):
        pixels = read_photo(file, f"photos: {file.name}", smallest=crop).on_white  # or a smaller --crop
        for _ in range(CROPS):
            y, x = (int(rng.integers(0, extent - crop + 1)) for extent in pixels.shape[:2])
            cut.append(pixels[y : y + crop, x : x + crop])
    images = torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).contiguous()
    return Crops(images, encode_moments(autoencoder, to_tensor(images))), files


def convert(
    source: Annotated[
        str, typer.Argument(help="The official .ckpt, a folder of diffusers or of asymlib, or a name that ships.")
    ],
    target: Annotated[Path, typer.Argument(help="A file for official weights and ONNX, else a folder.")],
    to: Annotated[Layout, typer.Option(help="The layout to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> int:
    """Bring a decoder from one layout to another; the pixels that it makes are the same.

    The last word and a plain AutoencoderKL or VQModel, whose decoder is written, go to ONNX alone.

    asymlib convert asymmetric.ckpt my_vae --to diffusers

    asymlib convert my_vae decoder.onnx --to onnx

    asymlib convert last_word finisher.onnx --to onnx
    """
    from diffusers import AutoencoderKL, VQModel

    from asymlib.files import save_pretrained
    from asymlib.models.construction import asymmetric_vqgan
    from asymlib.models.decoder import AsymmetricVQGAN
    from asymlib.models.export import export_onnx
    from asymlib.models.last_word import LastWord
    from asymlib.models.official import load_official, save_official
    from asymlib.models.shipped import load_folder

    if target.exists() and not overwrite:
        raise ValueError(f"target: got {target}, which is there; expected another name, or --overwrite")
    path = _existing("source", source)
    model = load_folder(path) if path.is_dir() else load_official(path)
    plain = (AutoencoderKL, VQModel, LastWord) if to is Layout.onnx else ()
    if not isinstance(model, (AsymmetricVQGAN, *plain)):
        kinds = ", ".join(kind.__name__ for kind in (AsymmetricVQGAN, *plain))
        raise ValueError(f"source: got {type(model).__name__} for {to}, expected one of {kinds}")
    if to is Layout.official:
        save_official(model, target)
    elif to is Layout.onnx:
        with_decoder = isinstance(model, (AutoencoderKL, VQModel))
        export_onnx(asymmetric_vqgan(model, branch=False) if with_decoder else model, target)
    else:
        save_pretrained(model if to is Layout.asymlib else model.to_diffusers(), target)
        if (path / RECORD).is_file():
            shutil.copy(path / RECORD, target)
    print(target)
    return 0


def info(
    artefact: Annotated[str, typer.Argument(help="A folder of weights, a name that ships, or a file under results/.")],
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> int:
    """Where something comes from: commit, settings, data and seed; of weights also what they are.

    asymlib info base
    """
    path = _existing("artefact", artefact)
    facts = _of_results(path) if path.is_file() else _of_weights(path)
    if as_json:
        print(json.dumps(facts))
        return 0
    for name, fact in facts.items():
        print(f"{name}: {json.dumps(fact) if isinstance(fact, (dict, list)) else fact}")
    return 0


def _existing(argument: str, name: str) -> Path:
    """A file or folder of that name, else the folder of the weights that ship under it."""
    from asymlib.models.first_stage import pretrained

    try:
        return Path(name) if Path(name).exists() else pretrained(name)
    except FileNotFoundError as error:
        told = str(error).partition("expected ")[2]
        raise FileNotFoundError(f"{argument}: got {name}, expected an existing file or folder, or {told}") from error


def _of_weights(folder: Path) -> dict:
    from safetensors import safe_open

    from asymlib.files import content_hash

    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"artefact: got {folder} without a config.json, expected a folder of weights")
    facts = {"folder": str(folder), "class": json.loads(config.read_text()).get("_class_name")}
    for weights in sorted(folder.glob("*.safetensors")):
        with safe_open(weights, "pt") as tensors:
            parts = [tensors.get_slice(key) for key in tensors.keys()]
        sizes = [part.get_shape() for part in parts]
        facts["parameters"] = facts.get("parameters", 0) + sum(math.prod(size) for size in sizes)
        facts["precision"] = ", ".join(sorted({part.get_dtype() for part in parts}))
    facts["sha256"] = content_hash(*sorted(folder.glob("*.safetensors")))
    found = (_read_record(path) for path in (folder / RECORD, *_records_of_stages(folder)))
    return facts | next(filter(None, found), {"record": "none beside the weights"})


def _records_of_stages(weights: Path) -> list[Path]:
    """Where a stage of the study that wrote these weights keeps their record, if it is one of that."""
    weights = weights.resolve()
    for checkpoints in weights.parents:
        if checkpoints.name == "checkpoints":
            results = checkpoints.parent / "results" / weights.relative_to(checkpoints).parts[0]
            return [results / "provenance" / f"{weights.name}.json", results / weights.name / RECORD]
    return []


def _read_record(path: Path) -> dict:
    """What a file of JSON holds; nothing where there is no file or it holds no record."""
    try:
        record = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"artefact: {path} is no JSON ({error}), expected a record") from error
    return record if isinstance(record, dict) else {}


def _of_results(path: Path) -> dict:
    """The record beside a file, or those of the profile or of the runs in whose results it lies."""
    if beside := _read_record(path.with_suffix(".json")):
        return {"file": str(path)} | beside
    for folder in path.resolve().parents:
        told_by = {r.stem: r for r in sorted((folder / "provenance").glob("*.json"))}
        told_by |= {r.parent.name: r for r in sorted(folder.glob(f"*/{RECORD}"))} if told_by else {}
        models = {name: _read_record(record) for name, record in told_by.items()}
        models = models or _read_record(folder / "provenance.json")
        if models and all(isinstance(record, dict) for record in models.values()):
            told = ("commit", "seed", "data", "settings", "first_stage", "code")
            return {"file": str(path), "profile": folder.name} | {
                name: {key: record[key] for key in told if key in record} for name, record in models.items()
            }
    raise ValueError(f"artefact: got {path}, expected weights, or a file under results/PROFILE with its provenance")

"""One decoder of a profile, from its row in params.yaml to its checkpoint, curve and record.

What notebook 03 shows step by step and `training.launch` does in one go, in one process or in many.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import Accelerator
from accelerate.utils import broadcast
from diffusers import AutoencoderKL, VQModel

from asymlib.files import content_hash
from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.first_stage import encode_means, load_first_stage
from asymlib.study.dataset.images import load_pairs
from asymlib.study.params import Profile
from asymlib.study.provenance import provenance
from asymlib.study.training.first_stage import provide_first_stage
from asymlib.training.checkpoints import load_tensors
from asymlib.training.decoder import Validation, batches, decode_macs, train_decoder
from asymlib.training.distributed import make_accelerator
from asymlib.training.fitting import FittingSettings, fit_known_pixels, fitting_macs
from asymlib.training.latents import Crops, Edits

if TYPE_CHECKING:
    from asymlib.study.dataset.streaming import ImageStream

VALIDATED = 32  # pictures that are decoded at each validation


def read_first_stage(params: Profile, name: str) -> AutoencoderKL | VQModel:
    """The frozen first stage of a decoder; provided where stage `first_stage` has not been run."""
    section = params.decoder(name).first_stage
    settings, home = getattr(params, section), params.checkpoints / section
    if not (home / "config.json").is_file():
        return provide_first_stage(settings, params.seed, home, params.resume_path(section))
    return load_first_stage(home)


def build_decoder(params: Profile, name: str, first_stage: AutoencoderKL) -> AsymmetricVQGAN:
    """The untrained decoder of a row, on its first stage."""
    row = params.decoder(name)
    width, blocks = scaled_size(first_stage, row.scale)
    inherit = "widen" if row.inherit == "fitted" else row.inherit  # and `fit`, before it is trained
    return asymmetric_vqgan(first_stage, width, blocks, row.branch, inherit, params.seed, row.condition)


def read_validation(params: Profile, first_stage: AutoencoderKL) -> Validation:
    """The first images and masks of `val`, with the encoder's means: they are decoded again and again."""
    pairs = load_pairs(params.data / "images", params.data / "masks", "val")
    image, mask = pairs.image[:VALIDATED], pairs.mask[:VALIDATED]
    return Validation(image, encode_means(first_stage, image), mask)


def start_record(params: Profile, name: str) -> dict:
    """What a decoder can be traced to; taken before it is trained."""
    return provenance(
        decoder=name,
        seed=params.seed,
        data=content_hash(params.data / "images" / "manifest.csv"),
        first_stage=_first_stage_hash(params.checkpoints / params.decoder(name).first_stage),
        latents=_latents_hash(params, name),
        row=params.decoder(name).model_dump(mode="json"),
        settings=asdict(params.training[name]),
    ) | ({"stream": params.stream.model_dump()} if params.stream else {})


def _first_stage_hash(folder: Path) -> str:
    """Of its config and weights; the card beside them is prose."""
    return content_hash(*sorted(folder.glob("*.json")), *sorted(folder.glob("*.safetensors")))


def _latents_hash(params: Profile, name: str) -> str:
    """Of the cached latents that a decoder learns from, and of the diffusion model's where it learns from these too."""
    if params.stream is not None:
        return ""
    files = [params.checkpoints / f"{params.decoder(name).first_stage}_latents.safetensors"]
    if params.training[name].inpainted_share:
        files.append(edits_path(params))
    return content_hash(*(file for file in files if file.is_file()))


def edits_path(params: Profile) -> Path:
    """Where `study.ablations` keeps training crops that the diffusion model has filled."""
    return params.checkpoints.parent / "ablations" / "edits.safetensors"


def read_source(
    params: Profile, name: str, vqgan: AsymmetricVQGAN, accelerator: Accelerator | None = None
) -> Crops | ImageStream:
    """What a profile trains on: the crops whose latents are cached or, with a `stream` section, images that are encoded
    on the way."""
    settings = params.training[name]
    if params.stream is None:
        crops = Crops(**load_tensors(params.checkpoints / f"{params.decoder(name).first_stage}_latents.safetensors")[0])
        if settings.inpainted_share:
            crops = crops._replace(edits=Edits(**load_tensors(edits_path(params))[0]))
        return crops
    if settings.swapped_share or settings.inpainted_share:
        came = f"{settings.swapped_share} and {settings.inpainted_share}"
        raise ValueError(f"swapped_share, inpainted_share: got {came}, expected 0 with a stream of images")
    from asymlib.study.dataset.streaming import ImageStream  # here, since only a stream needs `datasets`

    accelerator = accelerator or make_accelerator(settings, cpu=True)
    return ImageStream(
        params.stream,
        settings.batch,
        settings.full_mask_share,
        params.seed,
        lambda image: vqgan.posterior(image.to(accelerator.device)),
        accelerator.process_index,
        accelerator.num_processes,
    )


def fit(
    params: Profile,
    name: str,
    vqgan: AsymmetricVQGAN,
    source: Crops | ImageStream,
    kept: Path,
    data_hash: str,
    accelerator: Accelerator | None = None,
) -> None:
    """Fit the known pixels of a decoder whose row says `inherit: fitted`, in place; others stay as they are.

    Arguments as `fit_known_pixels`'s and `train_decoder`'s.
    """
    if params.decoder(name).inherit != "fitted":
        return
    drawn = batches(source, params.training[name], params.seed, 0) if isinstance(source, Crops) else source(0)
    if accelerator is None or accelerator.num_processes == 1:
        return fit_known_pixels(vqgan, drawn, FittingSettings(), params.seed, kept, data_hash)
    vqgan.to(accelerator.device)
    if accelerator.is_main_process:  # of a stream every process sees other pictures
        fit_known_pixels(vqgan, drawn, FittingSettings(), params.seed, kept, data_hash)
    for parameter in vqgan.decoder.parameters():
        broadcast(parameter.data)


def train(
    params: Profile,
    name: str,
    vqgan: AsymmetricVQGAN,
    source: Crops | ImageStream,
    validation: Validation,
    record: dict,
    accelerator: Accelerator | None = None,
) -> list[dict]:
    """Train a decoder of a profile in place, from where it was killed if it was, and save it; `fit` comes first.

    Args:
        params: The profile.
        name: The decoder's row.
        vqgan: From `build_decoder`.
        source: From `read_source`.
        validation: From `read_validation`.
        record: From `start_record`: a state of other data is not continued.
        accelerator: See `train_decoder`; one process saves.

    Returns:
        The curve, see `train_decoder`.
    """
    kept = params.resume_path(f"{name}_fitted").with_suffix(".safetensors")
    data_hash = record["data"] + record["first_stage"] + record["latents"] + str(record.get("stream", ""))
    fit(params, name, vqgan, source, kept, data_hash, accelerator)
    curve = train_decoder(
        vqgan,
        source,
        params.training[name],
        validation,
        params.seed,
        inherits=bool(params.decoder(name).inherit),
        out=params.checkpoints / "decoders" / name,
        resume_path=params.resume_path(name),
        data_hash=data_hash,
        accelerator=accelerator,
    )
    kept.unlink(missing_ok=True)
    return curve


def what_it_cost(params: Profile, name: str, vqgan: AsymmetricVQGAN) -> dict:
    """Steps, parameters and multiply-accumulates of a decoder, for its record.

    A training step costs about three decodes for each image: forward, and backward for inputs and for weights.
    """
    settings, size = params.training[name], params.images.test_size
    macs = decode_macs(vqgan, size)
    side = params.stream.size if params.stream else params.latents.crop
    trained = 3 * macs * settings.steps * settings.batch * side**2 / size**2
    if params.decoder(name).inherit == "fitted":
        trained += fitting_macs(vqgan, FittingSettings(), side)
    return {
        "steps": settings.steps,
        "decoder_parameters": sum(p.numel() for p in vqgan.decoder.parameters()),
        "decode_gmac": macs / 1e9,
        "decode_size": size,
        "training_tmac": trained / 1e12,
    }

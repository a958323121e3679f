"""params.yaml as typed settings that refuse what they do not know. Read once per notebook."""

import os
from pathlib import Path
from typing import Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from asymlib.project import project_root, user_path


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DecoderRow(Section):
    """A variant of the decoder: a row, not a class."""

    scale: Literal["base", "large_1.5x", "large_2x"]
    branch: bool
    inherit: bool


class Images(Section):
    source: Literal["packaged", "procedural", "folder"]
    folder: str | None
    train_size: int = Field(ge=16, multiple_of=8)
    train_photograph_crops: int = Field(ge=0)
    train_procedural: int = Field(ge=0)
    val_size: int = Field(ge=16, multiple_of=8)
    val_photograph_crops: int = Field(ge=0)
    val_procedural: int = Field(ge=0)
    test_size: int = Field(ge=16, multiple_of=8)
    test_crops: int = Field(ge=0)
    test_procedural: int = Field(ge=0)
    gallery_size: int = Field(ge=16, multiple_of=8)
    scales: tuple[float, ...]
    masks_per_image: int = Field(ge=1)

    @model_validator(mode="after")
    def _folder_is_named(self) -> "Images":
        if self.source == "folder" and not self.folder:
            raise ValueError("folder: got null, expected a folder of photographs because source is 'folder'")
        return self


class FirstStage(Section):
    source: Literal["bundled", "train"]
    bundled: str
    folder: str | None
    procedural: int = Field(ge=0)
    width: int
    layers: int
    groups: int
    crop: int = Field(ge=16, multiple_of=8)
    batch: int = Field(ge=1)
    half_share: float = Field(ge=0, le=1)
    encoder_steps: int = Field(ge=0)
    decoder_steps: int = Field(ge=0)
    joint_steps: int = Field(ge=1)
    refine_steps: int = Field(ge=0)
    lr_warm: float
    lr_joint: float
    lr_refine: float
    kl_weight: float
    ema: float


class Latents(Section):
    crop: int = Field(ge=16, multiple_of=8)
    crops_per_image: int = Field(ge=1)


class Training(Section):
    """Settings of the decoders' loop; `steps` is one number here and one per decoder in params.yaml."""

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    lr_branch: float
    lr_inherited: float
    lr_scratch: float
    warmup: int = Field(ge=0)
    lr_floor: float
    full_mask_share: float = Field(ge=0, le=1)
    perceptual_weight: float = Field(ge=0)
    kl_weight: float = Field(ge=0)
    gan_start: int | None
    gan_weight: float
    discriminator_width: int = Field(ge=1)
    ema: float | None
    clip: float | None
    validate_every: int = Field(ge=1)


class Inpainter(Section):
    widths: tuple[int, ...]
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    lr: float
    masks_per_image: int = Field(ge=1)
    full_mask_share: float = Field(ge=0, le=1)
    sampling_steps: int = Field(ge=1)


class Generation(Section):
    samples: int = Field(ge=1)
    guidance_scale: float
    subsets: int = Field(ge=1)
    subset_size: int = Field(ge=2)


class LocalEditing(Section):
    edits: int = Field(ge=1)
    prompt_guidance: float
    example_guidance: float


class Evaluation(Section):
    bootstrap: int = Field(ge=1)
    batch: int = Field(ge=1)


class Profile(Section):
    """One profile, with the folders it writes to."""

    name: str
    decoders: dict[str, DecoderRow]
    seed: int
    threads: int = Field(ge=1)
    images: Images
    first_stage: FirstStage
    latents: Latents
    training: dict[str, Training]
    inpainter: Inpainter
    generation: Generation
    local_editing: LocalEditing
    evaluation: Evaluation

    @property
    def data(self) -> Path:
        return project_root() / "data" / self.name

    @property
    def checkpoints(self) -> Path:
        return project_root() / "checkpoints" / self.name

    @property
    def results(self) -> Path:
        return project_root() / "results" / self.name

    def resume_path(self, name: str) -> Path:
        """Where a killed run of `name` left what it needs to continue; outside of what DVC tracks and deletes."""
        return project_root() / "checkpoints" / "resume" / self.name / f"{name}.safetensors"

    def decoder(self, name: str) -> DecoderRow:
        """The row of a decoder.

        Raises:
            ValueError: No decoder of that name.
        """
        if name not in self.decoders:
            raise ValueError(f"name: got {name!r}, expected one of {', '.join(self.decoders)}")
        return self.decoders[name]


def load_params(profile: str, path: Path | None = None) -> Profile:
    """Read a profile of params.yaml and set torch to its number of threads.

    Args:
        profile: Name of the profile; the environment variable ASYMLIB_PROFILE, where set, wins (CI runs the
            notebooks under `smoke` with it).
        path: The file; the project's own by default.

    Raises:
        ValueError: An unknown profile, an unknown or missing key, or a value out of range, named in one sentence.
    """
    path = path or project_root() / "params.yaml"
    profile = os.environ.get("ASYMLIB_PROFILE") or profile
    content = yaml.safe_load(path.read_text())
    if profile not in content["profiles"]:
        raise ValueError(f"profile: got {profile!r}, expected one of {', '.join(content['profiles'])}")
    section = dict(content["profiles"][profile])
    for part in ("images", "first_stage"):
        if section[part].get("folder"):
            section[part] = section[part] | {"folder": str(user_path(section[part]["folder"]))}
    training = dict(section.get("training", {}))
    steps = training.pop("steps", {})
    section["training"] = {name: training | {"steps": count} for name, count in steps.items()}
    try:
        params = Profile(name=profile, decoders=content["decoders"], **section)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"params.yaml, profile {profile}, {where}: got {first['input']!r}, expected: {first['msg']}"
        ) from None
    torch.set_num_threads(params.threads)
    return params

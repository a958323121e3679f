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


Scale = Literal["base", "large_1.5x", "large_2x"] | tuple[float, float]  # a name of `SCALES`, or width and depth
Inherit = bool | Literal["widen"]


class DecoderRow(Section):
    """A variant of the decoder: a row, not a class."""

    scale: Scale
    branch: bool
    inherit: Inherit
    first_stage: Literal["first_stage", "first_stage_vq"] = "first_stage"
    condition: dict | None = None  # the arguments of `asymlib.models.condition.Condition` that differ from the paper's


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
    source: Literal["bundled", "train", "hub"]
    kind: Literal["kl", "vq"]
    bundled: str
    start_from: str | None
    repository: str | None = None
    revision: str | None = None
    subfolder: str = "vae"
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
    codes: int = Field(ge=2)
    codebook: Literal["ema", "gradient"]
    code_decay: float = Field(ge=0, lt=1)
    dead_below: float = Field(ge=0, lt=1)
    commitment: float = Field(ge=0)

    @model_validator(mode="after")
    def _hub_is_pinned(self) -> "FirstStage":
        local = self.repository and Path(self.repository).is_dir()
        if self.source == "hub" and not (local or (self.repository and self.revision)):
            raise ValueError(
                f"repository, revision: got {self.repository!r} and {self.revision!r}, expected a folder, or both for "
                "source 'hub'"
            )
        return self


class Latents(Section):
    crop: int = Field(ge=16, multiple_of=8)
    crops_per_image: int = Field(ge=1)


class Stream(Section):
    """Training images that are read, cropped and encoded as they are needed; of a dataset on the hub or of a folder."""

    dataset: str | None = None
    revision: str | None = None
    folder: str | None = None
    size: int = Field(ge=16, multiple_of=8)
    smallest: int = Field(ge=1)
    buffer: int = Field(ge=1)

    @model_validator(mode="after")
    def _one_pinned_source(self) -> "Stream":
        if (self.dataset is None) == (self.folder is None):
            raise ValueError(f"dataset, folder: got {self.dataset!r} and {self.folder!r}, expected exactly one of them")
        if self.dataset and not self.revision:
            raise ValueError(f"revision: got {self.revision!r}, expected the commit of {self.dataset} to read")
        return self


class Training(Section):
    """Settings of the decoders' loop, of one decoder; `batch` is that of all processes together."""

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    lr_branch: float
    lr_inherited: float
    lr_scratch: float
    warmup: int = Field(ge=0)
    lr_floor: float
    full_mask_share: float = Field(ge=0, le=1)
    perceptual_weight: float = Field(ge=0)
    perceptual: Literal["available", "lpips_vgg"] = "available"
    kl_weight: float = Field(ge=0)
    gan_start: int | None
    gan_weight: float
    discriminator_width: int = Field(ge=1)
    ema: float | None
    clip: float | None
    validate_every: int = Field(ge=1)
    accumulate: int = Field(default=1, ge=1)
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = False
    swapped_share: float = Field(default=0, ge=0, le=1)
    inpainted_share: float = Field(default=0, ge=0, le=1)
    ring_weight: float = Field(default=1, ge=1)
    geometric_mean: bool = False


class Repository(Section):
    """A pipeline on the hub, pinned to a commit, or in a local folder."""

    repository: str
    revision: str | None = None

    @model_validator(mode="after")
    def _is_pinned(self) -> "Repository":
        if self.revision is None and not Path(self.repository).is_dir():
            raise ValueError(f"revision: got null for {self.repository!r}, expected the commit of what is no folder")
        return self


class Hub(Section):
    """The pipelines that take the place of the small diffusion model, and how a hole is filled that is asked for
    nothing."""

    inpainting: Repository
    text_to_image: Repository
    by_example: Repository
    prompt: str
    guidance_scale: float
    eta: float = Field(ge=0, le=1)


class Inpainter(Section):
    widths: tuple[int, ...]
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    lr: float
    masks_per_image: int = Field(ge=1)
    edits: int = Field(ge=1)
    full_mask_share: float = Field(ge=0, le=1)
    sampling_steps: int = Field(ge=1)
    hub: Hub | None = None


class Generation(Section):
    """`captions` and `real` go together: a file of captions and a folder of pictures; null for the small model's words
    and the training images."""

    captions: str | None
    real: str | None
    size: int = Field(ge=16, multiple_of=8)
    samples: int = Field(ge=1)
    guidance_scale: float
    subsets: int = Field(ge=1)
    subset_size: int = Field(ge=2)


class LocalEditing(Section):
    edits: int = Field(ge=1)
    prompt_guidance: float
    example_guidance: float


class AblationRow(DecoderRow):
    """A short run: where it differs from base, and from the runs' common training and seeds."""

    scale: Scale = "base"
    branch: bool = True
    inherit: Inherit = True
    training: dict = {}
    seeds: tuple[int, ...] | None = None


class Ablations(Section):
    """Short runs of `asymlib.ablations`; `profile` has the first stage, latents and pictures, of which every so many
    are measured, and `training` is what differs from its training of the decoder of the row's name, or of base."""

    profile: str
    every: int = Field(ge=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    training: dict
    rows: dict[str, AblationRow]


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
    first_stage_vq: FirstStage
    latents: Latents
    stream: Stream | None = None
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
    for part in ("images", "first_stage", "first_stage_vq", "stream"):
        if section.get(part, {}).get("folder"):
            section[part] = section[part] | {"folder": str(user_path(section[part]["folder"]))}
    repository = section["first_stage"].get("repository")
    if repository and user_path(repository).is_dir():
        section["first_stage"] = section["first_stage"] | {"repository": str(user_path(repository))}
    generation = section["generation"]
    section["generation"] = generation | {
        k: str(user_path(generation[k])) for k in ("captions", "real") if generation[k]
    }
    section["training"] = _training_by_decoder(section.get("training", {}))
    try:
        params = Profile(name=profile, decoders=content["decoders"], **section)
    except ValidationError as error:
        raise ValueError(f"params.yaml, profile {profile}, {_first_mistake(error)}") from None
    torch.set_num_threads(params.threads)
    return params


def load_ablations(path: Path | None = None) -> tuple[Ablations, Profile]:
    """Read the `ablations` section of params.yaml.

    Returns:
        The section, and its profile, whose `decoders` and `training` are those of the ablations' rows.

    Raises:
        ValueError: As `load_params`.
    """
    path = path or project_root() / "params.yaml"
    try:
        ablations = Ablations(**yaml.safe_load(path.read_text())["ablations"])
        profile = load_params(ablations.profile, path)
        of_profile = {name: settings.model_dump() for name, settings in profile.training.items()}
        training = {
            name: Training(**of_profile.get(name, of_profile["base"]) | ablations.training | row.training)
            for name, row in ablations.rows.items()
        }
    except ValidationError as error:
        raise ValueError(f"params.yaml, ablations, {_first_mistake(error)}") from None
    return ablations, profile.model_copy(update={"decoders": ablations.rows, "training": training})


def _first_mistake(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: got {first['input']!r}, expected: {first['msg']}"


def _training_by_decoder(training: dict) -> dict[str, dict]:
    """A value of `training` is one for all decoders, or a mapping from a decoder's name, or `others`, to its own."""
    return {
        name: {
            key: value.get(name, value.get("others")) if isinstance(value, dict) else value
            for key, value in training.items()
            if not isinstance(value, dict) or {name, "others"} & set(value)
        }
        for name in training.get("steps", {})
    }

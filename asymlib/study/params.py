"""params.yaml as typed settings that refuse what they do not know. Read once per notebook.

Defaults are those of the profile `default`, so that a function can be called from a script; a test holds them together.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import torch
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from asymlib.study.project import project_root, user_path
from asymlib.training.settings import TrainingSettings


class Section(BaseModel):
    """A section refuses keys that it does not know, and stays as it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# a file or folder of the user's; a relative path starts at the project's root
UserPath = Annotated[str, AfterValidator(lambda path: str(user_path(path)))]
# the same, where it is a folder; else a name on the hub
HubOrFolder = Annotated[str, AfterValidator(lambda name: str(user_path(name)) if user_path(name).is_dir() else name)]


Scale = Literal["base", "large_1.5x", "large_2x"] | tuple[float, float]  # a name of `SCALES`, or width and depth
Inherit = bool | Literal["widen", "fitted"]


class DecoderRow(Section):
    """A variant of the decoder: a row, not a class."""

    scale: Scale
    branch: bool
    inherit: Inherit
    first_stage: Literal["first_stage", "first_stage_vq"] = "first_stage"
    condition: dict | None = None  # the arguments of `asymlib.models.condition.Condition` that differ from the paper's


class Images(Section):
    """Where pictures come from, how large they are, and how many there are of each split."""

    source: Literal["packaged", "procedural", "folder"] = "packaged"
    folder: UserPath | None = None
    train_size: int = Field(128, ge=16, multiple_of=8)
    train_photograph_crops: int = Field(400, ge=0)
    train_procedural: int = Field(200, ge=0)
    val_size: int = Field(64, ge=16, multiple_of=8)
    val_photograph_crops: int = Field(8, ge=0)
    val_procedural: int = Field(8, ge=0)
    test_size: int = Field(128, ge=16, multiple_of=8)
    test_crops: int = Field(10, ge=0)
    test_procedural: int = Field(20, ge=0)
    gallery: Literal["own", "packaged"] = "own"
    gallery_size: int = Field(256, ge=16, multiple_of=8)
    larger: tuple[Annotated[int, Field(ge=16, multiple_of=8)], ...] = (256, 512)
    larger_scenes: int = Field(24, ge=1)
    scales: tuple[float, ...] = (1.0, 0.5, 0.25)
    masks_per_image: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _folder_is_named(self) -> "Images":
        if self.source == "folder" and not self.folder:
            raise ValueError("folder: got null, expected a folder of photographs because source is 'folder'")
        return self


class FirstStage(Section):
    """The frozen first stage: where it comes from, and how one is trained where `source` is `train`."""

    source: Literal["bundled", "train", "hub"] = "bundled"
    kind: Literal["kl", "vq"] = "kl"
    bundled: str = "first_stage"  # a folder of asymlib/pretrained, as is start_from
    start_from: str | None = None
    repository: HubOrFolder | None = None
    revision: str | None = None
    subfolder: str = "vae"
    folder: UserPath | None = None
    procedural: int = Field(60, ge=0)
    width: int = Field(24, ge=1)
    layers: int = Field(1, ge=1)
    groups: int = Field(6, ge=1)
    crop: int = Field(64, ge=16, multiple_of=8)
    batch: int = Field(8, ge=1)
    half_share: float = Field(0.7, ge=0, le=1)
    encoder_steps: int = Field(500, ge=0)
    decoder_steps: int = Field(1300, ge=0)
    joint_steps: int = Field(6000, ge=1)
    refine_steps: int = Field(2600, ge=0)
    lr_warm: float = Field(2e-3, ge=0)
    lr_joint: float = Field(1.5e-3, ge=0)
    lr_refine: float = Field(1e-3, ge=0)
    kl_weight: float = Field(1e-6, ge=0)
    ema: float = Field(0.999, ge=0, lt=1)
    codes: int = Field(512, ge=2)
    codebook: Literal["ema", "gradient"] = "ema"
    code_decay: float = Field(0.99, ge=0, lt=1)
    dead_below: float = Field(0.1, ge=0, lt=1)
    commitment: float = Field(0.05, ge=0)

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
    """The training crops whose latents are cached."""

    crop: int = Field(48, ge=16, multiple_of=8)
    crops_per_image: int = Field(6, ge=1)


class Stream(Section):
    """Training images that are read, cropped and encoded as they are needed; of a dataset on the hub or of a folder."""

    dataset: str | None = None
    revision: str | None = None
    folder: UserPath | None = None
    size: int = Field(256, ge=16, multiple_of=8)
    smallest: int = Field(256, ge=1)
    buffer: int = Field(2000, ge=1)

    @model_validator(mode="after")
    def _one_pinned_source(self) -> "Stream":
        if (self.dataset is None) == (self.folder is None):
            raise ValueError(f"dataset, folder: got {self.dataset!r} and {self.folder!r}, expected exactly one of them")
        if self.dataset and not self.revision:
            raise ValueError(f"revision: got {self.revision!r}, expected the commit of {self.dataset} to read")
        return self


class Repository(Section):
    """A pipeline on the hub, pinned to a commit, or in a local folder."""

    repository: HubOrFolder
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
    """The small latent diffusion model, bundled or trained, or the pipelines that take its place."""

    source: Literal["bundled", "train"] = "bundled"
    widths: tuple[int, ...] = (32, 64, 96)
    attention: int = Field(1, ge=0)
    blocks: int | None = Field(None, ge=1)
    steps: int = Field(1200, ge=1)
    batch: int = Field(16, ge=1)
    lr: float = Field(1e-3, ge=0)
    ema: float = Field(0.995, ge=0, lt=1)
    snr_gamma: float | None = Field(None, gt=0)
    hole_weight: float = Field(1.0, ge=0)
    masks_per_image: int = Field(4, ge=1)
    flips: bool = False
    edits: int = Field(1536, ge=1)
    full_mask_share: float = Field(0.2, ge=0, le=1)
    sampling_steps: int = Field(20, ge=1)
    hub: Hub | None = None


class LastWordSettings(Section):
    """What comes after any decoder, see `models.last_word`: its simulated edits by size in pixels, and its training."""

    source: Literal["bundled", "train"] = "bundled"
    edits: dict[int, int] = Field({64: 4000, 128: 8000, 256: 600, 512: 24}, min_length=1)
    codec_steps: int = Field(500, ge=1)
    width: int = Field(40, ge=1)
    steps: int = Field(10000, ge=1)
    batch: int = Field(8, ge=1)
    lr: float = Field(2e-3, ge=0)


class Generation(Section):
    """`captions` and `real` go together: a file of captions and a folder of pictures; null for the small model's words
    and the training images."""

    captions: UserPath | None = None
    real: UserPath | None = None
    size: int = Field(128, ge=16, multiple_of=8)
    samples: int = Field(128, ge=1)
    guidance_scale: float = 3.0
    subsets: int = Field(50, ge=1)
    subset_size: int = Field(64, ge=2)


class LocalEditing(Section):
    """Local edits by a word and by an example."""

    edits: int = Field(32, ge=1)
    prompt_guidance: float = 5.0
    example_guidance: float = 3.0


class AblationRow(DecoderRow):
    """A short run: where it differs from base, and from the runs' common training and seeds."""

    scale: Scale = "base"
    branch: bool = True
    inherit: Inherit = True
    training: dict = {}
    seeds: tuple[int, ...] | None = None


class Ablations(Section):
    """A section of runs of `asymlib.study.ablations`; `profile` has the first stage, latents and pictures, of which
    every so many of each scene are measured, and `training` is what differs from its training of the decoder of the
    row's name, or of base."""

    name: str
    profile: str
    every: int = Field(ge=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    training: dict
    rows: dict[str, AblationRow]


class Evaluation(Section):
    """How results are measured."""

    batch: int = Field(8, ge=1)
    split: Literal["val", "test"] = "test"  # val while anything is being chosen


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
    training: dict[str, TrainingSettings]
    inpainter: Inpainter
    last_word: LastWordSettings
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
        return project_root() / "checkpoints" / "resume" / self.name / f"{name}.pt"

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
    content = _read(path, "decoders", "profiles")
    if profile not in content["profiles"]:
        raise ValueError(f"profile: got {profile!r}, expected one of {', '.join(content['profiles'])}")
    section = content["profiles"][profile]
    if not isinstance(section, dict):
        raise ValueError(f"params.yaml, profile {profile}: got {section!r}, expected its sections")
    for key in {"name", "decoders"} & section.keys():
        raise ValueError(f"params.yaml, profile {profile}, {key}: got {section[key]!r}, expected no such key there")
    if isinstance(section.get("training"), dict):
        section = section | {"training": _training_by_decoder(section["training"], profile, content["decoders"])}
    try:
        params = Profile.model_validate(section | {"name": profile, "decoders": content["decoders"]})
    except ValidationError as error:
        raise ValueError(f"params.yaml, profile {profile}, {first_mistake(error)}") from None
    torch.set_num_threads(params.threads)
    return params


def load_ablations(path: Path | None = None, section: str = "ablations") -> tuple[Ablations, Profile]:
    """Read a section of runs in params.yaml.

    Args:
        path: The file; the project's own by default.
        section: `ablations`, short ones, or `long_runs`.

    Returns:
        The section, and its profile, whose `decoders` and `training` are those of the ablations' rows.

    Raises:
        ValueError: As `load_params`.
    """
    path = path or project_root() / "params.yaml"
    try:
        ablations = Ablations(name=section, **_read(path, section)[section])
        profile = load_params(ablations.profile, path)
        of_profile = {name: asdict(settings) for name, settings in profile.training.items()}
        if "base" not in of_profile:
            came = ", ".join(of_profile) or "none"
            raise ValueError(f"params.yaml, profile {profile.name}, training: got {came}, expected base for the runs")
        typed = TypeAdapter(TrainingSettings)
        training = {
            name: typed.validate_python(of_profile.get(name, of_profile["base"]) | ablations.training | row.training)
            for name, row in ablations.rows.items()
        }
    except ValidationError as error:
        raise ValueError(f"params.yaml, {section}, {first_mistake(error)}") from None
    return ablations, profile.model_copy(update={"decoders": ablations.rows, "training": training})


def _read(path: Path, *sections: str) -> dict:
    """params.yaml, which has to have these sections."""
    content = yaml.safe_load(path.read_text())
    for name in sections:
        if not isinstance(content, dict) or not isinstance(content.get(name), dict):
            came = content.get(name) if isinstance(content, dict) else content
            raise ValueError(f"params.yaml, {name}: got {came!r}, expected a section of that name")
    return content


def first_mistake(error: ValidationError) -> str:
    """Key, what came and what was expected of the first of an error's mistakes, in one sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":  # a sentence of ours
        return ", ".join(filter(None, [where, str(first["ctx"]["error"])]))
    came = "nothing" if first["type"] == "missing" else repr(first["input"])  # pydantic has the whole section there
    return f"{where}: got {came}, expected: {first['msg']}"


def _training_by_decoder(training: dict, profile: str, decoders: dict) -> dict[str, dict]:
    """A value of `training` is one for all decoders, or a mapping from a decoder's name, or `others`, to its own; where
    `steps` names some, these are trained."""
    steps = training.get("steps")
    trained = steps if isinstance(steps, dict) else decoders
    for name in trained:
        for key, value in training.items():
            if isinstance(value, dict) and not {name, "others"} & set(value):
                where = f"params.yaml, profile {profile}, training.{name}.{key}"
                raise ValueError(f"{where}: got nothing, expected: Field required, its own or that of `others`")
    return {
        name: {
            key: value.get(name, value.get("others")) if isinstance(value, dict) else value
            for key, value in training.items()
        }
        for name in trained
    }

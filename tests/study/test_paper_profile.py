"""A dry run of the profile `paper`, all of it, so that the first hour on a GPU is not spent on a typo.

What the hub would send stands in folders: pipelines of the real classes and config schema with random weights, ImageNet
and COCO as a few photographs and captions. Sizes, steps and counts are cut; nothing else of the profile is changed.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from torchvision.models import vgg16

from asymlib.models.features import VGG_WEIGHTS
from asymlib.study.reporting.tables import read_table


def shrink(content, hub):
    """The profile's numbers at the size of a test; what it reads is in `hub`, a folder."""
    paper, smoke = content["profiles"]["paper"], content["profiles"]["smoke"]
    paper["threads"] = smoke["threads"]
    for section in ("images", "stream"):
        sizes = {key for key in paper[section] if key.endswith("size")}
        paper[section] |= dict.fromkeys(sizes, 64)
    paper["images"] |= {"folder": str(hub / "imagenet")}
    paper["images"] |= {"train_photograph_crops": 4, "val_photograph_crops": 2, "gallery_size": 64}
    paper["images"] |= {"larger": [64], "larger_scenes": 2}
    paper["first_stage"] |= {"repository": str(hub / "text_to_image"), "revision": None}
    paper["first_stage_vq"] = smoke["first_stage_vq"]
    paper["latents"] = smoke["latents"]
    paper["stream"] |= {"dataset": None, "revision": None, "folder": str(hub / "imagenet"), "smallest": 64}
    training = paper["training"]
    for key, value in {"steps": 2, "batch": 2, "warmup": 1, "validate_every": 1, "discriminator_width": 4}.items():
        training[key] = dict.fromkeys(training["steps"], value)
    training["gan_start"] = 1
    for task in ("inpainting", "text_to_image", "by_example"):
        paper["inpainter"]["hub"][task] = {"repository": str(hub / task), "revision": None}
    paper["inpainter"]["sampling_steps"] = 2
    paper["generation"] |= {"captions": str(hub / "captions.json"), "real": str(hub / "imagenet")}
    paper["generation"] |= {"size": 64, "samples": 4, "subsets": 2, "subset_size": 3}
    paper["local_editing"]["edits"] = 2
    paper["evaluation"] |= {"batch": 2}
    return content


@pytest.fixture(scope="module")
def hub(tmp_path_factory, tiny_pipelines, photographs):
    """What the profile would fetch."""
    hub = tmp_path_factory.mktemp("hub")
    tiny_pipelines.save_all(hub)
    photographs(hub / "imagenet", 24)
    captions = [{"caption": text} for text in ("a", "b", "a b", "b a")]
    (hub / "captions.json").write_text(json.dumps({"annotations": captions}))
    torch.manual_seed(0)
    (hub / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(vgg16(weights=None).state_dict(), hub / "torch" / "hub" / "checkpoints" / VGG_WEIGHTS)
    return hub


def test_every_stage_of_the_paper_s_profile_runs(hub, fresh_project, warm_kernels, tmp_path):
    """Breaks when a notebook, a key of params.yaml or a path of the hub works offline only."""
    place = fresh_project(tmp_path / "project")
    params = place / "params.yaml"
    params.write_text(yaml.safe_dump(shrink(yaml.safe_load(params.read_text()), hub)))
    environment = os.environ | {"PYTHONPATH": str(place), "TORCH_HOME": str(hub / "torch"), "HF_HUB_OFFLINE": "1"}
    environment.pop("ASYMLIB_COMMIT", None)
    command = [sys.executable, "-m", "asymlib.study.profiles", "paper"]  # what `make repro` calls
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    results = place / "results" / "paper"
    for name in ("inpainting", "generation", "local_editing", "width", "condition", "cost"):
        assert len(read_table(results / "tables" / f"{name}.csv"))
    for record in (results / "provenance").glob("*.json"):
        settings = json.loads(record.read_text())
        assert settings["steps"] == 2 and settings["stream"]["folder"] == str(hub / "imagenet")
        assert settings["perceptual_loss"] == "lpips_vgg" or settings["settings"]["perceptual_weight"] == 0

"""Small models of the real classes, and torch on two threads as in the profiles."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import torch

from asymlib.data.latents import cache_crops
from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.models.first_stage import build_first_stage
from asymlib.project import project_root

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def first_stage():
    return build_first_stage(8, 1, 4).eval().requires_grad_(False)


@pytest.fixture
def base(first_stage):
    """An untrained base decoder on the small first stage."""
    return asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), branch=True, inherit=True, seed=0)


@pytest.fixture(scope="session")
def crops(first_stage):
    images = torch.randint(0, 256, (6, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return cache_crops(first_stage, images, crop=32, crops_per_image=2, seed=0)


def copy_project(target: Path) -> Path:
    """The project's files, as they are now, in a git repository of their own: what a user has after cloning."""
    root = project_root()
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True)
    for file in listed.stdout.decode().strip("\0").split("\0"):
        if not file.startswith("results/") and (root / file).is_file():
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / file, target / file)
    subprocess.run(["git", "init", "-q"], cwd=target, check=True)
    return target


@pytest.fixture(scope="session")
def fresh_project():
    """`copy_project`, for tests that run the project as a user does."""
    return copy_project


@pytest.fixture(scope="session")
def tiny_pipelines() -> ModuleType:
    """tests/editing/tiny_pipelines.py, which no folder of tests could import from another."""
    spec = importlib.util.spec_from_file_location("tiny_pipelines", Path(__file__).parent / "editing/tiny_pipelines.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

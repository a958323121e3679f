"""Small models of the real classes, and torch on two threads as in the profiles."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from skimage import data

from asymlib.data.latents import cache_crops
from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.models.first_stage import build_first_stage
from asymlib.profiles import source_files
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


@pytest.fixture(scope="session")
def photographs():
    """Write a number of cuttings of packaged photographs, 140 px, into a new folder."""

    def write(folder: Path, count: int) -> None:
        folder.mkdir(parents=True)
        for i in range(count):
            left, top = 15 * i % 200, 10 * i % 150
            picture = (data.astronaut(), data.coffee(), data.chelsea()[:, :420])[i % 3]
            Image.fromarray(picture).crop((left, top, left + 140, top + 140)).save(folder / f"{i:02d}.png")

    return write


@pytest.fixture(scope="session")
def fresh_project():
    """Copy the project's files, as they are now, into a git repository of their own: what a user has after cloning."""

    def copy(target: Path) -> Path:
        root = project_root()
        for file in source_files(root):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / file, target / file)
        subprocess.run(["git", "init", "-q"], cwd=target, check=True)
        return target

    return copy


@pytest.fixture(scope="session")
def tiny_pipelines() -> ModuleType:
    """tests/editing/tiny_pipelines.py, which no folder of tests could import from another."""
    spec = importlib.util.spec_from_file_location("tiny_pipelines", Path(__file__).parent / "editing/tiny_pipelines.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

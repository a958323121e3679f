"""Small models of the real classes, runs that are killed, and disks that are full."""

import errno
import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import ModelMixin
from PIL import Image
from skimage import data

from asymlib.models import shipped
from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.models.first_stage import build_first_stage
from asymlib.models.inpainter import LatentInpainter
from asymlib.models.last_word import LastWord
from asymlib.study.profiles import source_files
from asymlib.study.project import project_root
from asymlib.training.checkpoints import ResumeState
from asymlib.training.latents import cache_crops

torch.set_num_threads(1)  # two workers share the two cores


@pytest.fixture(autouse=True)
def one_thread():
    """Also after a test that reads a profile, which sets its own number: what rounds would depend on the order."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def first_stage():
    return build_first_stage(8, 1, 4).eval().requires_grad_(False)


@pytest.fixture
def base(first_stage):
    """An untrained base decoder on the small first stage."""
    return asymmetric_vqgan(first_stage, *scaled_size(first_stage, "base"), branch=True, inherit=True, seed=0)


@pytest.fixture
def tiny_shipped(base, first_stage, monkeypatch):
    """Small models in the place of those that ship."""
    models = {"inpainter": LatentInpainter.build((16, 32), 1.0, 0), "last_word": LastWord(8)}
    models |= {"base": base, "first_stage": first_stage}
    monkeypatch.setattr(shipped, "load", models.__getitem__)
    shipped.shipped_models.cache_clear()
    yield
    shipped.shipped_models.cache_clear()


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


def _module(file: str) -> ModuleType:
    """A module of the tests, which no folder of them could import from another."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, Path(__file__).parent / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_pipelines() -> ModuleType:
    return _module("editing/tiny_pipelines.py")


@pytest.fixture(scope="session")
def warm_kernels(tmp_path_factory) -> Iterator[None]:
    """The notebooks' kernels have torch and diffusers imported already; see the module."""
    with _module("warm_kernels.py").warm_kernels(tmp_path_factory.mktemp("kernels")):
        yield


@pytest.fixture
def full_disk(monkeypatch) -> Callable[[], AbstractContextManager]:
    """Inside `full_disk()`, the disk is full in the middle of a model's weights."""

    def fail(model, folder: str | Path, **options) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "diffusion_pytorch_model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    @contextmanager
    def full() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(ModelMixin, "save_pretrained", fail)
            with pytest.raises(OSError, match="got a full disk, expected room for it"):
                yield

    return full


@pytest.fixture
def kept_often(monkeypatch) -> Callable[[int], None]:
    """`kept_often(n)`: resume states are written every n steps, few enough for a short run to have some."""
    return lambda every: monkeypatch.setattr(ResumeState.__init__, "__defaults__", (every,))


@pytest.fixture
def killed_after(monkeypatch) -> Callable[[int], AbstractContextManager]:
    """Inside `killed_after(n)`, a training dies after its n-th step."""
    real_keep = ResumeState.keep

    @contextmanager
    def killed(steps: int) -> Iterator[None]:
        def keep_then_die(state, step, history, last=False) -> None:
            real_keep(state, step, history, last)
            if step == steps:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(ResumeState, "keep", keep_then_die)
            with pytest.raises(KeyboardInterrupt):
                yield

    return killed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The runs of the whole pipeline first, each on a worker of its own: all other tests fit beside them."""
    long = ["test_pipeline", "test_paper_profile", "test_own_model"]
    items.sort(key=lambda item: long.index(item.path.stem) if item.path.stem in long else len(long))

"""docs/OWN_MODEL.md, block by block, with a small model and a few photographs."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from diffusers import AsymmetricAutoencoderKL
from PIL import Image
from skimage import data

from asymlib.study.project import project_root

ROOT = project_root()
PAGE = (ROOT / "docs" / "OWN_MODEL.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_pipelines, fresh_project, photographs):
    """A copy of the project with the page's profile, and beside it a pipeline, its autoencoder and photographs."""
    place = tmp_path_factory.mktemp("own")
    fresh_project(place / "project")
    pipe = tiny_pipelines.stable_diffusion_inpaint()
    pipe.save_pretrained(place / "my_pipeline")
    pipe.vae.save_pretrained(place / "my_vae")
    photographs(place / "my_photographs", 22)
    Image.fromarray(data.astronaut()).resize((70, 50)).save(place / "photo.png")
    mask = Image.new("L", (70, 50))
    mask.paste(255, (20, 10, 50, 40))
    mask.save(place / "mask.png")

    # the block as it stands, then fewer steps and smaller pictures
    params = place / "project" / "params.yaml"
    content = yaml.safe_load(params.read_text() + dict(BLOCKS)["yaml"])
    mine, smoke = content["profiles"]["mine"], content["profiles"]["smoke"]
    small = {key: value for key, value in smoke["images"].items() if key.endswith(("size", "procedural"))}
    crops = {"train_photograph_crops": 12, "val_photograph_crops": 2, "test_crops": 1}
    mine |= {key: smoke[key] for key in ("threads", "latents", "training", "inpainter", "evaluation")}
    mine["images"] |= small | crops
    params.write_text(yaml.safe_dump(content))
    return place / "project"


def test_every_block_of_the_page_runs(project, warm_kernels):
    """Breaks when the page tells to do what does not work: train, put into a pipeline, export, read back."""
    assert [kind for kind, _ in BLOCKS if kind != "text"] == ["yaml", "bash", *4 * ["python"]]
    name, stage = re.search(r"make repro PROFILE=(\w+) STAGE=(\S+)", dict(BLOCKS)["bash"]).groups()
    environment = os.environ | {"PYTHONPATH": str(project)}
    environment.pop("ASYMLIB_COMMIT", None)
    for command in (
        [sys.executable, "-m", "asymlib.study.profiles", name, stage],  # what `make repro` calls
        [sys.executable, "-c", "\n".join(block for kind, block in BLOCKS if kind == "python")],
    ):
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert Image.open(project.parent / "edited.png").mode == "RGB"
    assert isinstance(AsymmetricAutoencoderKL.from_pretrained(project.parent / "my_decoder"), AsymmetricAutoencoderKL)
    assert (project.parent / "my_decoder.ckpt").is_file() and (project.parent / "my_decoder.onnx").is_file()


def test_makefile_hands_the_stage_on():
    assert "python -m asymlib.study.profiles $(PROFILE) $(STAGE)" in (ROOT / "Makefile").read_text()

"""Batches at the paper's scale, through the real `load_dataset(..., streaming=True)` on a few local pictures."""

import itertools

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from asymlib.study.dataset.streaming import ImageStream, open_dataset, random_crop
from asymlib.study.params import Stream

COLOURS = [20 * i for i in range(12)]  # every picture is one grey, by which it is known again


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve pictures, one that is cut short and one that is too small."""
    folder = tmp_path_factory.mktemp("pictures") / "train"
    folder.mkdir()
    for colour in COLOURS:
        Image.new("RGB", (60, 48), (colour,) * 3).save(folder / f"{colour:03d}.png")
    (folder / "broken.png").write_bytes((folder / "000.png").read_bytes()[:60])
    Image.new("RGB", (60, 20)).save(folder / "small.png")
    return folder


@pytest.fixture(scope="module")
def parquet(folder):
    """The same as a dataset of two parquet files, as ImageNet's on the hub."""
    out = folder.parent / "parquet" / "data"
    out.mkdir(parents=True)
    rows = [{"image": {"bytes": p.read_bytes(), "path": p.name}} for p in sorted(folder.iterdir())]
    features = datasets.Features({"image": datasets.Image()})
    for i in range(2):
        part = datasets.Dataset.from_list(rows[i::2], features=features)
        part.to_parquet(out / f"train-{i:05d}-of-00002.parquet")
    return out.parent


def stream(vqgan, batch=4, process=0, processes=1, share=0.0, **source):
    revision = "local" if "dataset" in source else None
    settings = Stream(size=32, smallest=32, buffer=4, revision=revision, **source)
    return ImageStream(settings, batch, share, 0, vqgan.posterior, process, processes)


def colours(image):
    return [round(float(value)) for value in (image.mean((1, 2, 3)) + 1) * 127.5]


@pytest.mark.parametrize("kind", ["folder", "imagefolder", "parquet"])
def test_an_epoch_holds_every_usable_picture_and_counts_the_others(base, folder, parquet, kind):
    """Breaks when a picture is left out or comes twice, or a broken file ends the run."""
    given = (
        {"folder": str(folder)} if kind == "folder" else {"dataset": str(folder if kind == "imagefolder" else parquet)}
    )
    source = stream(base, batch=2, **given)
    batches = list(itertools.islice(source(0), 7 if kind == "folder" else 6))
    seen = [c for image, *_ in batches for c in colours(image)]
    assert set(seen) == set(COLOURS)
    if kind == "folder":
        assert source.skipped >= 2  # replaced by others, drawn at random
    else:
        assert sorted(seen) == COLOURS
    image, latent, mask, kl = batches[0]
    assert image.shape == (2, 3, 32, 32) and latent.shape == (2, 4, 4, 4) and mask.shape == (2, 1, 32, 32) and kl > 0


def test_batches_of_a_folder_depend_on_seed_and_step_alone_for_any_number_of_processes(base, folder):
    """Breaks when a resumed run, or one on more machines, sees other crops, masks or latents."""
    whole = list(itertools.islice(stream(base, folder=str(folder))(0), 5))
    for process in range(2):
        share = next(stream(base, process=process, processes=2, folder=str(folder))(4))
        for of_all, own in zip(whole[4][:3], share[:3], strict=True):
            assert torch.allclose(of_all[2 * process : 2 * process + 2], own, atol=1e-5)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_a_dataset_between_them(base, parquet, processes):
    """Breaks when every process reads the same pictures: two get a file each, three every third picture."""
    shares = [
        stream(base, batch=processes, process=p, processes=processes, dataset=str(parquet)) for p in range(processes)
    ]
    seen = [{colours(image)[0] for image, *_ in itertools.islice(share(0), 2)} for share in shares]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(seen, 2))


def test_masks_have_the_share_of_full_ones(base, folder):
    masks = [mask for _, _, mask, _ in itertools.islice(stream(base, share=1.0, folder=str(folder))(0), 2)]
    assert all((mask == 1).all() for mask in masks)


def test_a_crop_is_a_square_of_half_to_the_whole_short_side():
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 80, 0).repeat(3, 2)
    extents = [np.ptp(random_crop(ramp, 80, np.random.default_rng(i))[..., 0]) for i in range(200)]
    assert 38 <= min(extents) < 45 and 75 < max(extents) <= 80


def test_what_cannot_be_had_is_one_clear_sentence(monkeypatch, base, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match="^dataset: got 'nobody/nothing' at revision '0123', .*`hf auth login`$"
    ):
        open_dataset("nobody/nothing", "0123")
    with pytest.raises(FileNotFoundError, match="folder: got .*none, expected an existing folder"):
        stream(base, folder=str(tmp_path / "none"))
    with pytest.raises(ValueError, match="folder: got .* without an image file"):
        stream(base, folder=str(tmp_path))


def test_a_source_without_one_usable_picture_is_refused(base, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="got 100 images in a row that are broken"):
        next(stream(base, folder=str(tmp_path))(0))


def test_exactly_one_pinned_source():
    with pytest.raises(ValueError, match="expected exactly one of them"):
        Stream(size=32, smallest=32, buffer=4)
    with pytest.raises(ValueError, match="expected the commit of a/b to read"):
        Stream(size=32, smallest=32, buffer=4, dataset="a/b")

"""Training batches at the paper's scale: images are read, cropped and encoded as they are needed.

From a folder, or from a dataset on the hub that is streamed and never stored as a whole. Crops and masks are those of
the official `ImageNetSR`: a random square of half to the whole short side, resized with INTER_AREA; no flip.
"""

import itertools
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import cv2
import fsspec
import numpy as np
import torch
from datasets import Image, IterableDataset, load_dataset
from datasets.distributed import split_dataset_by_node
from datasets.exceptions import DatasetsError
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from asymlib.fetching import fetching
from asymlib.masks import training_masks
from asymlib.pictures import UNREADABLE, is_picture_file, read_photo
from asymlib.pixels import to_tensor
from asymlib.study.params import Stream

PATIENCE = 100  # so many unusable images in a row are no accident


class ImageStream:
    """Endless (image, latent, mask, kl) of one process; call it with the step to start from.

    What is done to image j of batch i (crop, mask, sample of the posterior) depends on (seed, i, j) alone. So does,
    from a folder, which image it is: a resumed run sees the same ones, and any number of processes together. A dataset
    is shuffled within a buffer, seeded with the step that it starts from, because nothing of it can be skipped unread.

    Attributes:
        skipped: How many images were broken or too small so far, in this process.
    """

    def __init__(
        self,
        settings: Stream,
        batch: int,
        full_mask_share: float,
        seed: int,
        posterior: Callable[[torch.Tensor], DiagonalGaussianDistribution],
        process: int = 0,
        processes: int = 1,
    ) -> None:
        """Look at the source, so that a mistake shows before anything is trained.

        Args:
            settings: The `stream` section of params.yaml.
            batch: Images of a batch, of all processes together.
            full_mask_share: Probability of a mask of ones.
            seed: Seed of everything.
            posterior: The frozen encoder: (N, 3, s, s) in [-1, 1] -> its Gaussian.
            process: Which process this is.
            processes: How many there are.

        Raises:
            FileNotFoundError: No such folder, or a dataset that cannot be had: no network, no access, no such revision.
            ValueError: A folder without images, or a dataset without a column `image`.
        """
        self.settings, self.batch, self.full_mask_share, self.seed = settings, batch, full_mask_share, seed
        self.posterior, self.skipped = posterior, 0
        self.process, self.processes = process, processes
        share = batch // processes
        self.own = range(process * share, (process + 1) * share)
        if settings.folder:
            self.files, self.dataset = folder_images(Path(settings.folder)), None
        else:
            self.dataset = open_dataset(settings.dataset, settings.revision)

    def __call__(self, start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
        read = self._from_folder(start) if self.dataset is None else self._from_dataset(start)
        for step in itertools.count(start):
            crops, masks, noise = [], [], []
            for j in self.own:
                rng = np.random.default_rng([self.seed, 8, step, j])
                crops.append(random_crop(next(read), self.settings.size, rng))
                masks.append(training_masks(1, self.settings.size, self.full_mask_share, rng))
                noise.append(torch.Generator().manual_seed(int(rng.integers(2**62))))
            image = to_tensor(np.stack(crops))
            posterior = self.posterior(image)
            yield image, posterior.sample(noise), torch.cat(masks), posterior.kl().mean()

    def _from_folder(self, start: int) -> Iterator[np.ndarray]:
        """Every image once in an epoch, in an order of its own; for what cannot be used one is drawn at random."""
        epoch, order = -1, np.empty(0, int)
        for step, j in ((step, j) for step in itertools.count(start) for j in self.own):
            rng = np.random.default_rng([self.seed, 9, step, j])
            turn, place = divmod(step * self.batch + j, len(self.files))
            if turn != epoch:
                epoch, order = turn, np.random.default_rng([self.seed, 9, turn]).permutation(len(self.files))
            chosen = itertools.chain([order[place]], (rng.integers(len(self.files)) for _ in itertools.count()))
            yield self._first_usable(self.files[i] for i in chosen)

    def _from_dataset(self, start: int) -> Iterator[np.ndarray]:
        """One epoch after the other, shuffled anew each time; every process reads its own part."""
        shuffled = self.dataset.shuffle(seed=self.seed + start, buffer_size=self.settings.buffer)
        part = split_dataset_by_node(shuffled, self.process, self.processes)

        def rows() -> Iterator[dict]:
            for epoch in itertools.count():
                part.set_epoch(epoch)
                first = next(epoch_rows := iter(part), None)
                if first is None:
                    raise ValueError(f"dataset: got no image for process {self.process}, expected at least one")
                yield from itertools.chain([first], epoch_rows)

        files = (_open(**row["image"]) for row in rows())
        while True:
            yield self._first_usable(files)

    def _first_usable(self, files: Iterator[Path | BytesIO]) -> np.ndarray:
        for file in itertools.islice(files, PATIENCE):
            try:
                return read_photo(file, smallest=self.settings.smallest).on_white
            except UNREADABLE:
                self.skipped += 1
        source = self.settings.folder or self.settings.dataset
        raise ValueError(
            f"{source}: got {PATIENCE} images in a row that are broken or smaller than {self.settings.smallest} px, "
            "expected photographs"
        )


def random_crop(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A square of U(0.5, 1) x the short side at a random place, resized: (H, W, 3) -> (size, size, 3) uint8.

    Source: official `ImageNetSR` (min_crop_f 0.5, max_crop_f 1, INTER_AREA).
    """
    side = max(1, int(min(pixels.shape[:2]) * rng.uniform(0.5, 1)))
    y, x = (rng.integers(0, extent - side + 1) for extent in pixels.shape[:2])
    return cv2.resize(pixels[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA)


def folder_images(folder: Path) -> list[Path]:
    """Every image file of a folder and its subfolders, in the order of their names; none is opened.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: No image file in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: got {folder}, expected an existing folder of photographs")
    files = sorted(p for p in folder.rglob("*") if is_picture_file(p))
    if not files:
        raise ValueError(f"folder: got {folder} without an image file, expected photographs")
    return files


def open_dataset(name: str, revision: str | None) -> IterableDataset:
    """The training split of a dataset on the hub (or in a local folder), as a stream of undecoded images.

    Raises:
        FileNotFoundError: It cannot be had; the message says what may be the matter.
        ValueError: It has no column `image`.
    """
    expected = "an existing dataset and revision, a network, and for a gated dataset `hf auth login`"
    with fetching("dataset", name, revision, expected, (DatasetsError, OSError, ValueError)):
        dataset = load_dataset(name, revision=revision, split="train", streaming=True)
    if "image" not in (dataset.column_names or []):
        raise ValueError(f"dataset: got {name!r} with the columns {dataset.column_names}, expected one named 'image'")
    return dataset.cast_column("image", Image(decode=False))


def _open(bytes: bytes | None, path: str | None) -> BytesIO:
    """An undecoded image of `datasets`: its bytes (parquet), or where they lie (a folder, local or on the hub)."""
    return BytesIO(fsspec.open(path).open().read() if bytes is None else bytes)

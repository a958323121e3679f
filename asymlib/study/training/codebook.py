"""Vector quantisation: what training a codebook needs beyond diffusers' `VectorQuantizer`, which only looks codes up.

A latent cell is replaced by its nearest code. The encoder gets the decoder's gradient as if nothing had happened
(straight through) and is drawn to the codes by the commitment loss; the codes follow the encoder's outputs by a moving
average or by gradient, and a code that nothing uses is placed anew.

Source: van den Oord et al., Neural Discrete Representation Learning, sections 3.2 and A.1; revival as in Dhariwal et
al., Jukebox, section 3.1. The weight belongs on the commitment term; `VectorQuantizer` puts it on the other one where
`legacy` is true, its default and the only choice that `VQModel` has. So its loss is not used here.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import mse_loss


class Quantised(NamedTuple):
    """What `quantise` gives.

    latent: (N, C, h, w), the codes in value, the encoder's output in gradient.
    index: (N, h, w) int64.
    commitment: mean squared distance to the codes, with gradient to the encoder alone.
    codebook: the same, with gradient to the codes alone.
    """

    latent: torch.Tensor
    index: torch.Tensor
    commitment: torch.Tensor
    codebook: torch.Tensor


def nearest_code(latent: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Index of the nearest of (K, C) codes for each cell of (N, C, h, w), as `VectorQuantizer` has it: (N, h, w)."""
    cells = _cells(latent.detach())
    return torch.cdist(cells, codes.detach()).argmin(1).view(len(latent), *latent.shape[2:])


def quantise(latent: torch.Tensor, codes: torch.Tensor) -> Quantised:
    """Replace every cell of (N, C, h, w) by the nearest of (K, C) codes; the gradient passes straight through."""
    index = nearest_code(latent, codes)
    nearest = codes[index].movedim(-1, 1)
    return Quantised(
        latent + (nearest - latent).detach(),
        index,
        mse_loss(latent, nearest.detach()),
        mse_loss(nearest, latent.detach()),
    )


def code_shares(index: torch.Tensor, count: int) -> torch.Tensor:
    """The share of cells that each of `count` codes has, (count,), summing to one."""
    return torch.bincount(index.flatten(), minlength=count) / index.numel()


def perplexity(shares: torch.Tensor) -> float:
    """The number of equally used codes with the same entropy: from 1 to K. `shares` (K,) need not sum to one.

    Example:
        >>> round(perplexity(torch.ones(512)), 3), perplexity(torch.tensor([1.0, 0.0]))
        (512.0, 1.0)
    """
    return torch.special.entr(shares.double() / shares.double().sum()).sum().exp().item()


class Codebook(nn.Module):
    """Keeps a codebook close to what the encoder gives. Its state is the moving averages; the codes stay the model's.

    Args:
        codes: (K, C), `VQModel.quantize.embedding.weight`; changed in place.
        decay: Of the moving averages, per batch.
        dead_below: A code is dead when its average share of the cells is below this part of the even share 1 / K.
    """

    def __init__(self, codes: nn.Parameter, decay: float, dead_below: float) -> None:
        super().__init__()
        self.decay, self.dead_below = decay, dead_below
        self._codes = [codes]  # in a list, so that it is not registered: the model saves it
        self.register_buffer("share", torch.full((len(codes),), 1 / len(codes)))
        self.register_buffer("total", codes.detach() / len(codes))

    @property
    def codes(self) -> nn.Parameter:
        return self._codes[0]

    @torch.no_grad()
    def fit(self, latent: torch.Tensor, generator: torch.Generator, rounds: int = 20) -> None:
        """Place all codes by k-means on (N, C, h, w): a moving average without memory is Lloyd's algorithm."""
        cells = _cells(latent)
        self.codes.copy_(cells[torch.randperm(len(cells), generator=generator)[: len(self.codes)]])
        for _ in range(rounds):
            self.follow(latent, nearest_code(latent, self.codes), average=True, decay=0.0)
            self.revive(latent, generator)

    @torch.no_grad()
    def follow(self, latent: torch.Tensor, index: torch.Tensor, average: bool, decay: float | None = None) -> None:
        """Take in a batch: every code's share of the cells, and the codes themselves if `average`.

        share <- d share + (1 - d) n_k / n, total <- d total + (1 - d) sum_k / n, code <- total / share.

        Args:
            latent: (N, C, h, w), the encoder's output.
            index: (N, h, w), from `nearest_code`.
            average: Whether the codes move to the averages; without, they learn by gradient.
            decay: Another one than the codebook's own.
        """
        decay = self.decay if decay is None else decay
        cells, flat = _cells(latent.detach()), index.flatten()
        sums = torch.zeros_like(self.total).index_add_(0, flat, cells) / len(cells)
        self.share.lerp_(code_shares(index, len(self.share)), 1 - decay)
        self.total.lerp_(sums, 1 - decay)
        if average:
            used = self.share > 0
            self.codes[used] = self.total[used] / self.share[used, None]

    @torch.no_grad()
    def revive(self, latent: torch.Tensor, generator: torch.Generator) -> int:
        """Put dead codes on random cells of (N, C, h, w), with an even share to begin with; return how many."""
        even = 1 / len(self.share)
        dead = self.share < self.dead_below * even
        cells = _cells(latent.detach())
        self.codes[dead] = cells[torch.randint(len(cells), (int(dead.sum()),), generator=generator)]
        self.share[dead] = even
        self.total[dead] = even * self.codes[dead]
        return int(dead.sum())


def _cells(latent: torch.Tensor) -> torch.Tensor:
    return latent.movedim(1, -1).flatten(0, -2)

"""GroupNorm with statistics that it is given: the whole picture's while a tile is decoded, or another picture's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

Statistics = tuple[torch.Tensor, torch.Tensor]


def group_statistics(norm: nn.GroupNorm, h: torch.Tensor) -> Statistics:
    """Variance and mean that a GroupNorm takes from (N, C, ...): (N, groups) each, float32 as in a GroupNorm."""
    return torch.var_mean(h.float().unflatten(1, (norm.num_groups, -1)).flatten(2), dim=2, correction=0)


def normalise_with(norm: nn.GroupNorm, h: torch.Tensor, statistics: Statistics) -> torch.Tensor:
    """What a GroupNorm makes of (N, C, ...) with these statistics in the place of its own; rounded once, as it does."""
    one = (1,) * (h.ndim - 2)
    variance, mean = (s.repeat_interleave(h.shape[1] // norm.num_groups, 1) for s in statistics)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    scale, shift = (part.unflatten(1, (-1, *one)) for part in (scale, norm.bias - mean * scale))
    return (h * scale + shift).to(h.dtype)


@contextmanager
def recorded_statistics(
    norms: Sequence[nn.GroupNorm], part: Callable[[torch.Tensor], torch.Tensor] = lambda h: h
) -> Iterator[dict[nn.GroupNorm, Statistics]]:
    """Inside, what each norm meets, or a part of it, is kept, the last time that it is called."""
    met: dict[nn.GroupNorm, Statistics] = {}

    def record(norm: nn.GroupNorm, inputs: tuple, _) -> None:
        met[norm] = group_statistics(norm, part(inputs[0]))

    with _hooked(norms, record):
        yield met


@contextmanager
def told_statistics(statistics: dict[nn.GroupNorm, Statistics]) -> Iterator[None]:
    """Inside, these norms use these statistics."""

    def normalise(norm: nn.GroupNorm, inputs: tuple, _) -> torch.Tensor:
        return normalise_with(norm, inputs[0], statistics[norm])

    with _hooked(list(statistics), normalise):
        yield


@contextmanager
def settled_statistics(
    norms: Sequence[nn.GroupNorm], settle: Callable[[nn.GroupNorm, Statistics], Statistics]
) -> Iterator[None]:
    """Inside, each norm uses what `settle` makes of the statistics that it meets first."""
    settled: dict[nn.GroupNorm, Statistics] = {}

    def normalise(norm: nn.GroupNorm, inputs: tuple, _) -> torch.Tensor:
        if norm not in settled:
            settled[norm] = settle(norm, group_statistics(norm, inputs[0]))
        return normalise_with(norm, inputs[0], settled[norm])

    with _hooked(norms, normalise):
        yield


@contextmanager
def _hooked(modules: Sequence[nn.Module], hook: Callable) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

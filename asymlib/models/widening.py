"""Start a wider or deeper decoder as the trained vanilla one: function-preserving where GroupNorm allows it.

Source: Net2Net (Chen, Goodfellow and Shlens 2016): copied channels whose outgoing weights add up to the original's, and
new blocks that begin as the identity.
"""

import torch
from torch import nn


def widen_decoder(decoder: nn.Module, vanilla: nn.Module, groups: int, seed: int) -> None:
    """Give a decoder, in place, the function of a smaller one of the same layout.

    Channels are copied within their group of GroupNorm. Where every channel of a group has as many copies as the others
    (2x), mean and variance of the group stay and the function with them; else (1.25x, 1.5x) copied channels weigh more
    in the statistics, and the start is only near. A copy's share of the outgoing weights is random, so that copies do
    not learn the same. Blocks that `vanilla` does not have begin as the identity.

    Args:
        decoder: diffusers' `Decoder` or one with a condition branch, which keeps its own weights.
        vanilla: diffusers' `Decoder`, of at most its width and depth.
        groups: Groups of every GroupNorm, in both.
        seed: Seed of the shares.

    Raises:
        ValueError: `decoder` is narrower or shallower than `vanilla`, or its channels do not go evenly into the groups.
    """
    generator = torch.Generator().manual_seed(seed)
    own, small = decoder.state_dict(), vanilla.state_dict()
    missing = [name for name in small if name not in own]
    if missing:
        raise ValueError(f"decoder: got no {missing[0]}, expected at least the depth of the vanilla decoder")
    for name, tensor in small.items():
        wide = tensor
        for axis, (few, many) in enumerate(zip(tensor.shape, own[name].shape, strict=True)):
            if few != many:
                wide = wide.index_select(axis, source := copied_channels(few, many, groups))
                if axis == 1:
                    shares = _shares(source, generator)
                    wide = wide * shares.view(1, -1, *[1] * (tensor.ndim - 2))
        if ".to_q." in name:  # attention divides by the root of the channels
            wide = wide * (len(tensor) / len(wide)) ** 0.5
        own[name] = wide
    for name in own.keys() - small.keys():
        if ".conv2." in name:
            own[name] = torch.zeros_like(own[name])
    decoder.load_state_dict(own)


def copied_channels(few: int, many: int, groups: int) -> torch.Tensor:
    """For each of `many` channels, of which of `few` it is a copy; a group's channels stay in it.

    >>> copied_channels(4, 6, 2)
    tensor([0, 0, 1, 2, 2, 3])

    Raises:
        ValueError: There are fewer, or channels do not go evenly into the groups.
    """
    if many < few or few % groups or many % groups:
        raise ValueError(f"width: got {many} channels for {few}, expected at least as many, and multiples of {groups}")
    place = torch.arange(many // groups) * few // many
    return torch.cat([group * (few // groups) + place for group in range(groups)])


def _shares(source: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random positive shares, those of the copies of one channel adding up to 1."""
    drawn = 0.5 + torch.rand(len(source), generator=generator)
    return drawn / torch.zeros(int(source.max()) + 1).index_add(0, source, drawn)[source]

"""Why the known pixels stay: what reaches them in the official decoder, and how much of their error comes that way.

A known pixel further than one pixel from the hole is made by the branch's first convolution, the last GroupNorm, SiLU
and the last convolution. The latent, the trunk and the branch's deeper layers reach it through that GroupNorm's
statistics, and in no other way.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import torch
from torch import nn

from asymlib.masks import dilate
from asymlib.metrics import pre_error
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.models.normalisation import recorded_statistics, told_statistics
from asymlib.study.dataset.images import Pairs
from asymlib.study.evaluation.protocol import Task, rows_of


@contextmanager
def last_norm(vqgan: AsymmetricVQGAN, norm: nn.Module) -> Iterator[nn.Module]:
    """Put another module in the place of the decoder's last normalisation for a while."""
    own = vqgan.decoder.conv_norm_out
    vqgan.decoder.conv_norm_out = norm
    try:
        yield norm
    finally:
        vqgan.decoder.conv_norm_out = own


@torch.no_grad()
def what_reaches_known_pixels(
    vqgan: AsymmetricVQGAN, latent: torch.Tensor, image: torch.Tensor, mask: torch.Tensor, seed: int
) -> pd.DataFrame:
    """Largest change of known pixels, in [0, 1], when the latent or the trunk's weights are disturbed.

    Args:
        vqgan: With the paper's branch.
        latent: (N, C, h, w).
        image: (N, 3, H, W) in [-1, 1].
        mask: (N, 1, H, W), 1 = hole.
        seed: Seed of the disturbance.

    Returns:
        Rows of last_norm (`as it is`, `identity`), disturbed (`latent`, `trunk`), rim (known pixels that touch the
        hole) and beyond (all others).
    """
    near = dilate(mask, 1)
    regions = {"rim": near * (1 - mask), "beyond": 1 - near}
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for name, norm in {"as it is": vqgan.decoder.conv_norm_out, "identity": nn.Identity()}.items():
        with last_norm(vqgan, norm):
            before = vqgan.decode(latent, image, mask)
            noise = torch.randn(latent.shape, generator=generator) * latent.std()
            after = {"latent": vqgan.decode(latent + noise, image, mask)}
            weights = [(p, p.clone()) for p in vqgan.decoder.up_blocks.parameters()]
            for parameter, _ in weights:
                parameter += 0.1 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
            after["trunk"] = vqgan.decode(latent, image, mask)
            for parameter, kept in weights:
                parameter.copy_(kept)
        for disturbed, result in after.items():
            change = {region: float(((result - before).abs() * where).max() / 2) for region, where in regions.items()}
            rows.append({"last_norm": name, "disturbed": disturbed} | change)
    return pd.DataFrame(rows)


@torch.no_grad()
def known_errors(vqgan: AsymmetricVQGAN, tasks: dict[str, Task], pairs: Pairs, batch: int, seed: int) -> pd.DataFrame:
    """pre_error beyond the rim: as the decoder is, and with the last GroupNorm's statistics of a picture with no hole.

    Args:
        vqgan: With the paper's branch.
        tasks: `own` and others, from `make_tasks`.
        pairs: Images and masks.
        batch: Images at a time.
        seed: For the rows.

    Returns:
        Rows as `rows_of` makes them: the variant `as_it_is` for every source, `all_known_statistics` for `own`. What
        two sources differ by, beyond the rim, is the GroupNorm's drift, since nothing else of the latent arrives there.
    """
    parts = []
    for chosen in torch.arange(len(pairs.image)).split(batch):
        image, mask = pairs.image[chosen], pairs.mask[chosen]
        around = dilate(mask, 1)
        some = Pairs(image, mask, pairs.table.iloc[chosen.tolist()])
        with recorded_statistics([vqgan.decoder.conv_norm_out]) as all_known:
            vqgan.decode(tasks["own"].latent[chosen], image, torch.zeros_like(mask))
        runs = [("as_it_is", source, {}) for source in tasks] + [("all_known_statistics", "own", all_known)]
        for variant, source, told in runs:
            with told_statistics(told):
                image_hat = vqgan.decode(tasks[source].latent[chosen], image, mask).clamp(-1, 1)
            error = pre_error((image + 1) / 2, (image_hat + 1) / 2, around)
            parts.append(rows_of({"pre_error": error}, some, variant, source, seed))
    return pd.concat(parts, ignore_index=True)

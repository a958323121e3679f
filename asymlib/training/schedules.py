"""Learning rates by step. diffusers' `get_scheduler` has a cosine with warm-up too, but it begins and ends at 0: it
knows neither the official start and floor, nor a warm-up that is laid over the cosine."""

import math


def warmup_then_cosine(step: int, steps: int, warmup: int, floor: float) -> float:
    """The factor on a rate: linear from 0.01 to 1 over `warmup` steps, then cosine to `floor`.

    Source: official `lr_scheduler.py`, `LambdaWarmUpCosineScheduler`.

    >>> [round(warmup_then_cosine(step, 120, 20, 0.1), 3) for step in (0, 10, 20, 70, 120)]
    [0.01, 0.505, 1.0, 0.55, 0.1]
    """
    if step < warmup:
        return 0.01 + 0.99 * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def cosine_with_warmup(rate: float, step: int, steps: int, warmup: int = 50) -> float:
    """Cosine from `rate` to 0 over `steps`, the first `warmup` of them also linear from 0.

    >>> [round(cosine_with_warmup(1.0, step, 100), 3) for step in (0, 49, 50, 100)]
    [0.02, 0.516, 0.5, 0.0]
    """
    return rate * min(1, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))

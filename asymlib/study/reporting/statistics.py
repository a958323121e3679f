"""What some scenes say about all scenes: means, differences and ratios with their 95 % intervals, and p-values.

Crops of one photograph are not independent, so the unit is the scene: everything here takes the means of scenes, each
of the same weight. Where several seeds were trained, scenes and seeds are crossed, and both are taken for draws.

Student's t alone covers too seldom where scenes are skewed: in 88 % of cases with 5 to 11 scenes whose logarithms
deviate by 0.7. So an interval's end on the side of the long tail is moved outwards by what skewness does to t (Johnson
1978, Modified t tests and confidence intervals for asymmetrical populations; Chen 1995, Testing the mean of skewed
distributions), more for few scenes, which show little of it. tests/study/reporting/test_statistics.py simulates how
often intervals cover: 93 to 98 % from 3 to 200 skewed scenes, up to 99 % for means over seeds of 3 or 5 scenes. It is
less where one scene in dozens differs by more than all others together, where scenes disagree on a ratio by a factor of
two (11 or 20 of them: 91 %), and with two seeds and 60 scenes or more (89 %).
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri, stdtr, stdtrit

TAIL = 0.025  # beyond each end of an interval
FEW = 30  # a few scenes show little of the skewness that there is: with this many, its correction counts twice


class Estimate(NamedTuple):
    """A value, its 95 % interval, how many scenes it comes from, and the degrees of freedom of the interval's t.

    Without an interval, as for a single scene, `low`, `high` and `df` are NaN.
    """

    value: float
    low: float
    high: float
    scenes: int
    df: float


def mean(scenes: np.ndarray) -> Estimate:
    """The mean over scenes, or of paired differences over scenes.

    Args:
        scenes: (G,), or (G, S) for S seeds, the mean of each scene. With an infinite one the mean is infinite, and so
            are both ends of its interval.
    """
    scenes = _two_axes(scenes)
    count = len(scenes)
    if count < 2:
        return Estimate(scenes.mean() if count else np.nan, np.nan, np.nan, count, np.nan)
    if not np.isfinite(scenes).all():
        value = scenes.mean()
        return Estimate(value, value, value, count, count - 1)
    value, low, high, df = (float(number) for number in interval(scenes))
    return Estimate(value, low, high, count, df)


def ratio(scenes: np.ndarray, against: np.ndarray) -> Estimate:
    """The mean of one quantity over that of another, neither below 0, both measured on the same scenes.

    A ratio R is refuted where Student's t finds that the mean of `scenes - R * against` is not 0 (Fieller 1954). If
    `against` itself cannot be told from 0, no ratio is too large, and `high` is infinite.

    Args:
        scenes: (G,) or (G, S), the mean of each scene.
        against: Likewise.
    """
    scenes, against = _two_axes(scenes), _two_axes(against)
    count = len(scenes)
    if count < 2 or not against.any():
        value = scenes.mean() / against.mean() if against.any() else np.nan
        return Estimate(value, np.nan, np.nan, count, np.nan)

    def ends(r: float) -> tuple[float, float]:
        return interval(scenes - r * against, lengthened=False)[1:3]

    value = scenes.mean() / against.mean()
    df = float(interval(scenes - value * against)[3])
    if ends(value)[1] - ends(value)[0] <= 1e-9 * scenes.mean():  # every scene has the same ratio
        return Estimate(value, value, value, count, df)
    low, high = 0.0, np.inf
    if ends(0)[0] > 0:
        low = brentq(lambda r: ends(r)[0], 0, value)
    if interval(against, lengthened=False)[1] > 0:
        far = 2 * value
        while ends(far)[1] > 0:
            far *= 2
        high = brentq(lambda r: ends(r)[1], value, far)
    return Estimate(value, low, high, count, df)


def interval(scenes: np.ndarray, lengthened: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means with their intervals, for many sets of scenes at once.

    With seeds the mean's variance has two parts, from scenes and from seeds, each with the quantile of its own t,
    weighed by the parts (Cochran 1964); the degrees of freedom are Satterthwaite's.

    Args:
        scenes: (..., G, S), finite: G >= 2 scenes, S seeds.
        lengthened: Whether for skewness; a ratio's covers without.

    Returns:
        value, low, high, degrees of freedom, (...) each.
    """
    g, s = scenes.shape[-2:]
    by_scene, by_seed = scenes.mean(-1), scenes.mean(-2)
    value = by_scene.mean(-1)
    of_scenes = by_scene.var(-1, ddof=1) / g  # what scene and seed do together is in it
    variance, df, t = of_scenes, np.full(value.shape, g - 1.0), stdtrit(g - 1, 1 - TAIL)
    if s > 1:
        rest = scenes - by_scene[..., None] - by_seed[..., None, :] + value[..., None, None]
        together = np.square(rest).sum((-2, -1)) / ((g - 1) * (s - 1)) / (g * s)
        of_seeds = np.maximum(by_seed.var(-1, ddof=1) / s - together, 0)
        variance = of_scenes + of_seeds
        df = np.maximum(_over(variance**2, of_scenes**2 / (g - 1) + of_seeds**2 / (s - 1)), min(g, s) - 1)
        t = t + _over(of_seeds, variance) * (stdtrit(s - 1, 1 - TAIL) - t)
    error, skewness = np.sqrt(variance), _skewness(by_scene) * _over(of_scenes, variance) ** 1.5 / np.sqrt(g)
    longer = lengthened * (1 + FEW / g) * skewness * (1 + 2 * ndtri(TAIL) ** 2) / 6
    return value, value - error * (t + np.maximum(-longer, 0)), value + error * (t + np.maximum(longer, 0)), df


def p_value(estimate: Estimate, bound: float, direction: str, is_ratio: bool = False) -> float:
    """One-sided: how likely such an estimate, or one further off, is where the truth is not beyond the bound.

    It follows from the interval, so that the cell of a table is enough: each side of it is taken for that of a t
    distribution, for a ratio's logarithm. It is 0.025 where the interval ends at the bound. Far below, it is too small
    where few scenes are very skewed: 0.002 then stands for 0.02 at 5 to 20 scenes, for 0.005 at 200.

    Args:
        estimate: With its interval; NaN without.
        bound: Above 0 for a ratio.
        direction: `below` or `above`: on which side of the bound the truth is claimed to lie.
        is_ratio: Whether it is one.

    >>> round(p_value(Estimate(1.0, 0.0, 3.0, 5, 4.0), 0.0, "above"), 3)
    0.025
    """
    numbers = np.array([*estimate[:3], bound])
    if is_ratio:
        with np.errstate(divide="ignore"):
            numbers = np.log(numbers)
    value, low, high, bound = numbers
    if np.isnan(low):
        return np.nan
    sign = 1 if direction == "above" else -1
    if low == high:  # no spread
        return 0.0 if sign * (value - bound) > 0 else 1.0
    side = value - low if bound < value else high - value
    return float(stdtr(estimate.df, sign * (bound - value) / side * stdtrit(estimate.df, 1 - TAIL)))


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values of a family of claims, (K,): below 0.05, none of them holds by chance in 95 % of families.

    NaN, of what is not tested, stays and does not count. Source: Holm 1979, A simple sequentially rejective procedure.

    >>> holm(np.array([0.04, 0.01, np.nan, 0.03])).round(2).tolist()
    [0.06, 0.03, nan, 0.06]
    """
    p = np.asarray(p, float)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    adjusted = p.copy()
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return adjusted


def _two_axes(scenes: np.ndarray) -> np.ndarray:
    """(G,) or (G, S) -> (G, S)."""
    scenes = np.asarray(scenes, float)
    return scenes[:, None] if scenes.ndim == 1 else scenes


def _skewness(scenes: np.ndarray) -> np.ndarray:
    """(..., G) -> (...), with the correction for small samples; 0 for fewer than three."""
    g = scenes.shape[-1]
    if g < 3:
        return np.zeros(scenes.shape[:-1])
    off = scenes - scenes.mean(-1, keepdims=True)
    return _over((off**3).mean(-1), np.square(off).mean(-1) ** 1.5) * np.sqrt(g * (g - 1)) / (g - 2)


def _over(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros_like(b), where=b > 0)

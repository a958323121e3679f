"""What the paper claims and what we do, each beside the number that decides it.

A claim is a statement, a number with its interval, and a bound that stands beside it. It holds where the whole interval
lies on its side of the bound, does not hold where all of it lies on the other, and is open otherwise.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from asymlib.study.reporting.tables import compare, read_rows, read_table

COLUMNS = ["whose", "claim", "table", "variant", "source", "metric", "estimate", "low", "high", "verdict"]


class Claim(NamedTuple):
    """A statement and what decides it.

    variant, against, how: compared pair by pair on the rows of inpainting, see `tables.compare`; where `against` is
    empty, a cell of `table` instead. side, bound: where the number has to lie. untested: why it is not decided here.
    """

    whose: str
    claim: str
    variant: str = ""
    metric: str = ""
    source: str = "own"
    side: str = "below"
    bound: float = 0.0
    against: str = ""
    how: str = "difference"
    table: str = "inpainting"
    untested: str = ""


UNDERTRAINED = "our heavier decoders start from nothing and are undertrained on minutes, the paper's had days"
SOURCES = ("own", "swapped", "inpainted")
PASTED = "vanilla_paste_"
RATIO = {"metric": "pre_error", "against": "vanilla", "how": "ratio", "bound": 1.0}
HUNDREDTH = {"metric": "pre_error", "against": "base", "how": "ratio", "bound": 0.01}
PRESERVATION = {"metric": "pre_error_ratio_to_base", "bound": 1.0}
RIM = {"metric": "ring_l1_4_difference_to_base"}
HOLE = {"metric": "hole_psnr_difference_to_base", "side": "above"}
ALONE = {"metric": "hole_psnr_difference_to_without_branch", "source": "whole", "side": "above"}


def _short(whose: str, claim: str, row: str, what: dict) -> Claim:
    """A claim that the short runs decide: a row of `ablations` against the paper's branch."""
    width = row.startswith(("wider", "deeper"))
    return Claim(whose, claim, row, table="ablations_width" if width else "ablations_condition", **what)


CLAIMS = [
    *(Claim("paper", f"The branch keeps known pixels ({s} latents)", "base", source=s, **RATIO) for s in SOURCES),
    Claim(
        "paper",
        "Inpainted pictures come closer to the originals (feature distance for LPIPS)",
        "base",
        "effnet_distance",
        "inpainted",
        against="vanilla",
    ),
    *(
        Claim(
            "paper",
            f"A local edit by {s} leaves the rest alone",
            "base",
            "pre_error_ratio_to_vanilla",
            s,
            bound=1.0,
            table="local_editing",
        )
        for s in ("prompt", "example")
    ),
    Claim(
        "paper",
        "Without a mask base decodes as well as vanilla",
        "base",
        "psnr_difference_to_vanilla",
        side="above",
        bound=-0.1,
        table="generation",
    ),
    Claim(
        "paper",
        "The 2x decoder costs only slightly more: 50 guided steps, at most a quarter",
        "large_2x_full_size",
        "whole_run_100",
        "all",
        bound=1.25,
        table="cost",
    ),
    Claim(
        "paper",
        "The 2x decoder costs only slightly more: 4 steps, at most a quarter",
        "large_2x_full_size",
        "whole_run_4",
        "all",
        bound=1.25,
        table="cost",
    ),
    _short("paper", "A wider decoder keeps known pixels better (2x width, same start)", "wider_2x", PRESERVATION),
    _short("paper", "A wider decoder recovers more of the hole (2x width, same start)", "wider_2x", HOLE),
    _short("paper", "A deeper decoder recovers more of the hole (2.5x depth, same start)", "deeper_2.5x", HOLE),
    _short("paper", "Width alone decodes better (2x, no branch, same start)", "wider_2x_without_branch", ALONE),
    _short("paper", "Depth alone decodes better (2.5x, no branch, same start)", "deeper_2.5x_without_branch", ALONE),
    Claim("paper", "1.5x and 2x, fully trained, are better than base", untested=UNDERTRAINED),
    Claim("paper", "FID falls by 2 in inpainting and stays in text-to-image", untested="no Stable Diffusion offline"),
    Claim("paper", "So it does on Places", untested="neither the pictures nor the numbers are to be had"),
    Claim("paper", "DiffEdit and Paint by Example gain as well", untested="no Stable Diffusion offline"),
    Claim("paper", "People prefer its results", untested="needs people"),
    Claim("paper", "Training costs little", untested="its authors report no times; the README computes some"),
    Claim(
        "ours",
        "Training without the branch does not even halve the known pixels' error",
        "vanilla_finetuned",
        **RATIO | {"side": "above", "bound": 0.5},
    ),
    Claim("ours", "The branch costs the hole", "base", "hole_psnr", against="vanilla"),
    Claim("ours", "Pasting back beats base at the rim", "vanilla_paste_hard", "ring_l1_4", against="base"),
    Claim("ours", "The branch also works on a VQ first stage", "base_vq", **RATIO | {"against": "vanilla_vq"}),
    Claim(
        "ours",
        "Poisson blending mends a hole that has drifted",
        "vanilla_paste_poisson",
        "ring_l1_4",
        "inpainted",
        against="vanilla_paste_hard",
    ),
    Claim(
        "ours",
        "Poisson blending ruins a hole that is meant to differ",
        "vanilla_paste_poisson",
        "ring_l1_4",
        "swapped",
        side="above",
        against="vanilla_paste_hard",
    ),
    _short("ours", "2x width is worth its compute in the hole", "wider_2x_equal_compute", HOLE),
    _short("ours", "One layer of the branch keeps known pixels, to a tenth", "layer_0", PRESERVATION | {"bound": 1.1}),
    _short("ours", "A branch that is told the mask does better at the rim", "mask_input", RIM),
    _short("ours", "Coarse masks that spare every pixel of the hole do better at the rim", "coarse_mask_any", RIM),
    _short("ours", "Adding features, from zero on, spares the hole", "blend_add", HOLE),
    _short("ours", "Without the last normalisation known pixels are kept better", "without_output_norm", PRESERVATION),
    _short("ours", "Training on swapped latents mends their rim", "swapped_latents", RIM | {"source": "swapped"}),
    _short(
        "ours",
        "Without full masks in training, decoding without a mask suffers",
        "never_full_mask",
        HOLE | {"source": "whole", "side": "below"},
    ),
    *(
        Claim("ours", f"retouch has at most 1/100 of base's pre_error ({s} latents)", "retouch", source=s, **HUNDREDTH)
        for s in SOURCES
    ),
    *(
        Claim("ours", f"retouch beats 2x at the rim ({s} latents)", "retouch", "ring_l1_4", s, against="large_2x")
        for s in SOURCES
    ),
    *(
        Claim("ours", f"retouch beats base at the rim ({s} latents)", "retouch", "ring_l1_4", s, against="base")
        for s in SOURCES
    ),
    *(
        Claim("ours", f"retouch beats {paste} {where} ({s} latents)", "retouch", metric, s, against=PASTED + paste)
        for where, metric in (("at the rim", "ring_l1_4"), ("at the seam", "seam_grad"))
        for s in SOURCES
        for paste in ("hard", "poisson")
    ),
    *(
        Claim(
            "ours",
            f"retouch's hole is as close in features as {paste}'s, to 0.01 ({s} latents)",
            "retouch",
            "hole_effnet_distance",
            s,
            bound=0.01,
            against=PASTED + paste,
        )
        for s in SOURCES
        for paste in ("hard", "poisson")
    ),
    *(
        Claim(
            "ours",
            f"retouch costs the hole at most 0.1 dB ({s} latents)",
            "retouch",
            "hole_psnr",
            s,
            "above",
            -0.1,
            "vanilla",
        )
        for s in SOURCES
    ),
]


def decide(results: Path, stratum: str, resamples: int, seed: int) -> pd.DataFrame:
    """Every claim with its number and verdict.

    Args:
        results: The folder of a profile's results.
        stratum: `photograph` or `procedural`.
        resamples: Number of bootstrap draws.
        seed: Seed of the draws.

    Returns:
        A table with the columns COLUMNS; what is not tested has no number, and its verdict says why.
    """
    rows = read_rows(results / "rows" / "inpainting.csv")
    rows = rows[rows["stratum"] == stratum]
    decided = []
    for claim in CLAIMS:
        estimate = (np.nan, np.nan, np.nan)
        said = f"not tested here: {claim.untested}"
        if not claim.untested:
            found = _paired(rows, claim, resamples, seed) if claim.against else _cell(results, claim, stratum)
            estimate, said = found or (estimate, f"not tested here: no such row in the table {claim.table}")
        metric = f"{claim.metric}_{claim.how}_to_{claim.against}" if claim.against else claim.metric
        where = (claim.table, claim.variant, claim.source, metric) if claim.variant else ("", "", "", "")
        decided.append((claim.whose, claim.claim, *where, *estimate, said))
    return pd.DataFrame(decided, columns=COLUMNS)


def verdict(claim: Claim, low: float, high: float) -> str:
    """Holds, does not hold, or open, by where the interval lies.

    >>> [verdict(Claim("ours", "", side="below", bound=1), *interval) for interval in ((0, 0.9), (0.9, 1.1), (1.1, 2))]
    ['holds', 'open', 'does not hold']
    """
    below, above = high < claim.bound, low > claim.bound
    if claim.side == "above":
        below, above = above, below
    return "holds" if below else "does not hold" if above else "open"


def claims_for_reading(table: pd.DataFrame, whose: str) -> pd.DataFrame:
    """The claims of the paper or ours as sentences, numbers and verdicts."""
    chosen = table[table["whose"] == whose]
    numbers = [
        ""
        if np.isnan(r.estimate)
        else f"{r.estimate:.3g}"
        if np.isnan(r.low)
        else f"{r.estimate:.3g} [{r.low:.3g}, {r.high:.3g}]"
        for r in chosen.itertuples()
    ]
    where = (chosen["variant"].fillna("") + " " + chosen["metric"].fillna("")).str.strip()
    columns = {"claim": chosen["claim"], "decided by": where, "value": numbers, "verdict": chosen["verdict"]}
    return pd.DataFrame(columns).reset_index(drop=True)


def _paired(rows: pd.DataFrame, claim: Claim, resamples: int, seed: int) -> tuple | None:
    part = rows[(rows["source"] == claim.source) & (rows["metric"] == claim.metric)]
    if not {claim.variant, claim.against} <= set(part["variant"]):
        return None
    estimate = compare(part, claim.metric, claim.variant, claim.against, claim.how, resamples, seed)
    return estimate, verdict(claim, *estimate[1:])


def _cell(results: Path, claim: Claim, stratum: str) -> tuple | None:
    path = results / "tables" / f"{claim.table}.csv"
    table = read_table(path) if path.is_file() else pd.DataFrame(columns=["variant", "metric", "source", "stratum"])
    chosen = table[
        (table["variant"] == claim.variant)
        & (table["metric"] == claim.metric)
        & (table["source"] == claim.source)
        & table["stratum"].isin([stratum, "all"])
    ]
    if chosen.empty:
        return None
    cell = chosen.iloc[-1]  # where mask kinds are told apart, `all` of them stands last
    value, low, high = (float(cell[name]) for name in ("value", "low", "high"))
    exact = np.isnan(low)  # counted, not estimated
    return (value, low, high), verdict(claim, value if exact else low, value if exact else high)

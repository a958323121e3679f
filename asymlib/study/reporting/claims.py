"""What the paper claims and what we do, each beside the bound and the number that decide it.

The claims stand in claims.yaml, in families. A claim holds where its one-sided p-value, adjusted for the number of
claims in its family (Holm), is below 0.05, does not hold where that of the opposite is, and is open otherwise.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import ValidationError, field_validator, model_validator

from asymlib.study.params import Section, first_mistake
from asymlib.study.reporting.statistics import Estimate, holm, p_value
from asymlib.study.reporting.tables import compare, read_rows, read_table
from asymlib.study.sources import EDGED, says_nothing

FILE = Path(__file__).with_name("claims.yaml")
COLUMNS = ["family", "claim", "bound", "direction", "unit", "scenes", "estimate", "low", "high", "p", "p_adjusted"]
COLUMNS += ["verdict", "table", "variant", "source", "metric"]
LEVEL = 0.05
OPPOSITE = {"below": "above", "above": "below"}


class Claim(Section):
    """A statement and what decides it.

    variant, metric, source: which number of `table`. against, how: the variants that it is compared with pair by pair
    on the rows of inpainting, and the claim holds if it holds against each of them; without `against`, a cell of
    `table` decides. direction, bound, unit: where the number has to lie. untested: why nothing decides it here.
    """

    claim: str
    table: str = "inpainting"
    variant: str = ""
    metric: str = ""
    source: str = "own"
    against: tuple[str, ...] = ()
    how: Literal["difference", "ratio"] = "difference"
    direction: Literal["below", "above"] = "below"
    bound: float = 0.0
    unit: str = ""
    untested: str = ""

    @field_validator("against", mode="before")
    @classmethod
    def _one_or_more(cls, given: str | list[str]) -> list[str]:
        return [given] if isinstance(given, str) else given

    @model_validator(mode="after")
    def _can_be_decided(self) -> "Claim":
        if self.untested:
            return self
        if not self.variant or not self.metric:
            raise ValueError(f"variant, metric: got {self.variant!r} and {self.metric!r}, expected both, or untested")
        if self.against and self.table != "inpainting":
            raise ValueError(f"against: got {self.against[0]!r} for {self.table}, expected a cell's metric to name it")
        if self.is_ratio and self.bound <= 0:
            raise ValueError(f"bound: got {self.bound:g} for a ratio, expected a number above 0")
        if self.metric.startswith("pre_error") and (self.variant == "last_word" or "_paste_" in self.variant):
            raise ValueError(f"metric: got {self.metric!r} of {self.variant}, expected another: it copies known pixels")
        if says_nothing(self.metric, self.source):
            why = "an edge belongs there" if self.source in EDGED else "the hole has no right answer"
            raise ValueError(f"metric: got {self.metric!r} on {self.source!r}, expected another: {why}")
        return self

    @property
    def is_ratio(self) -> bool:
        return "_ratio_to_" in self.metric or bool(self.against) and self.how == "ratio"


def read_claims(path: Path = FILE) -> dict[str, list[Claim]]:
    """Family -> its claims; an entry with several sources is a claim for each, `{source}` in its statement replaced.

    Raises:
        ValueError: An unknown key, a claim that nothing can decide or that stands twice, named in one sentence.
    """
    families = {
        family: [_claim(family, entry, source) for entry in entries for source in _sources(entry)]
        for family, entries in yaml.safe_load(path.read_text()).items()
    }
    for family, claims in families.items():
        names = [claim.claim for claim in claims]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"claims.yaml, {family}: got {twice[0]!r} twice, expected every statement once")
    return families


def decide(results: Path, stratum: str, families: dict[str, list[Claim]] | None = None) -> pd.DataFrame:
    """Every claim with its number and verdict.

    Args:
        results: The folder of a profile's results.
        stratum: `photograph` or `procedural`.
        families: From `read_claims`.

    Returns:
        A table with the columns COLUMNS. Of several baselines the one that decides is shown, the hardest. What is not
        tested has no number, and what was counted and not estimated no p-value; their verdicts say so.
    """
    rows = read_rows(results / "rows" / "inpainting.csv.gz")
    rows = rows[rows["stratum"] == stratum]
    parts = []
    for family, claims in (families or read_claims()).items():
        table = pd.DataFrame([_decided(claim, rows, results, stratum) for claim in claims])
        table["p_adjusted"], opposite = holm(table["p"]), holm(table["opposite"])
        estimated = table["p"].notna() & table["verdict"].isna()
        table.loc[estimated, "verdict"] = [
            "holds" if p < LEVEL else "does not hold" if q < LEVEL else "open"
            for p, q in zip(table["p_adjusted"][estimated], opposite[estimated], strict=True)
        ]
        parts.append(table.assign(family=family)[COLUMNS])
    return pd.concat(parts, ignore_index=True)


def claims_for_reading(table: pd.DataFrame, family: str) -> pd.DataFrame:
    """A family's claims as sentences, bounds, numbers and verdicts."""
    rows = []
    for claim in table[table["family"] == family].itertuples():
        tested = not np.isnan(claim.estimate)
        bound = f"{claim.direction} {claim.bound:g} {'' if pd.isna(claim.unit) else claim.unit}".strip()
        rows.append(
            {
                "claim": claim.claim,
                "claimed": bound if tested else "",
                "found": _found(claim) if tested else "",
                "scenes": "" if np.isnan(claim.scenes) else f"{claim.scenes:.0f}",
                "adjusted p": "" if np.isnan(claim.p_adjusted) else f"{claim.p_adjusted:.2g}",
                "verdict": claim.verdict,
                "decided by": f"{claim.table}: {claim.variant} {claim.source} {claim.metric}" if tested else "",
            }
        )
    return pd.DataFrame(rows)


def _sources(entry: dict) -> list[str]:
    given = entry.get("source", "own") if isinstance(entry, dict) else "own"
    return given if isinstance(given, list) else [given]


def _claim(family: str, entry: dict, source: str) -> Claim:
    if not isinstance(entry, dict) or not isinstance(entry.get("claim"), str):
        raise ValueError(f"claims.yaml, {family}: got {entry!r}, expected keys, `claim` among them")
    try:
        return Claim(**entry | {"source": source, "claim": entry["claim"].replace("{source}", source)})
    except ValidationError as error:
        raise ValueError(f"claims.yaml, {family}, {entry['claim']!r}, {first_mistake(error)}") from None


def _decided(claim: Claim, rows: pd.DataFrame, results: Path, stratum: str) -> dict:
    """A row of the table, but for what its family decides; `opposite` is the p-value of the opposite."""
    empty = dict.fromkeys(COLUMNS) | {"claim": claim.claim, "p": np.nan, "opposite": np.nan}
    if claim.untested:
        return empty | {"verdict": f"not tested here: {claim.untested}"}
    found = _against_each(claim, rows) if claim.against else _cell(claim, results, stratum)
    if not found:
        return empty | {"verdict": f"not tested here: no such row in the table {claim.table}"}
    p, opposite = (
        {metric: p_value(estimate, claim.bound, direction, claim.is_ratio) for metric, estimate in found.items()}
        for direction in (claim.direction, OPPOSITE[claim.direction])
    )
    metric = max(p, key=lambda name: (np.isnan(p[name]), p[name]))  # the hardest to beat
    estimate = found[metric]
    row = claim.model_dump(include={"claim", "bound", "direction", "unit", "table", "variant", "source"})
    row |= {"scenes": estimate.scenes, "estimate": estimate.value, "low": estimate.low, "high": estimate.high}
    # that one of several baselines wins can be chance: Bonferroni
    row |= {"metric": metric, "p": p[metric], "opposite": min(min(opposite.values()) * len(found), 1), "verdict": None}
    if np.isnan(estimate.scenes):
        holds = (estimate.value < claim.bound) == (claim.direction == "below") and estimate.value != claim.bound
        row["verdict"] = "holds (counted)" if holds else "does not hold (counted)"
    elif np.isnan(p[metric]):
        row["verdict"] = "open"  # a single scene
    return row


def _against_each(claim: Claim, rows: pd.DataFrame) -> dict[str, Estimate]:
    """Metric -> its estimate, for every variant of `against`; none where one of them is missing."""
    part = rows[(rows["source"] == claim.source) & (rows["metric"] == claim.metric)]
    if not {claim.variant, *claim.against} <= set(part["variant"]):
        return {}
    return {
        f"{claim.metric}_{claim.how}_to_{against}": compare(part, claim.metric, claim.variant, against, claim.how)
        for against in claim.against
    }


def _cell(claim: Claim, results: Path, stratum: str) -> dict[str, Estimate]:
    """The same of a cell, where there is one."""
    path = results / "tables" / f"{claim.table}.csv"
    if not path.is_file():
        return {}
    table = read_table(path)
    chosen = table[
        (table["variant"] == claim.variant)
        & (table["metric"] == claim.metric)
        & (table["source"] == claim.source)
        & table["stratum"].isin([stratum, "all"])
        & table["value"].notna()
    ]
    # where mask kinds are told apart, `all` of them stands last
    return {claim.metric: Estimate(*chosen[list(Estimate._fields)].iloc[-1])} if len(chosen) else {}


def _found(claim: tuple) -> str:
    """Value and interval with three digits, or as many as it takes to see on which side of the bound each lies."""
    numbers = [claim.estimate, *([] if np.isnan(claim.low) else [claim.low, claim.high])]
    shown = [
        next(text for digits in range(3, 18) if _same_side(text := f"{number:.{digits}g}", number, claim.bound))
        for number in numbers
    ]
    return shown[0] if len(shown) == 1 else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _same_side(text: str, number: float, bound: float) -> bool:
    return np.sign(float(text) - bound) == np.sign(number - bound)

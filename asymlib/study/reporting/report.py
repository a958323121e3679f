"""The report of a profile on one page, and the numbers of README and docs: pictures and numbers beside the paper's."""

import argparse
import json
import re
from pathlib import Path

import pandas as pd
from jinja2 import Environment

from asymlib.files import written
from asymlib.study.profiles import COMMITTED
from asymlib.study.project import project_root
from asymlib.study.reporting.claims import claims_for_reading
from asymlib.study.reporting.paper import INPAINTING, TEXT_TO_IMAGE
from asymlib.study.reporting.tables import read_table, wide_table

HEADLINE = "photos"  # the profile that README and docs speak of: 200 test scenes
COLUMNS = {
    "pre_error": "e-5",
    "psnr_kept": ".1f",
    "seam_grad": ".1f",
    "ring_l1_4": ".2f",
    "hole_psnr": ".2f",
    "hole_effnet_distance": ".4f",
    "seam_added": ".2f",
    "hole_changed": ".2f",
}
README_COLUMNS = {name: COLUMNS[name] for name in COLUMNS if name not in ("psnr_kept", "hole_effnet_distance")}
GENERATION_COLUMNS = {
    "kid_effnet_to_real": ".3f",
    "kid_effnet_to_real_subset_deviation": ".3f",
    "kid_effnet_to_vanilla": ".3f",
    "psnr": ".2f",
}
EDITING_COLUMNS = {
    "pre_error": "e-5",
    "seam_added": ".2f",
    "hole_changed": ".2f",
    "word_score": ".3f",
    "word_share": ".3f",
    "example_colour_distance": ".3f",
    "example_effnet_distance": ".3f",
}
COST = {"decoder_parameters": ",.0f", "decode_gmac": ".2f", "training_steps": ".0f", "training_tmac": ".1f"}
SHORT_COLUMNS = {
    "pre_error_ratio_to_base": ".2f",
    "ring_l1_4_difference_to_base": "+.2f",
    "hole_psnr_difference_to_base": "+.2f",
}
FIGURES = {
    "tour": "One photograph: an edit by a small diffusion model, decoded in three ways",
    "reconstruction": "What the autoencoder loses without any edit: photographs above, reconstructions below",
    "inpainting": "Photographs that were never trained on, with the hole filled by a small diffusion model",
    "preservation": "Error of the known pixels, own latents",
    "condition": "Training with and without the branch",
    "finishers": "Everything that can come after a decoder: the seam against how far the hole was changed",
    "width": "The hole, by width of the decoder",
    "generation": "Generated from a prompt, without a mask: the same latents, decoded by each decoder",
    "local_editing": "Local edits: by a word, where the model found the region, and by an example",
    "inpainter": "Proposals of the diffusion model, decoded by the vanilla decoder",
}
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Asymmetric VQGAN: {{ profile }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2 { line-height: 1.2; } figure { margin: 1.5rem 0; overflow-x: auto; } figcaption { color: #555; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 13px; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { border-bottom: 2px solid #888; }
</style></head><body>
<h1>Does a decoder that is told the known pixels keep them?</h1>
<p>Reproduction of <em>Designing a Better Asymmetric VQGAN for StableDiffusion</em> (arXiv 2306.04632),
profile <code>{{ profile }}</code>. Trained at commit {{ commits }}, seed {{ seeds }}. Numbers are means over
scenes, each of the same weight, with 95 % intervals for other scenes; <code>pre_error</code> is in units of 1e-5.</p>
{{ figures["tour"] }}
<h2>What holds</h2>
<p>A claim says on which side of a bound a number lies. It holds where its p-value, one-sided and adjusted for the
number of claims in its family (Holm), is below 0.05, does not hold where that of the opposite is, and is open
otherwise. Scenes are counted, not crops: with five of them nearly everything is open.</p>
<h3>The paper's claims</h3>{{ claims_paper }}
<h3>Ours</h3>{{ claims_ours }}
<h2>Beside the paper</h2>
<p>pre_error as a ratio to the vanilla decoder's. Absolute values cannot be compared, ratios can; the paper's decoders
were trained for days on a million pictures.</p>
{{ paper }}
{% for stratum, tables in strata.items() %}
<h2>Inpainting: {{ stratum }} images</h2>
{% for source, table in tables.items() %}<h3>Latent: {{ source }}</h3>{{ table }}{% endfor %}
{% endfor %}
{{ figures["preservation"] }}{{ figures["inpainting"] }}
<h2>Local editing: {{ stratum }} images</h2>
<p>pre_error looks outside. Inside, seam_added and hole_changed say what the decoder did to vanilla's picture of the
edit (lower is better), word_score and word_share (higher is better) and the distances to the example (lower is better)
whether the edit is there; <code>photograph</code> is the unedited picture.</p>
{% for source, table in editing.items() %}<h3>{{ source }}</h3>{{ table }}{% endfor %}
{{ figures["local_editing"] }}
<h2>Generation without a mask</h2>
<p>Means over samples of the small diffusion model (KID with the features of EfficientNet-Lite0, which compares with no
published value, and its deviation between random subsets), and PSNR on {{ stratum }} images' own latents. Beside them
the paper's, for Stable Diffusion on MS-COCO.</p>
{{ generation }}{{ paper_generation }}
{{ figures["generation"] }}
<h2>What the autoencoder loses</h2>
{{ reconstruction }}
{{ figures["reconstruction"] }}
<h2>Width and depth: what each decoder costs</h2>
<p>The heavier decoders start from nothing, as officially, and are undertrained on this budget.</p>
{{ cost }}
{{ figures["width"] }}
<h2>One change at a time: short runs of three seeds, against the paper's base</h2>
<p>Own latents; pre_error as a ratio, the others as differences. Intervals are for other scenes and seeds.</p>
{% for table in short %}{{ table }}{% endfor %}
<h2>The branch, over training</h2>
{{ figures["condition"] }}
<h2>After the decoder</h2>
{{ figures["finishers"] }}
<h2>The diffusion model</h2>
{{ figures["inpainter"] }}
</body></html>
"""


def compare_with_paper(inpainting: pd.DataFrame, stratum: str) -> pd.DataFrame:
    """pre_error over that of the first stage's own decoder, the paper's beside ours for each source of the latent, in
    both readings of its denominator (see `metrics.pre_error_all`).

    Args:
        inpainting: The table of that name.
        stratum: `photograph` or `procedural`.
    """
    paper = INPAINTING.set_index("decoder")["pre_error"]
    columns = {
        "paper": {name: f"1/{paper['vanilla'] / value:.0f}" for name, value in paper.items() if name != "vanilla"}
    }
    readings = {"pre_error_ratio_to_vanilla": "", "pre_error_all_ratio_to_vanilla": ", over all pixels"}
    ratios = inpainting[inpainting["metric"].isin(readings) & (inpainting["stratum"] == stratum)]
    for (source, metric), cells in ratios.groupby(["source", "metric"], sort=False):
        columns[f"here, {source}{readings[metric]}"] = {
            row.variant: f"{_ratio(row.value)} [{_ratio(row.low)}, {_ratio(row.high)}]"
            for row in cells.itertuples()
            if "_paste_" not in row.variant
        }
    table = pd.DataFrame(columns).fillna({"paper": "not reported"}).fillna("not measured")
    return table.rename_axis("decoder").reset_index()


def _ratio(value: float) -> str:
    return "0" if value == 0 else f"1/{1 / value:.1f}" if value < 1 else f"{value:.2f}"


def write_report(results: Path, profile: str) -> None:
    """Write report.html into a profile's results, beside the figures that it shows."""
    names = ("inpainting", "width", "local_editing", "claims", "ablations_width", "ablations_condition")
    inpainting, width, editing, claims, *short = (read_table(results / "tables" / f"{name}.csv") for name in names)
    stratum = inpainting["stratum"].iloc[0]
    records = [json.loads(path.read_text()) for path in sorted((results / "provenance").glob("*.json"))]
    strata = {
        stratum: {
            source: _html(wide_table(inpainting, COLUMNS, source=source, stratum=stratum, mask_kind="all"))
            for source in inpainting["source"].unique()
        }
        for stratum in inpainting["stratum"].unique()
    }
    html = (
        Environment()
        .from_string(TEMPLATE)
        .render(
            profile=profile,
            strata=strata,
            commits=", ".join(sorted({r["commit"] for r in records})),
            seeds=", ".join(sorted({str(r["seed"]) for r in records})),
            paper=_html(compare_with_paper(inpainting, stratum)),
            short=[_html(wide_table(table, SHORT_COLUMNS, source="own")) for table in short],
            claims_paper=_html(claims_for_reading(claims, "paper")),
            claims_ours=_html(claims_for_reading(claims, "ours")),
            stratum=stratum,
            editing={
                source: _html(wide_table(editing, EDITING_COLUMNS, source=source, stratum=stratum, mask_kind="all"))
                for source in editing["source"].unique()
            },
            generation=_html(generation_table(results, stratum)),
            paper_generation=_html(TEXT_TO_IMAGE),
            cost=_html(wide_table(width, COST)),
            reconstruction=_html(reconstruction_table(results)),
            figures={name: _figure(name, caption) for name, caption in FIGURES.items()},
        )
    )
    with written(results / "report.html") as path:
        path.write_text(html)


def reconstruction_table(results: Path) -> pd.DataFrame:
    """PSNR and feature distance of the linear code and the first stage, strata side by side."""
    table = read_table(results / "tables" / "reconstruction.csv")
    parts = [
        wide_table(table, {"psnr": ".2f", "effnet_distance": ".4f"}, stratum=s)
        .set_index("variant")
        .add_prefix(f"{s}: ")
        for s in table["stratum"].unique()
    ]
    return pd.concat(parts, axis=1).reset_index()


def generation_table(results: Path, stratum: str) -> pd.DataFrame:
    """Sets of samples, and the reconstruction of one stratum's images, by decoder."""
    table = read_table(results / "tables" / "generation.csv")
    return wide_table(table[table["stratum"].isin(["all", stratum])], GENERATION_COLUMNS)


def readme_tables(results: Path, profile: str) -> str:
    """The tables of docs/RESULTS.md for a profile, as Markdown."""
    inpainting, width = (read_table(results / profile / "tables" / f"{name}.csv") for name in ("inpainting", "width"))
    parts = [f"Profile `{profile}`, photographs never trained on (every decoder was also measured with `paste_hard`):"]
    for source in ("own", "inpainted"):
        table = wide_table(inpainting, README_COLUMNS, source=source, stratum="photograph", mask_kind="all")
        shown = ~table["variant"].str.contains("_paste_") | table["variant"].str.startswith("vanilla_paste")
        parts += [f"`{source}` latents", markdown(table[shown])]
    parts.append("pre_error as a ratio to the vanilla decoder's, beside the paper's:")
    parts.append(markdown(compare_with_paper(inpainting, "photograph")))
    parts.append("What each decoder costs (the heavier ones start from nothing and are undertrained on this budget):")
    parts.append(markdown(wide_table(width, COST)))
    return "\n\n".join(parts)


def readme_claims(results: Path, profile: str) -> str:
    """The claims of a profile for docs/RESULTS.md, as Markdown, with the verdicts of `default` beside another's."""
    tables = {name: read_table(results / name / "tables" / "claims.csv") for name in {profile, COMMITTED}}
    parts = [f"The paper's claims, under `{profile}`:", "Ours:"]
    for i, family in enumerate(("paper", "ours")):
        told = {name: claims_for_reading(table, family) for name, table in tables.items()}
        if profile != COMMITTED:
            committed = told[COMMITTED].set_index("claim")
            beside = committed["verdict"] + (", " + committed["found"]).where(committed["found"] != "", "")
            told[profile].insert(6, f"under `{COMMITTED}`", told[profile]["claim"].map(beside).fillna(""))
        parts[i] += "\n\n" + markdown(told[profile])
    return "\n\n".join(parts)


def filled(readme: str, results: Path) -> str:
    """A page with its numbers from results/: what stands between `<!-- results: PROFILE -->` or `<!-- claims: PROFILE
    -->` and `<!-- end -->`, and, in a sentence, between `<!-- = TABLE VARIANT SOURCE METRIC STYLE -->` and `<!-- -->`
    (of HEADLINE, photographs, all masks)."""
    write = {"results": readme_tables, "claims": readme_claims}
    pattern = re.compile(r"(<!-- (results|claims): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    readme = pattern.sub(lambda m: f"{m[1]}{write[m[2]](results, m[3])}\n{m[4]}", readme)
    in_sentence = re.compile(r"(<!-- = (\S+) (\S+) (\S+) (\S+) (\S+) -->).*?(<!-- -->)", re.DOTALL)
    return in_sentence.sub(lambda m: f"{m[1]}{_number(results / HEADLINE, *m.groups()[1:-1])}{m[7]}", readme)


def update_pages(root: Path) -> None:
    """Rewrite the numbers of README and docs, see `filled`."""
    for page in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        page.write_text(filled(page.read_text(), root / "results"))


def _number(results: Path, name: str, variant: str, source: str, metric: str, style: str) -> str:
    table = read_table(results / "tables" / f"{name}.csv")
    where = {"variant": variant, "source": source, "metric": metric, "mask_kind": "all"}
    cells = table[(table[list(where)] == pd.Series(where)).all(axis=1) & table["stratum"].isin(["photograph", "all"])]
    if len(cells) != 1:
        raise ValueError(f"{name}.csv: got {len(cells)} cells of {variant} {source} {metric}, expected one")
    return f"{cells['value'].iloc[0]:{style}}"


def _figure(name: str, caption: str) -> str:
    return f'<figure><img alt="{caption}" src="figures/{name}.webp"><figcaption>{caption}.</figcaption></figure>'


def _measured(table: pd.DataFrame) -> pd.DataFrame:
    """Without the columns that are empty from top to bottom: what is not measured on a source of latents."""
    return table.loc[:, ~table.eq("").all()]


def _html(table: pd.DataFrame) -> str:
    return _measured(table).to_html(index=False, border=0)


def markdown(table: pd.DataFrame) -> str:
    """A table as GitHub reads it, every cell as it stands."""
    return _measured(table).astype(str).to_markdown(index=False, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m asymlib.study.reporting.report", description="Rewrite the numbers of README and docs."
    ).parse_args()
    update_pages(project_root())

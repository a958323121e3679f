"""What training at the paper's scale takes, from counted multiply-accumulates: `make readme` writes it down.

One training step of each decoder is run on torch's meta device, where tensors have a shape and no content, and counted.
Only two numbers are assumed, and both are arguments: how much a GPU computes in a second, and what its hour costs.
"""

import argparse
import re

import pandas as pd
import torch
from lpips import LPIPS
from torch.utils.flop_counter import FlopCounterMode

from asymlib.models.construction import SCALES
from asymlib.models.decoder import AsymmetricVQGAN
from asymlib.study.params import DecoderRow, Profile, load_params
from asymlib.study.project import project_root
from asymlib.study.reporting.report import markdown
from asymlib.training.fitting import WINDOW, FittingSettings, fitting_macs
from asymlib.training.losses import PatchDiscriminator, generator_loss, hinge_loss, reconstruction_loss
from asymlib.training.settings import TrainingSettings

TFLOPS, PRICE = 100.0, 2.0
FULL_BLOCKS = {
    "base": 3,
    "large_1.5x": 4,
    "large_2x": 6,
}  # of Stable Diffusion's decoder and of the official wider ones


def step_gmac(row: DecoderRow, settings: TrainingSettings, size: int) -> tuple[float, float]:
    """GMAC of one training step for one image at full size, before and after the GAN has started.

    Counts the encoder, the decoder forward and, where it is trained, backward, LPIPS (VGG16) where it is in the loss,
    and, after the start, the discriminator.

    Args:
        row: The decoder.
        settings: Its training.
        size: Side of the crops in pixels.
    """
    c = int(128 * SCALES[row.scale][0])
    counts = []
    for adversarial in (False, True):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            vqgan = AsymmetricVQGAN(
                up_block_out_channels=(c, 2 * c, 4 * c, 4 * c),
                layers_per_up_block=FULL_BLOCKS[row.scale] - 1,
                branch=row.branch,
                condition=row.condition,
            )
            for parameter in vqgan.branch_and_trunk()["trunk"]:
                parameter.requires_grad_(not row.inherit or settings.lr_inherited > 0)
            lpips = LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False).to("meta").requires_grad_(False)
            discriminator = PatchDiscriminator()
            image, mask = torch.zeros(1, 3, size, size), torch.zeros(1, 1, size, size)
            with torch.no_grad():
                latent = vqgan.quant_conv(vqgan.encoder(image)).chunk(2, dim=1)[0]
            image_hat = vqgan.decoder(vqgan.post_quant_conv(latent), image, mask)
            loss = reconstruction_loss(image_hat, image, lpips, settings.perceptual_weight)
            if adversarial:
                loss = loss + generator_loss(discriminator(image_hat))
            loss.backward()
            if adversarial:
                hinge_loss(discriminator(image), discriminator(image_hat.detach())).backward()
        counts.append(counter.get_total_flops() / 2e9)
    return counts[0], counts[1]


def training_plan(params: Profile, tflops: float = TFLOPS, price: float = PRICE) -> pd.DataFrame:
    """Images, compute, GPU hours and price of each decoder of the profile `paper`.

    Args:
        params: A profile with a `stream` section.
        tflops: What one GPU sustains, in 1e12 floating-point operations a second.
        price: Of one GPU hour.
    """
    rows = []
    for name, row in params.decoders.items():
        if row.first_stage != "first_stage":
            continue  # the small bundled one
        settings = params.training[name]
        before, after = step_gmac(row, settings, params.stream.size)
        start = settings.steps if settings.gan_start is None else min(settings.gan_start, settings.steps)
        gmac = settings.batch * (start * before + (settings.steps - start) * after)
        hours = 2e9 * gmac / (tflops * 1e12) / 3600
        rows.append(
            {
                "decoder": name,
                "images (millions)": f"{settings.steps * settings.batch / 1e6:.1f}",
                "GMAC per image, then with GAN": f"{before:.0f}, {after:.0f}",
                "EFLOP": f"{2 * gmac / 1e9:.0f}",
                "GPU hours": f"{hours:,.0f}",
                "price": f"{hours * price:,.0f}",
            }
        )
    return pd.DataFrame(rows)


def plan_text(params: Profile) -> str:
    """The paragraph and table of docs/PAPER_SCALE.md."""
    fit = fitting_tmac()
    return (
        f"At {TFLOPS:.0f} TFLOP/s sustained on one GPU and {PRICE:.2f} US dollars for its hour, both assumed; "
        f"everything else is counted on one training step at {params.stream.size} px:\n\n"
        f"{markdown(training_plan(params))}\n\n"
        f"To fit known pixels first (`inherit: fitted`, notebook 09) takes base {fit:.0f} TMAC once, "
        f"{fit * 1e3 / _gmac_a_step(params):.1f} of one of its {params.training['base'].steps:,} steps. "
        "How many steps that saves at this scale was not measured."
    )


def fitting_tmac() -> float:
    """10^12 multiply-accumulates of the fit of known pixels at base's full size, on windows of its pictures."""
    with torch.device("meta"):
        vqgan = AsymmetricVQGAN(layers_per_up_block=FULL_BLOCKS["base"] - 1)
    return fitting_macs(vqgan, FittingSettings(), WINDOW) / 1e12


def _gmac_a_step(params: Profile) -> float:
    settings = params.training["base"]
    return settings.batch * step_gmac(params.decoders["base"], settings, params.stream.size)[0]


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m asymlib.study.reporting.plan", description="Rewrite the data plan of docs/PAPER_SCALE.md."
    ).parse_args()
    page = project_root() / "docs" / "PAPER_SCALE.md"
    text = plan_text(load_params("paper"))
    page.write_text(
        re.sub(
            r"(<!-- plan -->\n).*?(<!-- end plan -->)",
            lambda m: f"{m[1]}{text}\n{m[2]}",
            page.read_text(),
            flags=re.DOTALL,
        )
    )


if __name__ == "__main__":
    main()

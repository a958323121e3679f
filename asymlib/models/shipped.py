"""What ships with the package, ready to use."""

import json
from functools import cache

from asymlib.models.construction import asymmetric_vqgan
from asymlib.models.decoder import AsymmetricVQGAN, load_vqgan
from asymlib.models.first_stage import FirstStage, load_first_stage, pretrained
from asymlib.models.inpainter import LatentInpainter
from asymlib.models.last_word import LastWord

LOADERS = {
    "AsymmetricVQGAN": load_vqgan,
    "UNet2DModel": LatentInpainter.load,
    "DiTTransformer2DModel": LatentInpainter.load,
    "LastWord": LastWord.from_pretrained,
}


def load(name: str = "base") -> AsymmetricVQGAN | LatentInpainter | LastWord | FirstStage:
    """A shipped model, float32 and in eval mode: `first_stage`, `first_stage_vq`, `inpainter`, `last_word`, or a
    decoder: `base`, or `vanilla_finetuned`, its control.

    Args:
        name: Its folder in asymlib/pretrained, where its card is.

    Raises:
        FileNotFoundError: None of that name ships.
    """
    folder = pretrained(name)
    kind = json.loads((folder / "config.json").read_text())["_class_name"]
    return LOADERS.get(kind, load_first_stage)(folder)


@cache
def shipped_models(method: str) -> dict:
    """What `asymlib.inpaint` takes to fill a hole with the models that ship.

    Args:
        method: What decodes it: `base`, or the plain decoder, as it comes (`vanilla`), `pasted`, or finished by the
            `last_word`.
    """
    model = load("inpainter")
    if method == "base":
        return {"model": model, "decoder": load("base")}
    plain = asymmetric_vqgan(load("first_stage"), branch=False)
    last_word = load("last_word") if method == "last_word" else None
    return {"model": model, "decoder": plain, "last_word": last_word, "paste": method != "vanilla"}

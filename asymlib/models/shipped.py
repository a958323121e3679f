"""What ships with the package, ready to use."""

import json
from functools import cache
from pathlib import Path

from asymlib.models.construction import asymmetric_vqgan
from asymlib.models.decoder import CLASSES, AsymmetricVQGAN, load_vqgan
from asymlib.models.first_stage import FirstStage, load_first_stage, pretrained
from asymlib.models.inpainter import LatentInpainter
from asymlib.models.last_word import LastWord

Model = AsymmetricVQGAN | LatentInpainter | LastWord | FirstStage

LOADERS = {
    **dict.fromkeys(CLASSES, load_vqgan),
    "UNet2DModel": LatentInpainter.load,
    "DiTTransformer2DModel": LatentInpainter.load,
    "LastWord": LastWord.from_pretrained,
}


def load(name: str = "base") -> Model:
    """A shipped model, float32 and in eval mode: `first_stage`, `first_stage_vq`, `inpainter`, `last_word`, or a
    decoder: `base`, or `vanilla_finetuned`, its control.

    Args:
        name: Its folder in asymlib/pretrained, where its card is.

    Raises:
        FileNotFoundError: None of that name ships.
    """
    return load_folder(pretrained(name))


def load_folder(folder: Path) -> Model:
    """What `save_pretrained` wrote into a folder, by the class that its config.json names; float32, eval mode.

    Raises:
        FileNotFoundError: The folder has no config.json.
        ValueError: Its config.json names a class that nothing here is.
    """
    config = folder / "config.json"
    kind = json.loads(config.read_text()).get("_class_name") if config.is_file() else None
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

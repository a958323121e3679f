"""Decoders for latent diffusion that keep the pixels which an edit should leave alone.

The library: pictures and masks, first stages and asymmetric decoders, their training, editing and pasting back. The
experiment that reproduces arXiv 2306.04632 with it is `asymlib.study`, which the library never imports.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers; at run time a name is imported when it is first used
    from asymlib.editing.compositing import PASTES
    from asymlib.editing.finishing import finish, with_last_word
    from asymlib.editing.inpainting import inpaint
    from asymlib.editing.local_editing import edit_photo, paint_by_example
    from asymlib.editing.pipelines import decode_with
    from asymlib.masks import feather, grow, invert, normalise_mask, training_masks
    from asymlib.models.condition import Condition
    from asymlib.models.construction import asymmetric_vqgan, scaled_size
    from asymlib.models.decoder import AsymmetricVQGAN, load_vqgan
    from asymlib.models.export import export_onnx
    from asymlib.models.first_stage import encode_means, load_first_stage, pretrained
    from asymlib.models.holes import decode_hole
    from asymlib.models.inpainter import LatentInpainter
    from asymlib.models.last_word import LastWord
    from asymlib.models.official import load_official, save_official
    from asymlib.models.shipped import load
    from asymlib.pictures import Photo, read_mask, read_photo, save_picture
    from asymlib.training.decoder import Validation, train_decoder
    from asymlib.training.latents import Crops, cache_crops
    from asymlib.training.settings import TrainingSettings

_HOME = {
    "AsymmetricVQGAN": "asymlib.models.decoder",
    "Condition": "asymlib.models.condition",
    "Crops": "asymlib.training.latents",
    "LastWord": "asymlib.models.last_word",
    "LatentInpainter": "asymlib.models.inpainter",
    "PASTES": "asymlib.editing.compositing",
    "Photo": "asymlib.pictures",
    "TrainingSettings": "asymlib.training.settings",
    "Validation": "asymlib.training.decoder",
    "asymmetric_vqgan": "asymlib.models.construction",
    "cache_crops": "asymlib.training.latents",
    "decode_hole": "asymlib.models.holes",
    "decode_with": "asymlib.editing.pipelines",
    "edit_photo": "asymlib.editing.local_editing",
    "encode_means": "asymlib.models.first_stage",
    "export_onnx": "asymlib.models.export",
    "feather": "asymlib.masks",
    "finish": "asymlib.editing.finishing",
    "grow": "asymlib.masks",
    "inpaint": "asymlib.editing.inpainting",
    "invert": "asymlib.masks",
    "load": "asymlib.models.shipped",
    "load_first_stage": "asymlib.models.first_stage",
    "load_official": "asymlib.models.official",
    "load_vqgan": "asymlib.models.decoder",
    "normalise_mask": "asymlib.masks",
    "paint_by_example": "asymlib.editing.local_editing",
    "pretrained": "asymlib.models.first_stage",
    "read_mask": "asymlib.pictures",
    "read_photo": "asymlib.pictures",
    "save_official": "asymlib.models.official",
    "save_picture": "asymlib.pictures",
    "scaled_size": "asymlib.models.construction",
    "train_decoder": "asymlib.training.decoder",
    "training_masks": "asymlib.masks",
    "with_last_word": "asymlib.editing.finishing",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'asymlib' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__

"""Decoders for latent diffusion that keep the pixels which an edit should leave alone.

The library: pictures and masks, first stages and asymmetric decoders, their training, editing and pasting back. The
experiment that reproduces arXiv 2306.04632 with it is `asymlib.study`, which the library never imports.
"""

from asymlib.editing.compositing import PASTES
from asymlib.editing.inpainting import inpaint
from asymlib.editing.local_editing import edit_photo, paint_by_example
from asymlib.editing.pipelines import decode_with
from asymlib.masks import normalise_mask, training_masks
from asymlib.models.condition import Condition
from asymlib.models.construction import asymmetric_vqgan, scaled_size
from asymlib.models.decoder import AsymmetricVQGAN, load_vqgan
from asymlib.models.first_stage import encode_means, load_first_stage, pretrained
from asymlib.models.inpainter import LatentInpainter
from asymlib.models.official import load_official, save_official
from asymlib.training.decoder import Validation, train_decoder
from asymlib.training.latents import Crops, cache_crops
from asymlib.training.settings import TrainingSettings

__all__ = [
    "PASTES",
    "AsymmetricVQGAN",
    "Condition",
    "Crops",
    "LatentInpainter",
    "TrainingSettings",
    "Validation",
    "asymmetric_vqgan",
    "cache_crops",
    "decode_with",
    "edit_photo",
    "encode_means",
    "inpaint",
    "load_first_stage",
    "load_official",
    "load_vqgan",
    "normalise_mask",
    "paint_by_example",
    "pretrained",
    "save_official",
    "scaled_size",
    "train_decoder",
    "training_masks",
]

"""diffusers' `AsymmetricAutoencoderKL`, made fit for several images per prompt in `StableDiffusionInpaintPipeline`."""

import torch
from diffusers import AsymmetricAutoencoderKL, ModelMixin
from diffusers.models.autoencoders.vae import DecoderOutput

# diffusers reloads a saved pipeline's component only if its module also names a base class that diffusers can load
__all__ = ["AsymmetricVAE", "ModelMixin"]


class AsymmetricVAE(AsymmetricAutoencoderKL):
    """The same weights, configuration and pixels as the parent class, for any `num_images_per_prompt`.

    The pipeline hands `decode` one image and one mask with all its latents; the parent class then looks for a branch
    feature of the latents' batch size, and raises a KeyError.
    """

    def decode(
        self,
        z: torch.Tensor,
        generator: torch.Generator | None = None,
        image: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """As the parent class, with images and masks repeated to the number of latents in the pipeline's own order.

        Args:
            z: (N, C, h, w), not scaled.
            generator: Not used.
            image: (M, 3, 8h, 8w) in [-1, 1], with M a divisor of N.
            mask: (M, 1, 8h, 8w) float, 1 = hole, with M a divisor of N.
            return_dict: Whether to return a `DecoderOutput` rather than a tuple.

        Raises:
            ValueError: N is no multiple of the number of images, or of masks.
        """
        image, mask = _repeat(image, len(z), "image"), _repeat(mask, len(z), "mask")
        return super().decode(z, generator, image, mask, return_dict)


def _repeat(tensor: torch.Tensor | None, count: int, name: str) -> torch.Tensor | None:
    if tensor is None:
        return None
    if count % len(tensor):
        raise ValueError(f"{name}: got {len(tensor)}, expected a divisor of the {count} latents")
    return tensor.repeat(count // len(tensor), 1, 1, 1)

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
        """As the parent class, with images and masks of any device and type, repeated as `repeat_to` does it.

        Args:
            z: (N, C, h, w), not scaled.
            generator: Not used.
            image: (M, 3, 8h, 8w) in [-1, 1], with M a divisor of N.
            mask: (M, 1, 8h, 8w) float, 1 = hole, with M a divisor of N.
            return_dict: Whether to return a `DecoderOutput` rather than a tuple.

        Raises:
            ValueError: N is no multiple of the number of images, or of masks.
        """
        z = z.to(self.device, self.dtype)
        image, mask = (
            tensor if tensor is None else repeat_to(tensor.to(z), len(z), name)
            for name, tensor in (("image", image), ("mask", mask))
        )
        return super().decode(z, generator, image, mask, return_dict)


def repeat_to(tensor: torch.Tensor, count: int, name: str) -> torch.Tensor:
    """(M, C, H, W) for `count` latents: latent i gets image i modulo M, the order in which diffusers' inpainting
    pipelines repeat pictures for several images per prompt.

    Raises:
        ValueError: `count` is no multiple of M.
    """
    if count % len(tensor):
        raise ValueError(f"{name}: got {len(tensor)}, expected a divisor of the {count} others")
    return tensor.repeat(count // len(tensor), 1, 1, 1)

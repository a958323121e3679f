"""The linear code of the latent's size, a PCA of f x f patches. Any first stage must beat it; ours starts from it."""

import torch
from sklearn.decomposition import PCA
from torch.nn.functional import fold, unfold


class PatchPCA:
    """Code every f x f patch by its first principal components, whitened to zero mean and unit variance.

    Args:
        images: (N, 3, H, W) in [-1, 1], the training crops; H and W multiples of `factor`.
        channels: Numbers kept per patch (the latent's channels).
        factor: Side of a patch in pixels (the latent's down-sampling factor).
    """

    def __init__(self, images: torch.Tensor, channels: int = 4, factor: int = 8) -> None:
        patches = unfold(images, factor, stride=factor).transpose(1, 2).reshape(-1, 3 * factor**2)
        pca = PCA(channels, svd_solver="full").fit(patches.double().numpy())
        self.factor = factor
        self.mean = torch.tensor(pca.mean_, dtype=torch.float32)
        self.components = torch.tensor(pca.components_, dtype=torch.float32)
        self.scale = torch.tensor(pca.explained_variance_, dtype=torch.float32).sqrt()

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, channels, H/f, W/f), whitened."""
        patches = unfold(images, self.factor, stride=self.factor).transpose(1, 2)
        code = (patches - self.mean) @ self.components.T / self.scale
        height, width = images.shape[-2] // self.factor, images.shape[-1] // self.factor
        return code.transpose(1, 2).reshape(len(images), -1, height, width)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of `encode` up to what the code lost: (N, channels, h, w) -> (N, 3, f h, f w)."""
        code = latents.flatten(2).transpose(1, 2)
        patches = code * self.scale @ self.components + self.mean
        size = (latents.shape[-2] * self.factor, latents.shape[-1] * self.factor)
        return fold(patches.transpose(1, 2), size, self.factor, stride=self.factor)

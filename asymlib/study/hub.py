"""Stable Diffusion's own pipelines in the place of the small diffusion model; what the profile `paper` edits with.

One class does what `LatentInpainter` does and, with DiffEdit and Paint by Example, the paper's two local edits.
Everything is drawn image by image, each with a generator of its own, so that an image does not depend on the batch.
"""

import json
from functools import cache, partial
from pathlib import Path

import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    PaintByExamplePipeline,
    PNDMScheduler,
    StableDiffusionDiffEditPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.deprecated.paint_by_example import PaintByExampleImageEncoder
from torch.nn.functional import interpolate
from torchvision.transforms.functional import to_pil_image
from transformers import CLIPImageProcessor

from asymlib.fetching import fetching
from asymlib.files import written
from asymlib.models.inpainter import generator_of
from asymlib.pixels import to_picture

PIPELINES = {
    "inpainting": StableDiffusionInpaintPipeline,
    "text_to_image": StableDiffusionPipeline,
    "by_prompt": StableDiffusionDiffEditPipeline,
}
PAINT_BY_EXAMPLE = {
    "image_encoder": PaintByExampleImageEncoder,
    "unet": UNet2DConditionModel,
    "scheduler": PNDMScheduler,
    "feature_extractor": CLIPImageProcessor,
}


class HubDiffusion:
    """Pipelines of the hub, on one first stage; each is fetched when it is first needed.

    Args:
        hub: The `inpainter.hub` section of params.yaml: {repository, revision} of each task, of which DiffEdit has that
            of text-to-image, and how a hole is filled that is asked for nothing.
        first_stage: The autoencoder whose latents they work on. It takes the place of their own.
    """

    def __init__(self, hub: dict, first_stage) -> None:
        self.hub, self.first_stage = hub, first_stage
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.pipeline = cache(self._fetch)

    def save(self, folder: str | Path) -> None:
        """Write down which pipelines they are."""
        with written(Path(folder) / "hub.json") as temporary:
            temporary.write_text(json.dumps(self.hub, indent=2) + "\n")

    @property
    def channels(self) -> int:
        """Of a latent."""
        return self.first_stage.config.latent_channels

    @property
    def denoiser(self):
        """That of inpainting."""
        return self.pipeline("inpainting").unet

    def sample(
        self,
        masked_latent: torch.Tensor,
        mask: torch.Tensor,
        steps: int,
        seed: int,
        prompt: list[str | None] | str | None = None,
        reference: None = None,
        guidance_scale: float = 1.0,
        keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Fill holes; where the mask is full, generate. Arguments and result are those of `LatentInpainter.sample`.

        A hole that is asked for nothing gets `hub`'s own prompt, guidance and eta, as in the official script.
        """
        latents = []
        for i in range(len(mask)):
            height, width = mask.shape[-2:]
            text = prompt[i] if isinstance(prompt, list) else prompt
            call = {"prompt": text or "", "guidance_scale": guidance_scale, "height": height, "width": width}
            call |= self._common(steps, seed, i)
            if mask[i].min() == 1:
                latents.append(self.pipeline("text_to_image")(**call)[0])
                continue
            if text is None:
                call |= {name: self.hub[name] for name in ("prompt", "guidance_scale", "eta")}
            known = masked_latent[i : i + 1] * self.first_stage.config.scaling_factor
            if keep is not None:
                drawn = torch.randn(keep.shape[1:], generator=generator_of(seed, i))[None]
                own = keep[i : i + 1] * self.first_stage.config.scaling_factor
                call["callback_on_step_end"] = partial(_put_back, own, drawn, mask[i : i + 1])
            nothing = torch.zeros(1, 3, height, width)  # the pipeline reads it only where no latent is given
            latents.append(
                self.pipeline("inpainting")(
                    image=nothing, mask_image=mask[i : i + 1], masked_image_latents=known, **call
                )[0]
            )
        return self._unscaled(latents)

    def edit_by_prompt(
        self,
        image: torch.Tensor,
        source: list[str | None] | str | None,
        target: list[str] | str,
        steps: int,
        seed: int,
        guidance_scale: float,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """DiffEdit: find the region that the prompts disagree about, invert the image, and edit it there.

        Args:
            image: (N, 3, H, W) in [-1, 1].
            source: What it shows, for all or for each image.
            target: What it should show.
            steps: Sampling steps.
            seed: Seed of the noise.
            guidance_scale: Of the edit.
            mask: (N, 1, H, W), 1 = edit here; found where it is not given.

        Returns:
            Latent (N, C, h, w), not scaled, and mask (N, 1, H, W).
        """
        pipe, latents, masks = self.pipeline("by_prompt"), [], []
        for i, photo in enumerate(map(to_picture, image.split(1))):
            before, after = (p[i] if isinstance(p, list) else p for p in (source, target))
            call = self._common(steps, seed, i)
            common = {k: call[k] for k in ("num_inference_steps", "generator")}
            if mask is None:
                found = pipe.generate_mask(photo, target_prompt=after, source_prompt=before or "", **common)
            else:
                size = tuple(side // 8 for side in image.shape[-2:])
                found = interpolate(mask[i : i + 1], size=size, mode="nearest")[0].numpy()
            inverted = pipe.invert(before or "", photo, inpaint_strength=1.0, **common).latents
            latents.append(
                pipe(
                    prompt=after,
                    negative_prompt=before or "",
                    mask_image=found,
                    image_latents=inverted,
                    inpaint_strength=1.0,
                    guidance_scale=guidance_scale,
                    **call,
                )[0]
            )
            masks.append(torch.from_numpy(found).float().reshape(1, 1, *found.shape[-2:]))
        return self._unscaled(latents), interpolate(torch.cat(masks), size=image.shape[-2:], mode="nearest")

    def edit_by_example(
        self,
        image: torch.Tensor,
        mask: torch.Tensor,
        example: torch.Tensor,
        steps: int,
        seed: int,
        guidance_scale: float,
    ) -> torch.Tensor:
        """Paint by Example: fill the hole with what the example shows.

        Args:
            image: (N, 3, H, W) in [-1, 1].
            mask: (N, 1, H, W), 1 = hole.
            example: (N or 1, 3, H', W') in [-1, 1].
            steps: Sampling steps.
            seed: Seed of the noise.
            guidance_scale: Of the example.

        Returns:
            (N, C, h, w), not scaled.
        """
        pipe, latents, (height, width) = self.pipeline("by_example"), [], image.shape[-2:]
        examples = map(to_picture, example.expand(len(image), -1, -1, -1).split(1))
        for i, (photo, other) in enumerate(zip(map(to_picture, image.split(1)), examples, strict=True)):
            call = {"guidance_scale": guidance_scale, "height": height, "width": width} | self._common(steps, seed, i)
            latents.append(pipe(other, photo, to_pil_image(mask[i]), **call)[0])
        return self._unscaled(latents)

    def _common(self, steps: int, seed: int, i: int) -> dict:
        return {"num_inference_steps": steps, "generator": generator_of(seed, i), "output_type": "latent"}

    def _unscaled(self, latents: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([latent.cpu() for latent in latents]) / self.first_stage.config.scaling_factor

    def _fetch(self, task: str):
        where = self.hub["text_to_image" if task == "by_prompt" else task]
        if task == "by_example":
            # in parts, because diffusers 0.42 has moved the module that the repository's index names
            parts = {name: fetch(kind, **where, subfolder=name) for name, kind in PAINT_BY_EXAMPLE.items()}
            pipe = PaintByExamplePipeline(vae=self.first_stage, safety_checker=None, **parts)
        else:
            pipe = fetch(PIPELINES[task], **where, vae=self.first_stage, safety_checker=None)
        if task in ("inpainting", "by_prompt"):
            pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
        if task == "by_prompt":
            pipe.inverse_scheduler = DDIMInverseScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(self.device)


def _put_back(own: torch.Tensor, drawn: torch.Tensor, mask: torch.Tensor, pipe, i: int, t, state: dict) -> dict:
    """Known cells as they are, with the noise of the step that follows; a pipeline calls it at the end of each."""
    following = pipe.scheduler.timesteps[i + 1 : i + 2]
    own, drawn = own.to(state["latents"]), drawn.to(state["latents"])
    noised = pipe.scheduler.add_noise(own, drawn, following) if len(following) else own
    hole = interpolate(mask, size=own.shape[-2:], mode="nearest").to(own.device) > 0
    return {"latents": torch.where(hole, state["latents"], noised)}


def fetch(kind: type, repository: str, revision: str | None, **parts):
    """A pipeline, or a part of one, from the hub or from a folder.

    Raises:
        FileNotFoundError: It cannot be had; the message says what may be the matter.
    """
    expected = "an existing repository and revision, a network, and for a gated one `hf auth login`"
    with fetching("pipeline", repository, revision, expected):
        return kind.from_pretrained(repository, revision=revision, **parts)

"""diffusers' inpainting and editing pipelines in miniature, with random weights; nothing is downloaded."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMInverseScheduler,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxTransformer2DModel,
    PaintByExamplePipeline,
    PNDMScheduler,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionDiffEditPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.deprecated.paint_by_example import PaintByExampleImageEncoder
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

TEXT = 16  # channels of every text embedding
UNCHECKED = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def stable_diffusion_inpaint() -> StableDiffusionInpaintPipeline:
    return _quiet(StableDiffusionInpaintPipeline(**_text(), vae=_vae(), unet=_unet(9), scheduler=_ddim(), **UNCHECKED))


def stable_diffusion() -> StableDiffusionPipeline:
    return _quiet(StableDiffusionPipeline(**_text(), vae=_vae(), unet=_unet(4), scheduler=_ddim(), **UNCHECKED))


def save_all(folder: Path) -> None:
    """Write the pipelines that stand for the hub's, in folders named after what they do; see TASKS."""
    for task, make in TASKS.items():
        make().save_pretrained(folder / task)


def stable_diffusion_xl_inpaint() -> StableDiffusionXLInpaintPipeline:
    unet = _unet(
        9,
        cross_attention_dim=2 * TEXT,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + TEXT,
    )
    standardised = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.8, 1.2, 1.0, 1.5]}
    return _quiet(
        StableDiffusionXLInpaintPipeline(
            **_text(),
            text_encoder_2=CLIPTextModelWithProjection(_text_config()),
            tokenizer_2=_clip_tokenizer(),
            vae=_vae(scaling_factor=0.13025, **standardised),
            unet=unet,
            scheduler=_ddim(),
            add_watermarker=False,
        )
    )


def controlnet_inpaint() -> StableDiffusionControlNetInpaintPipeline:
    unet = _unet(4)
    return _quiet(
        StableDiffusionControlNetInpaintPipeline(
            **_text(),
            vae=_vae(),
            unet=unet,
            controlnet=ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8, 8, 8)),
            scheduler=_ddim(),
            **UNCHECKED,
        )
    )


def diffedit() -> StableDiffusionDiffEditPipeline:
    return _quiet(
        StableDiffusionDiffEditPipeline(
            **_text(),
            vae=_vae(),
            unet=_unet(4),
            scheduler=_ddim(),
            inverse_scheduler=DDIMInverseScheduler(clip_sample=False),
            **UNCHECKED,
        )
    )


def paint_by_example() -> PaintByExamplePipeline:
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=TEXT,
        intermediate_size=TEXT,
        num_hidden_layers=5,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=TEXT,
    )
    size = {"height": 32, "width": 32}
    return _quiet(
        PaintByExamplePipeline(
            vae=_vae(),
            image_encoder=PaintByExampleImageEncoder(vision, proj_size=TEXT).eval(),
            unet=_unet(9),
            scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),
            safety_checker=None,
            feature_extractor=CLIPImageProcessor(size=size, crop_size=size),
        )
    )


def flux_fill() -> FluxFillPipeline:
    torch.manual_seed(0)
    channels = 16
    transformer = FluxTransformer2DModel(
        in_channels=4 * channels + 4 * channels + 4 * 64,  # latent, masked image's latent, mask: in 2 x 2 patches
        out_channels=4 * channels,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=1,
        joint_attention_dim=TEXT,
        pooled_projection_dim=TEXT,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    t5 = T5Config(vocab_size=4, d_model=TEXT, d_kv=8, d_ff=TEXT, num_layers=1, num_heads=2)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    return _quiet(
        FluxFillPipeline(
            **_text(),
            text_encoder_2=T5EncoderModel(t5).eval(),
            tokenizer_2=T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=8),
            vae=_vae(
                channels, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False
            ),
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )
    )


def _vae(channels: int = 4, **config) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 32, 32),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        **config,
    ).eval()


def _unet(in_channels: int, **config) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        **{"cross_attention_dim": TEXT} | config,
    ).eval()


def _text() -> dict:
    torch.manual_seed(0)
    return {"text_encoder": CLIPTextModel(_text_config()).eval(), "tokenizer": _clip_tokenizer()}


def _text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=4,
        hidden_size=TEXT,
        intermediate_size=TEXT,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        projection_dim=TEXT,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def _clip_tokenizer() -> CLIPTokenizer:
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "b</w>": 3}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=8)


def _ddim() -> DDIMScheduler:
    return DDIMScheduler(steps_offset=1, clip_sample=False)


def _quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


TASKS = {"inpainting": stable_diffusion_inpaint, "text_to_image": stable_diffusion, "by_example": paint_by_example}

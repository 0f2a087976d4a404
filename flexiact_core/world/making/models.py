"""The models of the small world: the classes of CogVideoX-5B-I2V, only the sizes shrunk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...cogvideox.family import COGVIDEOX_1_0, DYNAMICTRL
from ...cogvideox.pose_norms import add_pose_norms
from ..scenes import FRAME_PX, vocabulary

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, CogVideoXTransformer3DModel
    from transformers import T5EncoderModel, T5Tokenizer

MAX_TEXT_TOKENS = 16
TEXT_WIDTH = 64
LATENT_CHANNELS = COGVIDEOX_1_0.latent_channels
# What this base says of itself: a clip has 5 120 latent numbers, the 5B's 1.1 million, so its motion is decided later.
MOTION_BIAS = {"strength": 1.0, "hold_until": 400, "off_below": 300}
RUN = {"steps": 25, "cfg": 1.0}


# Sizes that both transformers have.
SMALL_TRANSFORMER = {
    "attention_head_dim": 32,
    "in_channels": 2 * LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "time_embed_dim": 96,
    "text_embed_dim": TEXT_WIDTH,
    "patch_size": 2,
    "temporal_compression_ratio": 4,
    "max_text_seq_length": MAX_TEXT_TOKENS,
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": False,
}


def make_vae() -> AutoencoderKLCogVideoX:
    """A fresh AutoencoderKLCogVideoX: 8x in space, 4x in time, 16 channels, 3.4M parameters."""
    from diffusers import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX(
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=LATENT_CHANNELS,
        sample_height=FRAME_PX,
        sample_width=FRAME_PX,
        scaling_factor=1.0,
    )


def make_transformer(num_frames: int = 17) -> CogVideoXTransformer3DModel:
    """A fresh CogVideoXTransformer3DModel, 7 layers of 6 x 32, 4.8M parameters, saying nothing yet.

    Modulation and output projections are zero, so that training starts from the identity.
    """
    from diffusers import CogVideoXTransformer3DModel

    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=6,
        num_layers=7,
        # The rotary grid is laid out against the 5B's size, whatever the size of the video.
        sample_width=90,
        sample_height=60,
        sample_frames=num_frames,
        **SMALL_TRANSFORMER,
    )
    transformer.register_to_config(motion_bias=MOTION_BIAS, run=RUN)
    _say_nothing(transformer)
    return transformer


def _say_nothing(transformer: CogVideoXTransformer3DModel) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if ".norm1.linear." in name or ".norm2.linear." in name or name.startswith(("norm_out.linear", "proj_out")):
                parameter.zero_()


def make_posed_transformer(num_frames: int = 21) -> CogVideoXTransformer3DModel:
    """A fresh transformer of DynamiCtrl's family, 4 layers of 8 x 32, saying nothing yet.

    A token is 2 x 2 x 2 latents of 16 numbers, noisy and of the picture: 256 numbers, which have to fit into its width.

    Its pose norms start as the release's: a layer norm of ones, and a linear layer as torch starts it. From zero they
    hardly open.
    """
    from diffusers import CogVideoXTransformer3DModel

    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=8,
        num_layers=4,
        ofs_embed_dim=SMALL_TRANSFORMER["time_embed_dim"],
        sample_width=300,
        sample_height=300,
        sample_frames=num_frames,
        patch_size_t=DYNAMICTRL.patch_size_t,
        patch_bias=False,
        **SMALL_TRANSFORMER,
    )
    _say_nothing(transformer)
    add_pose_norms(transformer)
    for block in transformer.transformer_blocks:
        pose_norm = block.control_norm1.to_empty(device="cpu")
        for layer in pose_norm.values():
            layer.reset_parameters()
    size = {"width": FRAME_PX, "height": FRAME_PX, "num_frames": num_frames}
    transformer.register_to_config(motion_bias=MOTION_BIAS, run=RUN | size)
    return transformer


def make_text_encoder(words: tuple[str, ...] = vocabulary()) -> T5EncoderModel:
    """A fresh T5EncoderModel of width 64 and 2 layers, for the words of `make_tokenizer`."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=3 + len(words),
        d_model=TEXT_WIDTH,
        d_kv=16,
        num_heads=4,
        d_ff=128,
        num_layers=2,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
        dropout_rate=0.0,
    )
    return T5EncoderModel(config)


def make_tokenizer(words: tuple[str, ...] = vocabulary()) -> T5Tokenizer:
    """A T5Tokenizer with one token for every word a caption can have; other words are unknown."""
    from transformers import T5Tokenizer

    # A word has to start with the mark that stands for the space before it.
    pieces = [("\N{LOWER ONE EIGHTH BLOCK}" + word, -1.0) for word in words]
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return T5Tokenizer(vocab=specials + pieces, extra_ids=0, model_max_length=MAX_TEXT_TOKENS)


def make_scheduler() -> CogVideoXDPMScheduler:
    """The CogVideoXDPMScheduler of CogVideoX-5B-I2V."""
    from diffusers import CogVideoXDPMScheduler

    return CogVideoXDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        set_alpha_to_one=True,
        snr_shift_scale=1.0,
        steps_offset=0,
        timestep_spacing="trailing",
    )


def save_base(
    folder: Path,
    *,
    vae: AutoencoderKLCogVideoX,
    transformer: CogVideoXTransformer3DModel,
    text_encoder: T5EncoderModel,
    words: tuple[str, ...] = vocabulary(),
) -> None:
    """Writes the base as a diffusers folder, weights in fp16.

    `CogVideoXImageToVideoPipeline.from_pretrained(folder)` reads it back.
    """
    import copy

    import torch
    from diffusers import CogVideoXImageToVideoPipeline

    half = [copy.deepcopy(m).to("cpu", torch.float16) for m in (vae, transformer, text_encoder)]
    pipeline = CogVideoXImageToVideoPipeline(
        tokenizer=make_tokenizer(words),
        text_encoder=half[2],
        vae=half[0],
        transformer=half[1],
        scheduler=make_scheduler(),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)

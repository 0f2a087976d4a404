"""Small random models of the real classes, in the layouts of the released files, for tests and the first demo.

Every parameter is random and non-zero, so that nothing cancels by accident; the same seed gives the same files.
"""

from __future__ import annotations

import json
import string
from collections import OrderedDict
from pathlib import Path

import torch

# One transformer: 2 layers of 2 heads x 16, for 17 frames of 64 x 64 pixels and 32 text tokens.
LAYERS = 2
HEADS = 2
HEAD_DIM = 16
TEXT_TOKENS = 32
FRAMES = 17
SIDE_PX = 64

SCHEDULER = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "snr_shift_scale": 1.0,
    "steps_offset": 0,
    "timestep_spacing": "trailing",
}


def make_base(
    folder: Path,
    seed: int = 0,
    layers: int = LAYERS,
    heads: int = HEADS,
    head_dim: int = HEAD_DIM,
    text_tokens: int = TEXT_TOKENS,
    frames: int = FRAMES,
    width_px: int = SIDE_PX,
    height_px: int = SIDE_PX,
    in_channels: int = 32,
    dtype: torch.dtype = torch.float32,
    **transformer_config,
) -> Path:
    """`folder`, filled with a CogVideoX image-to-video model as diffusers saves it.

    transformer_config overrides any field of the transformer's config, to make models of other kinds.
    """
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, CogVideoXTransformer3DModel
    from transformers import T5Config, T5EncoderModel

    folder = Path(folder)
    text_width = 32
    config = {
        "num_attention_heads": heads,
        "attention_head_dim": head_dim,
        "in_channels": in_channels,
        "out_channels": 16,
        "time_embed_dim": 16,
        "text_embed_dim": text_width,
        "num_layers": layers,
        "sample_width": width_px // 8,
        "sample_height": height_px // 8,
        "sample_frames": frames,
        "patch_size": 2,
        "max_text_seq_length": text_tokens,
        "use_rotary_positional_embeddings": True,
        "use_learned_positional_embeddings": True,
    }
    tokenizer = _make_tokenizer(text_tokens)
    parts = {
        "transformer": CogVideoXTransformer3DModel(**config | transformer_config),
        "vae": AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=16,
            sample_height=height_px,
            sample_width=width_px,
            scaling_factor=0.7,
        ),
        "text_encoder": T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=text_width,
                d_kv=16,
                d_ff=32,
                num_layers=1,
                num_heads=2,
                feed_forward_proj="gated-gelu",
                is_encoder_decoder=False,
                use_cache=False,
            )
        ),
    }
    for offset, (name, module) in enumerate(parts.items()):
        _randomize(module, seed + offset)
        if dtype != torch.float32:
            module.to(dtype)
        module.save_pretrained(folder / name, safe_serialization=True)
    tokenizer.save_pretrained(folder / "tokenizer")
    CogVideoXDPMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "CogVideoXImageToVideoPipeline",
        "scheduler": ["diffusers", "CogVideoXDPMScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def make_fae(file: Path, seed: int = 1, layers: int = LAYERS, dim: int = HEADS * HEAD_DIM, tokens: int = 6) -> Path:
    """`file`, filled with motion tokens in the released layout: [1, tokens, dim] per layer. `.pt` or `.safetensors`."""
    generator = torch.Generator().manual_seed(seed)
    name = "transformer_blocks.{}.attn1.processor.motion_inversion_tokens"
    return _save(file, {name.format(i): torch.randn(1, tokens, dim, generator=generator) for i in range(layers)})


def make_refadapter(
    file: Path, seed: int = 2, layers: int = LAYERS, dim: int = HEADS * HEAD_DIM, rank: int = 4
) -> Path:
    """`file`, filled with a RefAdapter in the released layout: down [rank, dim], up [dim, rank]. Suffix as above."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for layer in range(layers):
        for part in ("q", "k", "v", "proj"):
            prefix = f"transformer_blocks.{layer}.attn1.processor.lora_{part}"
            state[f"{prefix}.down.weight"] = torch.randn(rank, dim, generator=generator) / dim**0.5
            state[f"{prefix}.up.weight"] = torch.randn(dim, rank, generator=generator) / rank**0.5
    return _save(file, state)


def write_spiece_model(file: Path, **changes) -> Path:
    """`file`, filled with a sentencepiece vocabulary numbered as T5's: 0 pads, 1 ends, 2 is unknown; 110 pieces.

    changes are options of sentencepiece's trainer.
    """
    import io

    import sentencepiece

    words = "a the cat dog man woman dances jumps turns waves slowly in on rain street".split()
    lines = [f"{one} {two}, {string.printable[:94]}" for one in words for two in words]
    options = {"vocab_size": 110, "hard_vocab_limit": False, "minloglevel": 2, "num_threads": 1}
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, **options | ids | changes
    )
    Path(file).write_bytes(model.getvalue())
    return Path(file)


def _make_tokenizer(text_tokens: int):
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<unk>"]
    vocabulary = {token: i for i, token in enumerate(special + sorted(string.printable))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=text_tokens,
    )


@torch.no_grad()
def _randomize(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in [*module.named_parameters(), *module.named_buffers()]:
        noise = torch.randn(parameter.shape, generator=generator)
        if name.startswith("decoder.conv_out"):
            noise /= 5  # pixels of 0 and 1 alone would hide differences
        if parameter.ndim > 1 and "pos_embedding" not in name:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        else:
            # Scales of norms stand around 1, everything else of one dimension around 0.
            parameter.copy_(0.1 * noise + (1 if "norm" in name and name.endswith("weight") else 0))


def _save(file: Path, state: dict[str, torch.Tensor]) -> Path:
    from safetensors.torch import save_file

    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(OrderedDict(state), file)
    return file

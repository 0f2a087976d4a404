"""Small random models of the real classes, in the layouts of the released files, for tests and the first demo.

Every parameter is random and non-zero, so that nothing cancels by accident; the same seed gives the same files.
"""

from __future__ import annotations

import json
import string
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path

import torch

# One transformer: 2 layers of 2 heads x 16, for 17 frames of 64 x 64 pixels and 32 text tokens.
LAYERS = 2
HEADS = 2
HEAD_DIM = 16
TEXT_TOKENS = 32
FRAMES = 17
SIDE_PX = 64

# The settings that the released configs name; diffusers writes more of them today.
RELEASED_SETTINGS = {
    "transformer": (
        "_class_name _diffusers_version activation_fn attention_bias attention_head_dim dropout flip_sin_to_cos "
        "freq_shift in_channels max_text_seq_length norm_elementwise_affine norm_eps num_attention_heads num_layers "
        "out_channels patch_size sample_frames sample_height sample_width spatial_interpolation_scale "
        "temporal_compression_ratio temporal_interpolation_scale text_embed_dim time_embed_dim timestep_activation_fn "
        "use_learned_positional_embeddings use_rotary_positional_embeddings"
    ),
    "vae": (
        "_class_name _diffusers_version act_fn block_out_channels down_block_types force_upcast in_channels "
        "latent_channels latents_mean latents_std layers_per_block norm_eps norm_num_groups out_channels sample_height "
        "sample_width scaling_factor shift_factor temporal_compression_ratio up_block_types use_post_quant_conv "
        "use_quant_conv"
    ),
    "text_encoder": (
        "architectures classifier_dropout d_ff d_kv d_model decoder_start_token_id dense_act_fn dropout_rate "
        "eos_token_id feed_forward_proj initializer_factor is_encoder_decoder is_gated_act layer_norm_epsilon "
        "model_type num_decoder_layers num_heads num_layers output_past pad_token_id relative_attention_max_distance "
        "relative_attention_num_buckets tie_word_embeddings use_cache vocab_size"
    ),
}
# What the released files say, whatever classes of today would write.
RELEASED_VALUES = {
    "transformer": {"_diffusers_version": "0.31.0.dev0"},
    "vae": {"_diffusers_version": "0.31.0.dev0", "force_upcast": True},
    "text_encoder": {"is_encoder_decoder": True, "use_cache": True, "output_past": True, "tie_word_embeddings": False}
    | {"torch_dtype": "bfloat16", "transformers_version": "4.44.2"},
}

SCHEDULER = {
    "_class_name": "CogVideoXDDIMScheduler",
    "_diffusers_version": "0.31.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "sample_max_value": 1.0,
    "set_alpha_to_one": True,
    "snr_shift_scale": 1.0,
    "steps_offset": 0,
    "timestep_spacing": "trailing",
    "trained_betas": None,
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
    """`folder`, filled with a CogVideoX image-to-video model in the released layout.

    Transformer and text encoder lie in shards with an index, the text encoder's embedding under one of its names, the
    tokenizer is spiece.model without tokenizer.json, and configs hold the settings that released ones hold.
    transformer_config overrides any field of the transformer's config, to make models of other kinds.
    """
    from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
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
                vocab_size=128,  # more than pieces, as T5's 32128 are more than 32100
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
        module.to(dtype)  # diffusers makes positions in float64
        # One matrix of the text encoder has two names, and the released file one of them.
        state = {key: value for key, value in module.state_dict().items() if key != "encoder.embed_tokens.weight"}
        stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        write_shards(folder / name, stem, state, {"transformer": 3, "vae": 1, "text_encoder": 2}[name])
        config = module.config.to_dict() if name == "text_encoder" else dict(module.config)
        config = {"_class_name": type(module).__name__, "architectures": [type(module).__name__]} | config
        config = {key: config.get(key) for key in RELEASED_SETTINGS[name].split()} | RELEASED_VALUES[name]
        # What came after the release has to be named only where it is not as it was then.
        own = {key: value for key, value in transformer_config.items() if name == "transformer"}
        write_json(folder / name / "config.json", config | own)
    write_tokenizer(folder / "tokenizer")
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    index = {
        "_class_name": "CogVideoXImageToVideoPipeline",
        "_diffusers_version": "0.31.0.dev0",
        "scheduler": ["diffusers", "CogVideoXDDIMScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
    }
    write_json(folder / "model_index.json", index)
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of one part of a base, such as its transformer folder."""
    from safetensors.torch import load_file

    return {key: value for file in sorted(Path(folder).glob("*.safetensors")) for key, value in load_file(file).items()}


def write_shards(folder: Path, stem: str, state: dict[str, torch.Tensor], count: int) -> None:
    """Writes weights into so many files, with an index if it is more than one."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    table, keys = {}, list(state)
    for number in range(count):
        name = f"{stem}.safetensors" if count == 1 else f"{stem}-{number + 1:05d}-of-{count:05d}.safetensors"
        share = keys[number * len(keys) // count : (number + 1) * len(keys) // count]
        save_file({key: state[key].contiguous() for key in share}, folder / name, metadata={"format": "pt"})
        table |= dict.fromkeys(share, name)
    if count > 1:
        write_json(folder / f"{stem}.safetensors.index.json", {"metadata": {}, "weight_map": table})


def put_in_one_file(folder: Path) -> Path:
    """The one file that the weights of a part of a base are moved into, shards and index removed."""
    from safetensors.torch import save_file

    weights, stem = weights_of(folder), "model" if Path(folder).name == "text_encoder" else "diffusion_pytorch_model"
    for file in Path(folder).glob("*.safetensors*"):
        file.unlink()
    save_file(weights, folder / f"{stem}.safetensors", metadata={"format": "pt"})
    return folder / f"{stem}.safetensors"


def write_json(file: Path, content: dict) -> None:
    """Writes a table, and the folder it lies in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2))


def write_tokenizer(folder: Path) -> None:
    """Writes a tokenizer folder as T5 v1.1's: spiece.model, three tables for other programs, nothing else."""
    extra = [f"<extra_id_{number}>" for number in range(100)]
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "additional_special_tokens": extra}
    kind = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "legacy": True, "model_max_length": 226}
    write_json(
        folder / "tokenizer_config.json", kind | names | {"clean_up_tokenization_spaces": True, "sp_model_kwargs": {}}
    )
    write_json(folder / "special_tokens_map.json", names)
    write_json(folder / "added_tokens.json", {name: 32099 - number for number, name in enumerate(extra)})
    write_spiece_model(folder / "spiece.model")


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
    Path(file).write_bytes(_train_spiece_model(tuple(changes.items())))
    return Path(file)


@lru_cache
def _train_spiece_model(changes: tuple) -> bytes:
    import io

    import sentencepiece

    words = "a the cat dog man woman dances jumps turns waves slowly in on rain street".split()
    lines = [f"{one} {two}, {string.printable[:94]}" for one in words for two in words]
    options = {"vocab_size": 110, "hard_vocab_limit": False, "minloglevel": 2, "num_threads": 1}
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    model = io.BytesIO()
    options |= ids | dict(changes)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **options)
    return model.getvalue()


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

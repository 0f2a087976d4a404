"""ComfyUI's own CLIP and VAE, from the parts of a base of any size; its loaders take the released sizes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def make_vae(config: Mapping[str, Any], state: dict):
    """A VAE of ComfyUI's own class from a CogVideoX VAE's config and tensors, whatever its sizes."""
    import comfy.ldm.cogvideo.vae
    import comfy.model_patcher
    import comfy.sd
    import torch

    # Of the released sizes, without memory: all that ComfyUI sets by the kind is then set.
    with torch.device("meta"):
        stand_in = comfy.ldm.cogvideo.vae.AutoencoderKLCogVideoX().state_dict()
        vae = comfy.sd.VAE(sd=stand_in)
    own = comfy.ldm.cogvideo.vae.AutoencoderKLCogVideoX(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        block_out_channels=tuple(config["block_out_channels"]),
        latent_channels=config["latent_channels"],
        layers_per_block=config["layers_per_block"],
        groups=config["norm_num_groups"],
        temporal_compression_ratio=config["temporal_compression_ratio"],
    )
    own = own.eval().requires_grad_(False).to(vae.vae_dtype)
    vae.first_stage_model, vae.size = own, None
    vae.patcher = type(vae.patcher)(own, load_device=vae.device, offload_device=vae.patcher.offload_device)
    own.load_state_dict(state, strict=True, assign=vae.patcher.is_dynamic())
    return vae


def make_clip(config, tokenizer, state: dict, length: int):
    """A CLIP of ComfyUI's own class from a T5 encoder's config and tensors.

    tokenizer is the base's; prompts are padded, or cut, to `length` tokens. Brackets in a prompt are no weights.
    """
    import comfy.sd
    import comfy.sd1_clip
    import comfy.supported_models_base
    import comfy.text_encoders.t5
    import comfy.utils

    sizes = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size", "relative_attention_num_buckets")
    table = {name: getattr(config, name) for name in sizes}
    table |= {"dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": config.is_gated_act, "model_type": "t5"}

    class Encoder(comfy.sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(
                device=device, dtype=dtype, layer="last", textmodel_json_config=table,
                special_tokens={"end": 1, "pad": 0}, model_class=comfy.text_encoders.t5.T5,
                enable_attention_masks=False, return_attention_masks=False, model_options=model_options or {},
            )  # fmt: skip

    class Model(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(
                device=device, dtype=dtype, name="t5xxl", clip_model=Encoder, model_options=model_options or {}
            )

    shared = state.get("shared.weight", state.get("encoder.embed_tokens.weight"))
    own = {key: value for key, value in state.items() if key != "encoder.embed_tokens.weight"} | {
        "shared.weight": shared
    }
    return comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(lambda **_: _Words(tokenizer, length), Model),
        parameters=comfy.utils.calculate_parameters(own),
        state_dict=[own],
        model_options={"dtype": comfy.utils.weight_dtype(own)},
    )


class _Words:
    """What ComfyUI takes for a tokenizer: the base's own, without weights."""

    def __init__(self, tokenizer, length: int):
        self.tokenizer, self.length = tokenizer, length

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_):
        """The numbers of a text, padded, or cut before its end, to the length."""
        numbers = self.tokenizer(text).input_ids
        if len(numbers) > self.length:
            numbers = [*numbers[: self.length - 1], numbers[-1]]
        numbers = numbers + [self.tokenizer.pad_token_id] * (self.length - len(numbers))
        return {"t5xxl": [[(number, 1.0, 0) if return_word_ids else (number, 1.0) for number in numbers]]}

    def untokenize(self, token_weight_pair):
        """Pairs of each token and its text, which is not known."""
        return [(pair, "") for pair in token_weight_pair]

    def state_dict(self) -> dict:
        """Nothing that is saved."""
        return {}

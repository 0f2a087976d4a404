"""Small random models of CogVideoX 1.5 and of DynamiCtrl, as small_models makes those of 1.0."""

import json
from pathlib import Path

import torch
from small_models import make_base

# As CogVideoX1.5-5B-I2V's config differs from 1.0's.
CONFIG = {
    "patch_size_t": 2,
    "ofs_embed_dim": 16,
    "use_learned_positional_embeddings": False,
    "patch_bias": False,
    "sample_width": 40,
    "sample_height": 40,
}


def make_base_1_5(folder: Path, *, poses: bool = False, invert_scale: bool | None = True, **sizes) -> Path:
    """`folder`, filled with a small CogVideoX 1.5 image-to-video model; with `poses`, with DynamiCtrl's pose norms.

    invert_scale is the VAE's invert_scale_latents, None leaves it out. sizes are make_base()'s.
    """
    folder = make_base(folder, **CONFIG | sizes)
    edit_json(folder / "vae" / "config.json", invert_scale_latents=invert_scale)
    if poses:
        _add_pose_norms(folder / "transformer", sizes.get("seed", 0))
    return folder


def edit_json(file: Path, **fields) -> None:
    """Sets fields of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def _add_pose_norms(folder: Path, seed: int) -> None:
    from diffusers import CogVideoXTransformer3DModel
    from safetensors.torch import save_file

    from flexiact_core.cogvideox.pose_norms import NAME, add_pose_norms

    transformer = CogVideoXTransformer3DModel.from_pretrained(folder)
    add_pose_norms(transformer)
    state, generator = transformer.state_dict(), torch.Generator().manual_seed(seed + 77)
    for key, value in state.items():
        if NAME in key:
            noise = torch.randn(value.shape, generator=generator)
            base = 1.0 if key.endswith("norm.weight") else 0.0
            state[key] = noise / value.shape[1] ** 0.5 if value.ndim == 2 else base + 0.1 * noise
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "diffusion_pytorch_model.safetensors")
    # The release saves its own class.
    edit_json(folder / "config.json", _class_name="DynamiCtrlTransformerModel", pose_control_function="padaln")

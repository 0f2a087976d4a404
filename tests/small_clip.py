"""A small random CLIP in transformers' layout, as a user's folder holds one."""

from __future__ import annotations

import json
from pathlib import Path

import torch

SIDE_PX = 24


def write_small_clip(folder: Path, seed: int = 0) -> Path:
    """`folder`, with a CLIP of two layers each that reads letters and sees 24 x 24 pixels."""
    from transformers import CLIPConfig, CLIPModel

    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    layers = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    end = len(vocabulary) - 1
    config = CLIPConfig(
        text_config=layers | {
            "vocab_size": len(vocabulary), "max_position_embeddings": 20, "bos_token_id": end - 1, "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config=layers | {"image_size": SIDE_PX, "patch_size": 8},
        projection_dim=16,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = CLIPModel(config)
    # Fresh weights are so small that all frames look alike.
    for parameter in model.parameters():
        parameter.data.mul_(3)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "preprocessor_config.json").write_text(
        json.dumps({
            "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": SIDE_PX},
            "do_center_crop": True, "crop_size": {"height": SIDE_PX, "width": SIDE_PX}, "resample": 3,
            "do_normalize": True, "image_mean": [0.481, 0.458, 0.408], "image_std": [0.269, 0.261, 0.276],
        })
    )  # fmt: skip
    return folder

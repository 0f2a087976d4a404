"""Words for AMG: tokens as the release cuts them or in pieces, and the text encoder of Stable Diffusion 2.1.

Shape letters: S text tokens, D text width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..errors import SettingError
from ..modules import OnPart, watch_calls

LongPrompt = Literal["cut", "chunks"]
PAD_ID = 0  # OpenCLIP's; transformers' own tokenizers pad with other tokens


def count_tokens(tokenizer, prompt: str) -> int:
    """How many tokens a prompt has, without those that begin and end it."""
    return len(_token_ids(tokenizer, prompt))


def tokenize(tokenizer, prompt: str, length: int = 77, long: LongPrompt = "cut") -> Tensor:
    """Token ids (pieces, length) of a prompt; each piece begins, ends and is padded as OpenCLIP does it.

    cut keeps the first piece, as the release does; chunks makes as many as it takes, as ComfyUI does.
    Raises SettingError for another word.
    """
    if long not in ("cut", "chunks"):
        raise SettingError(f"long_prompt '{long}': choose cut or chunks.")
    ids, room = _token_ids(tokenizer, prompt), length - 2
    pieces = [ids[start : start + room] for start in range(0, max(1, len(ids)), room)]
    if long == "cut":
        pieces = pieces[:1]
    rows = [[tokenizer.bos_token_id, *piece, tokenizer.eos_token_id] for piece in pieces]
    return torch.tensor([row + [PAD_ID] * (length - len(row)) for row in rows])


@torch.no_grad()
def encode_prompt(
    text_encoder,
    tokenizer,
    prompt: str,
    device: torch.device,
    long: LongPrompt = "cut",
    on_part: OnPart | None = None,
) -> Tensor:
    """Embeddings (1, S, D) of a prompt, S = 77 for each piece, computed on `device`, where the encoder is.

    The encoder has 23 of OpenCLIP's 24 layers: its last output is the release's penultimate one, normalised.
    on_part is called before each layer with how many are done and of how many; it may raise to stop.
    """
    ids = tokenize(tokenizer, prompt, text_encoder.config.max_position_embeddings, long)
    watched = watch_calls(text_encoder, "", "CLIPEncoderLayer", on_part)
    embedded = watched(ids.to(device)).last_hidden_state
    return embedded.reshape(1, -1, embedded.shape[-1])


def _token_ids(tokenizer, prompt: str) -> list[int]:
    return tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids

"""What flows through sockets is never changed."""

from __future__ import annotations

import dataclasses

import pytest
import torch

sockets = pytest.importorskip("flexiact_pack.nodes.sockets", reason="needs ComfyUI: run `make test`")

from flexiact_core.cogvideox.encodings import Clips  # noqa: E402
from flexiact_core.cogvideox.model import Posterior  # noqa: E402


def test_an_adapter_gives_a_new_value_over_the_same_modules():
    plain = sockets.BaseModel("base", "transformer", "text encoder", "vae")
    one = plain.with_adapter("first", 0.7)
    two = one.with_adapter("second", 0.3)
    assert (plain.adapters, one.adapters) == ((), (("first", 0.7),))
    assert two.adapters == (("first", 0.7), ("second", 0.3))
    assert two.base is plain.base and two.transformer is plain.transformer


def test_no_value_can_be_changed():
    values = [kind for kind in vars(sockets).values() if dataclasses.is_dataclass(kind)]
    assert len(values) >= 3
    assert [kind for kind in values if not kind.__dataclass_params__.frozen] == []


def test_the_first_image_is_that_of_the_uncropped_clip():
    posterior = Posterior(torch.arange(3.0)[:, None], torch.arange(3.0, 6)[:, None])
    encoded = Clips(posterior, posterior, torch.zeros(1), torch.zeros(1), 1.0)
    first = sockets.ActionClips(encoded, "", torch.zeros(1), "").first_image
    assert (first.mean.tolist(), first.std.tolist()) == ([[0.0]], [[3.0]])

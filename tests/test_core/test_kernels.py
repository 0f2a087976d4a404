"""One call of attention for all, and its kernels, each tried before it is used."""

import math

import pytest
import torch

from flexiact_core.errors import SettingError, ShapeError
from flexiact_core.kernels import KERNELS, attend, choose_kernel


def test_attend_takes_one_bias_per_key():
    query, key, value = (torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    bias = torch.tensor([0.0, 1.0, -1.0, 0.0, 3.0])
    expected = (query @ key.transpose(-1, -2) / math.sqrt(8) + bias).softmax(-1) @ value
    torch.testing.assert_close(attend(query, key, value, bias), expected, rtol=0, atol=1e-06)
    with pytest.raises(ShapeError, match=r"key_bias: 5 values expected, one per key; \[4\] found"):
        attend(query, key, value, bias[:4])


def test_a_kernel_attends_in_place_of_torchs():
    query, key, value = torch.randn(3, 1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    found = attend(query, key, value, kernel=lambda q, k, v: (attend(q, k, v) * 2, None))
    torch.testing.assert_close(found, attend(query, key, value) * 2, rtol=0, atol=0)


def test_a_chosen_kernel_of_torch_is_turned_on_and_one_that_is_not_there_refused():
    like = torch.zeros(1)
    assert choose_kernel("auto", 8, like) is None and choose_kernel("math", 8, like) is None
    with pytest.raises(SettingError, match="attention 'cudnn' does not run on cpu in float32"):
        choose_kernel("cudnn", 8, like)


def test_another_packages_kernel_is_a_row_and_is_tried_before_it_is_used(monkeypatch):
    def right(query, key, value):
        logits = query @ key.mT * query.shape[-1] ** -0.5
        return logits.softmax(-1) @ value, logits.logsumexp(-1)

    monkeypatch.setitem(KERNELS, "right", right)
    assert choose_kernel("right", 8, torch.zeros(1)) is right
    monkeypatch.setitem(KERNELS, "wrong", lambda *inputs: (right(*inputs)[0] + 1, right(*inputs)[1]))
    with pytest.raises(SettingError, match="'wrong': what is installed computes something else on cpu"):
        choose_kernel("wrong", 8, torch.zeros(1))

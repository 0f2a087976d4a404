import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from flexiact_core import kernels
from flexiact_core.flexiact import motion
from flexiact_core.flexiact.motion import LayerMotion

TEXT, VIDEO, MOTION, HEADS, WIDTH, BATCH = 11, 90, 13, 3, 16, 2
CUDA_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
BIASES = [1.0, -3.0, 8.0]


def one_layer(dtype=torch.float32, device="cpu", weighted=False):
    generator = torch.Generator().manual_seed(0)

    def draw(batch, tokens):
        return torch.randn(batch, HEADS, tokens, WIDTH, generator=generator).to(device, dtype)

    own = [draw(BATCH, TEXT + VIDEO) for _ in range(3)]
    log_weight = torch.linspace(-2, 1.5, MOTION, device=device) if weighted else None
    return own, LayerMotion(draw(1, MOTION), draw(1, MOTION), log_weight)


def exact(own, layer, bias):
    """Softmax over all keys, in float64."""
    query, key, value = (x.double() for x in own)
    key, value = (
        torch.cat([x, extra.double().expand(len(x), -1, -1, -1)], dim=2)
        for x, extra in ((key, layer.key), (value, layer.value))
    )
    logits = query @ key.transpose(-1, -2) / math.sqrt(WIDTH)
    logits[:, :, TEXT:, -MOTION:] += bias
    if layer.log_weight is not None:
        logits[..., -MOTION:] += layer.log_weight.double()
    return logits.softmax(-1) @ value


@torch.no_grad()
def ours(own, layer, bias):
    return motion.attend_with_motion(*own, TEXT, layer, bias)


def fail(*_):
    raise AssertionError("the other form was to run")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bias", BIASES)
def test_two_parts_merged_are_exact(monkeypatch, bias, weighted):
    monkeypatch.setattr(motion, "_attend_with_row_bias", fail)
    own, layer = one_layer(weighted=weighted)
    torch.testing.assert_close(ours(own, layer, bias), exact(own, layer, bias), rtol=0, atol=2e-06, check_dtype=False)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bias", BIASES)
def test_row_bias_is_exact_where_no_kernel_gives_its_sum(monkeypatch, bias, weighted):
    monkeypatch.setattr(kernels, "_flash_on_cpu", fail)
    own, layer = one_layer(weighted=weighted)
    with sdpa_kernel(SDPBackend.MATH):
        torch.testing.assert_close(
            ours(own, layer, bias), exact(own, layer, bias), rtol=0, atol=2e-06, check_dtype=False
        )


@pytest.mark.parametrize("bias", [0.0, *BIASES])
def test_bf16_is_as_close_to_exact_with_the_bias_as_without(bias):
    own, layer = one_layer(torch.bfloat16)

    def error(bias):
        expected = exact(own, layer, bias)
        return (ours(own, layer, bias) - expected).norm() / expected.norm()

    assert error(bias) <= 1.5 * error(0.0)


def test_gradients_are_those_of_the_exact_form():
    def gradients(form):
        own, layer = one_layer()
        leaves = [*own, layer.key, layer.value]
        for leaf in leaves:
            leaf.requires_grad_()
        form(own, layer).square().sum().backward()
        return [leaf.grad for leaf in leaves]

    found = gradients(lambda own, layer: motion.attend_with_motion(*own, TEXT, layer, 1.0))
    expected = gradients(lambda own, layer: exact(own, layer, 1.0).float())
    assert all((a - b).abs().max() <= 2e-5 * b.abs().max() for a, b in zip(found, expected, strict=True))


def test_odd_head_widths_are_exact_too():
    own, layer = one_layer()
    own = [x[..., :12] for x in own]
    layer = LayerMotion(layer.key[..., :12], layer.value[..., :12], None)
    logits = own[0] @ torch.cat([own[1], layer.key.expand(BATCH, -1, -1, -1)], 2).transpose(-1, -2) / math.sqrt(12)
    logits[:, :, TEXT:, -MOTION:] += 1.0
    expected = logits.softmax(-1) @ torch.cat([own[2], layer.value.expand(BATCH, -1, -1, -1)], 2)
    torch.testing.assert_close(ours(own, layer, 1.0), expected, rtol=0, atol=2e-06, check_dtype=False)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("backend", CUDA_BACKENDS, ids=lambda backend: backend.name)
def test_cuda_kernels_take_our_tensors_and_give_the_shapes_we_read(monkeypatch, backend, weighted):
    from torch._subclasses.fake_tensor import FakeTensorMode

    # Shapes and signatures only, so it needs no card; there, the numbers are tested below.
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *_: backend.value)
    monkeypatch.setattr(motion, "_attend_with_row_bias", fail)
    with FakeTensorMode(), torch.no_grad():
        own = [torch.empty(2, 101, HEADS, 64, device="cuda", dtype=torch.bfloat16).transpose(1, 2) for _ in range(3)]
        pair = [torch.empty(1, HEADS, MOTION, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
        log_weight = torch.empty(MOTION, device="cuda") if weighted else None
        found = motion.attend_with_motion(*own, TEXT, LayerMotion(*pair, log_weight), 1.0)
        assert found.shape == own[0].shape and found.dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("backend", CUDA_BACKENDS, ids=lambda backend: backend.name)
def test_cuda_kernels_are_exact(monkeypatch, backend, weighted):
    monkeypatch.setattr(motion, "_attend_with_row_bias", fail)
    own, layer = one_layer(torch.bfloat16, "cuda", weighted)
    with sdpa_kernel(backend):
        torch.testing.assert_close(ours(own, layer, 1.0), exact(own, layer, 1.0), rtol=0, atol=0.02, check_dtype=False)

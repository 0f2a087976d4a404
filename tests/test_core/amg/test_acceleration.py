import pytest
import torch
from torch.testing import assert_close

from benchmarks.amg import META, SMALL_UNET, inputs
from benchmarks.measure import peak_bytes
from flexiact_core import kernels
from flexiact_core.amg.acceleration import Acceleration, accelerate
from flexiact_core.amg.memory import unet_bytes
from flexiact_core.amg.model import empty_unet
from flexiact_core.amg.sampling import predict_noise
from flexiact_core.errors import SettingError


@pytest.fixture(scope="module")
def given():
    generator = torch.Generator().manual_seed(2)
    return (
        torch.randn(1, 8, 3, 4, 4, generator=generator),
        torch.tensor([501]),
        torch.randn(1, 77, 32, generator=generator),
    )


def forward(unet, given):
    with torch.no_grad():
        return unet(given[0], given[1], encoder_hidden_states=given[2], return_dict=False)[0]


def by_hand(query, key, value):
    """A kernel of our own: plain attention, and the logarithm of each row's softmax sum."""
    logits = query.float() @ key.float().mT * query.shape[-1] ** -0.5
    return (logits.softmax(-1) @ value.float()).to(query.dtype), logits.logsumexp(-1)


@pytest.mark.parametrize("attention", ["auto", "flash", "math"])
def test_torchs_kernels_differ_in_rounding_only(small, given, attention):
    found = forward(accelerate(small.unet, Acceleration(attention), given[0]), given)
    assert_close(found, forward(small.unet, given), atol=3e-6, rtol=0)


def test_another_packages_kernel_attends_in_every_layer_and_the_unet_stays_as_it_is(small, given, monkeypatch):
    expected, calls = forward(small.unet, given), []
    monkeypatch.setitem(
        kernels.KERNELS, "sage", lambda *tensors: (calls.append(tensors[0].shape), by_hand(*tensors))[1]
    )
    run = accelerate(small.unet, Acceleration("sage"), given[0])
    calls.clear()
    assert_close(forward(run, given), expected, atol=3e-6, rtol=0)
    layers = sum(name.endswith(("attn1", "attn2")) for name, _ in small.unet.named_modules())
    assert len(calls) == layers
    calls.clear()
    assert torch.equal(forward(small.unet, given), expected) and not calls


def test_each_level_is_compiled_once_and_on_a_tree_of_its_own(small, given, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: (compiled.append(function), function)[1])
    run = accelerate(small.unet, Acceleration(compiled=True), given[0])
    assert len(compiled) == 5  # two levels down, the middle, two up
    assert torch.equal(forward(run, given), forward(small.unet, given))
    assert not any("forward" in vars(module) for module in small.unet.modules())


def test_a_machine_that_cannot_compile_says_so(small, given, monkeypatch):
    def broken(function):
        def fail(*_, **__):
            raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError("no C++ compiler"), None)

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(SettingError, match="compiled: torch cannot compile here .*no C.. compiler.*Turn compiled off"):
        forward(accelerate(small.unet, Acceleration(compiled=True), given[0]), given)


def test_kernels_that_are_not_there_are_refused(small, given):
    with pytest.raises(SettingError, match="attention 'fast': choose one of auto, "):
        Acceleration("fast")
    with pytest.raises(SettingError, match="attention 'sage' needs the package sageattention"):
        accelerate(small.unet, Acceleration("sage"), given[0])
    with pytest.raises(SettingError, match="attention 'cudnn' does not run on cpu in float32. Choose auto"):
        accelerate(small.unet, Acceleration("cudnn"), given[0])


@pytest.mark.parametrize("batched", [False, True])
def test_the_memory_asked_for_is_what_a_step_holds(batched):
    unet = empty_unet(SMALL_UNET).eval().requires_grad_(False)
    noisy, avatar, text, null = inputs((16, 16), SMALL_UNET["cross_attention_dim"], META)
    with torch.no_grad():
        held = peak_bytes(
            lambda: predict_noise(unet, noisy, avatar, 501, text, null, cfg=3.0, batched=batched), META
        )  # fmt: skip
    assert held <= unet_bytes(unet, 16, 16, 16, 1 + batched, 4) * 1.05 and held > 0.7 * unet_bytes(
        unet, 16, 16, 16, 1 + batched, 4
    )

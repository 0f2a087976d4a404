"""What saves time: exact where it says so, undone after the run, and never seen by the base."""

import copy
import math
import sys
import types

import pytest
import torch

from flexiact_core.cogvideox.acceleration import EXACT, Acceleration, accelerate
from flexiact_core.cogvideox.sampling import Run, sample
from flexiact_core.errors import SettingError
from flexiact_core.flexiact.bias import MotionBias
from flexiact_core.flexiact.processor import motion_kwargs, project_motion, with_motion_attention

CPU = torch.device("cpu")
STEPS = 10
CACHES = {
    # Between neighbouring steps this random model changes far more than a trained one.
    "first_block": Acceleration("first_block", threshold=0.95),
    "taylor": Acceleration("taylor", interval=3),
}
each_cache = pytest.mark.parametrize("cache", CACHES)


@pytest.fixture(scope="module")
def adapted(golden):
    return with_motion_attention(golden.adapted(0.7))


@pytest.fixture(scope="module")
def attention_kwargs(golden, adapted):
    return motion_kwargs(project_motion(adapted, [(golden.fae.tokens, 1.0)]), MotionBias())


@pytest.fixture
def draw(golden, adapted, attention_kwargs):
    recorded = golden.tensors("sampling")
    negative, positive = recorded["prompt_embeds"].chunk(2)

    def draw(
        acceleration=EXACT,
        transformer=adapted,
        cfg=6.0,
        steps=STEPS,
        attention_kwargs=attention_kwargs,
        on_step=None,
    ):
        return sample(
            transformer,
            golden.schedule["scheduler_config"],
            recorded["latents_init"],
            recorded["image_latents"],
            positive,
            negative,
            Run(17, CPU, steps, cfg, "DDIM", acceleration=acceleration, on_step=on_step),
            attention_kwargs=attention_kwargs,
        )

    return draw


@pytest.fixture
def calls(adapted, monkeypatch):
    """How often each layer's attention has run, and on how many samples."""
    counted = []
    original = type(adapted.transformer_blocks[0].attn1.processor)._attend

    def counting(self, query, *rest):
        counted.append((self.layer, len(query)))
        return original(self, query, *rest)

    monkeypatch.setattr(type(adapted.transformer_blocks[0].attn1.processor), "_attend", counting)
    return counted


def forward_inputs(golden, dtype):
    """A plain transformer and the named inputs of one of its forwards."""
    recorded = golden.tensors("forward")
    inputs = {
        "hidden_states": recorded["hidden_states"].to(dtype),
        "encoder_hidden_states": recorded["encoder_hidden_states"].to(dtype),
        "timestep": recorded["timestep"],
        "image_rotary_emb": (recorded["rope_cos"], recorded["rope_sin"]),
    }
    return copy.deepcopy(golden.transformer).to(dtype), inputs


def psnr(found, exact):
    """Signal to noise in decibel, of latents."""
    return 10 * math.log10(exact.square().mean() / (found - exact).square().mean())


def test_first_block_that_may_reuse_nothing_is_exact(draw):
    assert torch.equal(draw(Acceleration("first_block", threshold=0)), draw())


def test_taylor_that_may_reuse_nothing_differs_in_rounding_only(draw):
    assert psnr(draw(Acceleration("taylor", interval=1)), draw()) > 90


def test_taylor_that_may_reuse_nothing_is_exact_in_bfloat16(golden):
    """The sum of a layer's input and its change is the very output, as the change is held in float32."""
    transformer, inputs = forward_inputs(golden, torch.bfloat16)
    exact = transformer(**inputs, return_dict=False)[0]
    assert torch.equal(accelerate(transformer, Acceleration("taylor", interval=1), exact)(**inputs), exact)


def test_taylor_answers_the_noise_of_a_step_that_it_does_not_compute(golden):
    """SDE schedulers add noise in each step; a stand-in that ignored its input would leave it in the video."""
    transformer, inputs = forward_inputs(golden, torch.float32)
    noise = torch.randn(inputs["hidden_states"].shape, generator=torch.Generator().manual_seed(0)) * 0.1

    def fourth_step(extra):
        predict = accelerate(transformer, Acceleration("taylor", interval=5), noise)
        for _ in range(3):
            predict(**inputs)
        return predict(**{**inputs, "hidden_states": inputs["hidden_states"] + extra})

    assert (fourth_step(noise) - fourth_step(0)).abs().mean() > 1e-3


@each_cache
@pytest.mark.parametrize("cfg", [6.0, 1.0])
def test_a_step_cache_computes_less_and_stays_near(draw, calls, cache, cfg):
    exact = draw(cfg=cfg)
    in_full = sum(batch for _, batch in calls)
    calls.clear()
    found = draw(CACHES[cache], cfg=cfg)
    assert sum(batch for _, batch in calls) < 0.9 * in_full
    assert torch.isfinite(found).all() and not torch.equal(found, exact)
    assert psnr(found, exact) > 9


def test_taylor_computes_the_steps_it_says(draw, calls, golden):
    draw(CACHES["taylor"])
    layers = golden.config["num_layers"]
    # Of 10 steps: the first 3, then every third from the fifth on.
    assert len(calls) == layers * (3 + 2)


def test_first_block_always_runs_and_the_others_do_not(draw, calls, golden):
    draw(CACHES["first_block"])
    runs = [sum(layer == index for layer, _ in calls) for index in range(golden.config["num_layers"])]
    assert runs[0] == STEPS and len(set(runs[1:])) == 1 and runs[1] < STEPS


def test_a_smaller_threshold_is_nearer_and_reuses_less(draw, calls):
    exact, runs, nearness = draw(), [], []
    for threshold in (0.95, 0.9, 0.1):
        calls.clear()
        nearness.append(psnr(draw(Acceleration("first_block", threshold=threshold)), exact))
        runs.append(len(calls))
    assert nearness == sorted(nearness) and runs == sorted(runs) and runs[0] < runs[-1]


@each_cache
def test_every_run_starts_anew_and_the_transformer_never_notices(draw, adapted, cache):
    before = draw()
    attributes = {name: set(vars(module)) for name, module in adapted.named_modules()}
    first, second = draw(CACHES[cache]), draw(CACHES[cache])
    assert torch.equal(first, second)
    assert {name: set(vars(module)) for name, module in adapted.named_modules()} == attributes
    assert torch.equal(draw(), before)


def test_a_base_that_diffusers_own_pipeline_has_used_serves_as_well(draw, golden):
    transformer = golden.adapted(0.0)
    with transformer.cache_context("cond"):
        pass
    assert hasattr(transformer, "_diffusers_hook")
    twin = with_motion_attention(transformer)
    assert psnr(draw(Acceleration("taylor", interval=1), twin), draw(EXACT, twin)) > 90
    assert transformer._diffusers_hook.hooks == {}


@pytest.mark.parametrize("acceleration", [Acceleration(compiled=True), Acceleration("first_block", compiled=True)])
def test_compiled_blocks_give_the_same(draw, adapted, monkeypatch, acceleration):
    compile = torch.compile
    # The compiler's front end alone: code generation takes minutes on a CPU and is torch's own to test.
    monkeypatch.setattr(torch, "compile", lambda function: compile(function, backend="aot_eager"))
    expected = draw(Acceleration(acceleration.step_cache))
    torch.testing.assert_close(draw(acceleration), expected, rtol=0, atol=1e-05)
    assert "forward" not in vars(adapted.transformer_blocks[0])


def test_a_compiler_that_is_not_there_is_said(draw, monkeypatch):
    compile = torch.compile

    def no_compiler(graph, inputs):
        raise RuntimeError("no C compiler found")

    monkeypatch.setattr(torch, "compile", lambda function: compile(function, backend=no_compiler))
    torch._dynamo.reset()
    with pytest.raises(SettingError, match=r"(?s)compiled: torch cannot compile here \(.*no C.*Turn compiled off"):
        draw(Acceleration(compiled=True))


@pytest.mark.parametrize("action", [True, False], ids=["an action", "none"])
def test_one_compiled_block_serves_all_layers_steps_and_later_runs(draw, attention_kwargs, monkeypatch, action):
    """Nothing waits for a compiler in the middle of a run, nor where the weighting falls silent."""
    from torch._dynamo.utils import counters

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile(function, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    graphs = []
    if not action:
        attention_kwargs = motion_kwargs(None, MotionBias())
    for _ in range(2):
        draw(
            Acceleration(compiled=True),
            attention_kwargs=attention_kwargs,
            on_step=lambda *_: graphs.append(counters["stats"]["unique_graphs"]),
        )
    assert len(graphs) == 2 * STEPS and set(graphs) == {graphs[0]} and 0 < graphs[0] <= 8


@pytest.mark.parametrize("kernel", ["flash", "math"])
def test_a_chosen_attention_kernel_gives_the_same(draw, kernel):
    torch.testing.assert_close(draw(Acceleration(attention=kernel)), draw(), rtol=0, atol=0.0001)


def test_a_kernel_that_the_device_has_not_is_said_before_the_first_step(draw, calls):
    with pytest.raises(SettingError, match="attention 'cudnn' does not run on cpu in float32. Choose auto."):
        draw(Acceleration(attention="cudnn"))
    assert calls == []


@each_cache
def test_a_step_cache_holds_no_more_than_it_says(golden, draw, cache):
    from benchmarks.measure import peak_bytes

    cache = CACHES[cache]
    exact, cached = peak_bytes(draw, CPU), peak_bytes(lambda: draw(cache), CPU)
    batch, frames, channels, height, width = golden.tensors("forward")["hidden_states"].shape
    tokens = golden.config["max_text_seq_length"] + frames * height * width // golden.config["patch_size"] ** 2
    values = batch * tokens * golden.config["num_attention_heads"] * golden.config["attention_head_dim"]
    assert 0.5 * cache.held_bytes(values, 4) < cached - exact <= cache.held_bytes(values, 4)


@pytest.fixture
def install_sage(monkeypatch):
    """Stands in for the sageattention package, whose kernels need a card; its results are torch's."""

    def install(sum_of=lambda logits: logits.logsumexp(-1), gives_sum=True):
        used = []

        def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, return_lse=False, **_):
            assert tensor_layout == "HND" and not is_causal and return_lse
            used.append(k.shape[2])
            logits = (q @ k.mT).float() * (sm_scale or q.shape[-1] ** -0.5)
            attended = logits.softmax(-1).to(v) @ v
            return (attended, sum_of(logits)) if gives_sum else attended

        package = types.ModuleType("sageattention")
        package.sageattn = sageattn
        monkeypatch.setitem(sys.modules, "sageattention", package)
        return used

    return install


def test_sage_attends_in_every_layer_and_the_weighting_stays_exact(golden, draw, install_sage):
    used = install_sage()
    exact = draw()
    assert used == []
    torch.testing.assert_close(draw(Acceleration(attention="sage")), exact, rtol=0, atol=0.0001)
    # One probe, and each layer of each step: over the own keys where the weighting speaks, with the motion tokens'
    # appended where it is silent.
    own = set(used[1:])
    assert len(used) == 1 + STEPS * golden.config["num_layers"] and len(own) == 2
    assert max(own) - min(own) == golden.fae.tokens.shape[1]


def test_sage_serves_runs_without_an_action(draw, install_sage):
    used = install_sage()
    without = motion_kwargs(None, MotionBias())
    sage = draw(Acceleration(attention="sage"), attention_kwargs=without)
    torch.testing.assert_close(sage, draw(attention_kwargs=without), rtol=0, atol=0.0001)
    assert used


def test_sage_attends_in_a_transformer_that_no_system_has_touched(golden, draw, install_sage):
    used = install_sage()
    plain = copy.deepcopy(golden.transformer)
    before = {name: type(processor) for name, processor in plain.attn_processors.items()}
    sage = draw(Acceleration(attention="sage"), transformer=plain, attention_kwargs=None)
    assert len(used) == 1 + STEPS * golden.config["num_layers"]
    torch.testing.assert_close(sage, draw(transformer=plain, attention_kwargs=None), rtol=0, atol=1e-4)
    assert {name: type(processor) for name, processor in plain.attn_processors.items()} == before


def test_an_attention_that_takes_no_kernel_is_said_before_the_first_step(golden, draw, install_sage):
    from diffusers.models.attention_processor import FusedCogVideoXAttnProcessor2_0

    install_sage()
    plain = copy.deepcopy(golden.transformer)
    plain.set_attn_processor(FusedCogVideoXAttnProcessor2_0())
    with pytest.raises(SettingError, match="attends by FusedCogVideoXAttnProcessor2_0, which takes no other kernel"):
        draw(Acceleration(attention="sage"), transformer=plain)


@pytest.mark.parametrize(
    "installed, message",
    [
        (None, "needs the package sageattention, which is not installed here. Install version 2 or newer"),
        (dict(gives_sum=False), "needs sageattention 2 or newer. Update it, or choose auto."),
        (
            dict(sum_of=lambda logits: logits.logsumexp(-1) / math.log(2)),
            "what is installed computes something else on cpu in float32",
        ),
        (dict(sum_of=lambda logits: logits.logsumexp(-1) - logits.mean(-1)), "what is installed computes something"),
        (dict(sum_of=lambda logits: logits.no_such_kernel), "does not run on cpu in float32 .*no_such_kernel"),
    ],
    ids=["not installed", "version 1", "another logarithm", "sum without the keys' mean", "another card"],
)
def test_a_sage_that_would_not_work_is_said_before_the_first_step(
    draw, calls, install_sage, monkeypatch, installed, message
):
    if installed is None:
        monkeypatch.setitem(sys.modules, "sageattention", None)
    else:
        install_sage(**installed)
    with pytest.raises(SettingError, match=f"attention 'sage'.*{message}"):
        draw(Acceleration(attention="sage"))
    assert calls == []


@pytest.mark.parametrize(
    "wrong",
    [dict(step_cache="faster"), dict(attention="flash3"), dict(threshold=-0.1), dict(threshold=1), dict(interval=0)],
)
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(SettingError, match=str(next(iter(wrong)))):
        Acceleration(**wrong)

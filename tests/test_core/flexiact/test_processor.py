import inspect
import math

import pytest
import torch
import torch.nn.functional as F

from flexiact_core.cogvideox.model import rotary_positions
from flexiact_core.flexiact.bias import MotionBias
from flexiact_core.flexiact.motion import SHARE_ROWS
from flexiact_core.flexiact.processor import MotionAttention, motion_kwargs, project_motion, with_motion_attention

ATOL = 1e-5
RECORDED = {
    # output: (RefAdapter weight, FAE, bias)
    "out_base": (None, False, 0.0),
    "out_refadapter_w0.7": (0.7, False, 0.0),
    "out_fae_w0.7_noreweight": (0.7, True, 0.0),
    "out_fae_w0.7_rw1.0": (0.7, True, 1.0),
    "out_fae_w0.7_rw0.37": (0.7, True, 0.37),
    "out_fae_w0_noreweight": (0.0, True, 0.0),
}


@pytest.fixture(scope="module")
def inputs(golden):
    return golden.tensors("forward")


@pytest.fixture(params=[False, True], ids=["no gradients", "gradients"])
def gradients(request):
    """Where gradients are needed other kernels may run."""
    with torch.set_grad_enabled(request.param):
        yield request.param


@torch.no_grad()
def run(transformer, inputs, **attention_kwargs):
    return forward(transformer, inputs, **attention_kwargs)


def forward(transformer, inputs, **attention_kwargs):
    return transformer(
        inputs["hidden_states"],
        inputs["encoder_hidden_states"],
        inputs["timestep"],
        image_rotary_emb=(inputs["rope_cos"], inputs["rope_sin"]),
        attention_kwargs=attention_kwargs or None,
        return_dict=False,
    )[0]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("output", RECORDED)
def test_forward_is_the_recorded_one(golden, inputs, output, suffix):
    from flexiact_core.flexiact.fae import load_fae
    from flexiact_core.flexiact.refadapter import load_refadapter, with_refadapters

    weight, with_fae, bias = RECORDED[output]
    adapters = [] if weight is None else [(load_refadapter(golden.folder / f"refadapter{suffix}"), weight)]
    transformer = with_motion_attention(
        with_refadapters(golden.transformer, adapters, torch.device("cpu"), torch.float32)
    )
    faes = [(load_fae(golden.folder / f"fae{suffix}").tokens, 1.0)] if with_fae else []
    found = run(transformer, inputs, motion=project_motion(transformer, faes), bias=bias)
    torch.testing.assert_close(found, inputs[output], rtol=0, atol=ATOL)


def test_golden_set_holds_no_forward_that_is_not_tested(inputs):
    assert {name for name in inputs if name.startswith("out_")} == set(RECORDED)


def test_rotary_tables_are_the_recorded_ones(golden, inputs):
    _, frames, _, height, width = inputs["hidden_states"].shape
    cos, sin = rotary_positions(golden.config, frames, height, width)
    torch.testing.assert_close(cos, inputs["rope_cos"], rtol=0, atol=1e-06)
    torch.testing.assert_close(sin, inputs["rope_sin"], rtol=0, atol=1e-06)


class FullRowMotionAttention:
    """The method's words, taken literally: [text, motion, video], rows for the motion tokens too, an N x N mask.

    query_of_motion replaces the queries of the motion tokens, where it is given.
    """

    def __init__(self, tokens, bias, query_of_motion=None):
        self.tokens, self.bias, self.query_of_motion = tokens, bias, query_of_motion

    def __call__(self, attn, hidden_states, encoder_hidden_states, attention_mask=None, image_rotary_emb=None):
        batch, num_text = encoder_hidden_states.shape[:2]
        num_motion = self.tokens.shape[0]
        first_video = num_text + num_motion
        x = torch.cat([encoder_hidden_states, self.tokens.expand(batch, -1, -1), hidden_states], dim=1)
        heads = [
            projection(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projection in (attn.to_q, attn.to_k, attn.to_v)
        ]
        query, key, value = attn.norm_q(heads[0]), attn.norm_k(heads[1]), heads[2]
        query[:, :, first_video:] = rotate(query[:, :, first_video:], image_rotary_emb)
        key[:, :, first_video:] = rotate(key[:, :, first_video:], image_rotary_emb)
        if self.query_of_motion is not None:
            query[:, :, num_text:first_video] = self.query_of_motion
        mask = torch.zeros(x.shape[1], x.shape[1])
        mask[first_video:, num_text:first_video] = self.bias
        logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + mask
        out = attn.to_out[0]((logits.softmax(-1) @ value).transpose(1, 2).flatten(2))
        return out[:, first_video:], out[:, :num_text]


def rotate(x, tables):
    cos, sin = tables
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return x * cos + turned * sin


def full_row_transformer(golden, weight, bias, seed=None):
    transformer = with_motion_attention(golden.adapted(weight))
    generator = torch.Generator().manual_seed(seed or 0)
    for block, tokens in zip(transformer.transformer_blocks, golden.fae.tokens):
        size = len(tokens), block.attn1.inner_dim // block.attn1.heads
        queries = None if seed is None else 10 * torch.randn(size, generator=generator)
        block.attn1.set_processor(FullRowMotionAttention(tokens, bias, queries))
    return transformer


@pytest.fixture(scope="module")
def adapted(golden):
    return with_motion_attention(golden.adapted(0.7))


@pytest.fixture(scope="module")
def motion(golden, adapted):
    return project_motion(adapted, [(golden.fae.tokens, 1.0)])


@pytest.mark.parametrize("bias", [0.0, 1.0, -2.5, 8.0])
def test_ours_equals_full_rows_with_a_dense_mask(golden, inputs, adapted, motion, bias, gradients):
    ours = forward(adapted, inputs, motion=motion, bias=bias)
    dense = run(full_row_transformer(golden, 0.7, bias), inputs)
    torch.testing.assert_close(ours, dense, rtol=0, atol=ATOL)


def test_motion_queries_never_matter(golden, inputs, adapted, motion):
    first, second = (run(full_row_transformer(golden, 0.7, 1.0, seed), inputs) for seed in (1, 2))
    assert torch.equal(first, second)
    torch.testing.assert_close(run(adapted, inputs, motion=motion, bias=1.0), first, rtol=0, atol=ATOL)


@pytest.mark.parametrize("wrong", ["no key norm", "rotary on motion keys", "bias for text queries"])
def test_typical_mistakes_are_far_above_the_tolerance(golden, inputs, adapted, motion, wrong):
    from dataclasses import replace

    recorded = inputs["out_fae_w0.7_rw1.0"]
    if wrong == "bias for text queries":
        shifted = [replace(layer, log_weight=torch.ones(layer.key.shape[2])) for layer in motion]
        found = run(adapted, inputs, motion=shifted, bias=0.0)
    elif wrong == "no key norm":
        raw = [
            replace(layer, key=block.attn1.to_k(tokens[None]).unflatten(-1, (block.attn1.heads, -1)).transpose(1, 2))
            for layer, block, tokens in zip(motion, adapted.transformer_blocks, golden.fae.tokens)
        ]
        found = run(adapted, inputs, motion=raw, bias=1.0)
    else:
        count = min(motion[0].key.shape[2], len(inputs["rope_cos"]))
        tables = inputs["rope_cos"][-count:], inputs["rope_sin"][-count:]
        turned = [
            replace(layer, key=torch.cat([rotate(layer.key[:, :, :count], tables), layer.key[:, :, count:]], dim=2))
            for layer in motion
        ]
        found = run(adapted, inputs, motion=turned, bias=1.0)
    assert (found - recorded).abs().max() > 100 * ATOL


def merged(query, key, value, layer, num_text, bias):
    """Attention in two parts, own keys and motion keys, merged by their log-sum-exp."""

    def part(keys, values, shift):
        logits = query @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1]) + shift
        return logits.softmax(-1) @ values, logits.logsumexp(-1, keepdim=True)

    shift = torch.zeros(query.shape[2], 1)
    shift[num_text:] = bias
    own, own_lse = part(key, value, 0.0)
    extra, extra_lse = part(layer.key, layer.value, shift)
    share = torch.sigmoid(extra_lse - own_lse)
    return own * (1 - share) + extra * share


@pytest.fixture
def layer_calls(monkeypatch):
    """Arguments and result of every layer's attention with motion tokens, as they come."""
    from flexiact_core.flexiact import processor

    calls, original = [], processor.attend_with_motion

    def recorded(*arguments):
        calls.append((arguments, original(*arguments)))
        return calls[-1][1]

    monkeypatch.setattr(processor, "attend_with_motion", recorded)
    return calls


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_ours_equals_two_parts_merged_by_log_sum_exp(inputs, adapted, motion, layer_calls, bias, gradients):
    forward(adapted, inputs, motion=motion, bias=bias)
    assert len(layer_calls) == len(motion)
    for (query, key, value, num_text, layer, *_), ours in layer_calls:
        torch.testing.assert_close(merged(query, key, value, layer, num_text, bias), ours, rtol=0, atol=5e-06)


def test_bias_0_is_plain_attention_bit_for_bit(inputs, adapted, motion, layer_calls, gradients):
    unbiased = forward(adapted, inputs, motion=motion, bias=0.0)
    assert len(layer_calls) == len(motion)
    for (query, key, value, _, layer, *_), ours in layer_calls:
        keys, values = (
            torch.cat([own, extra.expand(len(own), -1, -1, -1)], dim=2)
            for own, extra in ((key, layer.key), (value, layer.value))
        )
        assert torch.equal(ours, F.scaled_dot_product_attention(query, keys, values))
    assert torch.equal(unbiased, forward(adapted, inputs, motion=motion))


def test_without_motion_it_is_the_stock_processor_bit_for_bit(golden, inputs, adapted):
    stock = run(golden.transformer, inputs)
    assert torch.equal(run(with_motion_attention(golden.transformer), inputs), stock)
    assert torch.equal(run(adapted, inputs), run(golden.adapted(0.7), inputs))


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_strength_0_is_no_fae_bit_for_bit(golden, inputs, adapted, bias):
    silent = project_motion(adapted, [(golden.fae.tokens, 0.0)])
    assert torch.equal(run(adapted, inputs, motion=silent, bias=bias), run(adapted, inputs))


def test_a_silent_fae_beside_another_changes_nothing(golden, inputs, adapted, motion):
    both = project_motion(adapted, [(golden.fae.tokens, 1.0), (golden.fae.tokens.flip(1) * 2, 0.0)])
    found = run(adapted, inputs, motion=both, bias=1.0)
    assert torch.equal(found, run(adapted, inputs, motion=motion, bias=1.0))


@pytest.mark.parametrize("bias", [0.0, 1.0])
@pytest.mark.parametrize("times", [2, 3])
def test_strength_n_counts_every_token_n_times(golden, inputs, adapted, bias, times, gradients):
    tokens = golden.fae.tokens
    weighted = project_motion(adapted, [(tokens, float(times))])
    repeated = project_motion(adapted, [(tokens.repeat(1, times, 1), 1.0)])
    found = forward(adapted, inputs, motion=weighted, bias=bias)
    torch.testing.assert_close(found, forward(adapted, inputs, motion=repeated, bias=bias), rtol=0, atol=ATOL)
    assert not torch.equal(found, run(adapted, inputs, motion=project_motion(adapted, [(tokens, 1.0)])))


def test_a_small_strength_tends_to_no_fae(golden, inputs, adapted):
    faint = project_motion(adapted, [(golden.fae.tokens, 1e-6)])
    torch.testing.assert_close(run(adapted, inputs, motion=faint), run(adapted, inputs), rtol=0, atol=0.0001)


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_two_faes_are_their_tokens_side_by_side(golden, inputs, adapted, bias):
    first, second = golden.fae.tokens, golden.fae.tokens.flip(0) * 0.7
    chained = project_motion(adapted, [(first, 1.0), (second, 1.0)])
    joined = project_motion(adapted, [(torch.cat([first, second], dim=1), 1.0)])
    found, expected = (run(adapted, inputs, motion=m, bias=bias) for m in (chained, joined))
    assert torch.equal(found, expected)


def test_each_of_two_faes_keeps_its_own_strength(golden, inputs, adapted):
    first, second = golden.fae.tokens, golden.fae.tokens.flip(0) * 0.7
    chained = project_motion(adapted, [(first, 1.0), (second, 2.0)])
    repeated = project_motion(adapted, [(torch.cat([first, second, second], dim=1), 1.0)])
    found, expected = (run(adapted, inputs, motion=m, bias=1.0) for m in (chained, repeated))
    torch.testing.assert_close(found, expected, rtol=0, atol=ATOL)
    swapped = project_motion(adapted, [(first, 2.0), (second, 1.0)])
    assert (found - run(adapted, inputs, motion=swapped, bias=1.0)).abs().max() > 100 * ATOL


def test_order_of_faes_and_of_their_tokens_does_not_matter(golden, inputs, adapted, motion):
    turned = project_motion(adapted, [(golden.fae.tokens.flip(1), 1.0)])
    found = run(adapted, inputs, motion=turned, bias=1.0)
    torch.testing.assert_close(found, run(adapted, inputs, motion=motion, bias=1.0), rtol=0, atol=ATOL)


def test_motion_tokens_depend_on_neither_timestep_nor_video(inputs, adapted, motion):
    later = dict(inputs, timestep=inputs["timestep"].flip(0), hidden_states=inputs["hidden_states"].flip(0))
    later["encoder_hidden_states"] = inputs["encoder_hidden_states"].flip(0)
    found = run(adapted, later, motion=motion, bias=1.0)
    torch.testing.assert_close(found.flip(0), run(adapted, inputs, motion=motion, bias=1.0), rtol=0, atol=ATOL)


def test_each_layer_reads_its_own_tokens(golden, inputs, adapted, motion):
    swapped = [motion[-1], *motion[1:-1], motion[0]]
    found = run(adapted, inputs, motion=swapped, bias=1.0)
    assert (found - inputs["out_fae_w0.7_rw1.0"]).abs().max() > 100 * ATOL


def test_lora_acts_on_motion_tokens_too(golden, inputs, adapted):
    bare = project_motion(with_motion_attention(golden.transformer), [(golden.fae.tokens, 1.0)])
    found = run(adapted, inputs, motion=bare, bias=1.0)
    assert (found - inputs["out_fae_w0.7_rw1.0"]).abs().max() > 100 * ATOL


def test_the_base_never_notices(golden, inputs):
    base = golden.transformer
    keys, processors = list(base.state_dict()), [type(p) for p in base.attn_processors.values()]
    before, flags = run(base, inputs), [p.requires_grad for p in base.parameters()]
    twin = with_motion_attention(base)
    run(twin, inputs, motion=project_motion(twin, [(golden.fae.tokens, 1.0)]), bias=1.0)
    assert list(base.state_dict()) == keys == list(twin.state_dict())
    assert [type(p) for p in base.attn_processors.values()] == processors
    assert not any(isinstance(p, MotionAttention) for p in base.attn_processors.values())
    assert [p.requires_grad for p in base.parameters()] == flags
    assert torch.equal(run(base, inputs), before)
    pairs = zip(base.state_dict().values(), twin.state_dict().values(), strict=True)
    assert all(ours.data_ptr() == theirs.data_ptr() for ours, theirs in pairs)


def test_motion_arrives_as_named_arguments_of_a_timestep(motion):
    kwargs_at = motion_kwargs(motion, MotionBias(0.5))
    assert kwargs_at(999) == {"motion": motion, "bias": 0.5}
    assert kwargs_at(0) == {"motion": motion, "bias": 0.0}
    assert set(kwargs_at(0)) <= set(inspect.signature(MotionAttention.__call__).parameters)


@pytest.mark.parametrize("bias", [0.0, 1.0])
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_motion_share_is_what_the_softmax_gives_to_motion_tokens(inputs, golden, adapted, layer_calls, bias, strength):
    with torch.no_grad():
        motion = project_motion(adapted, [(golden.fae.tokens, strength)])
    shares = {}
    plain = run(adapted, inputs, motion=motion, bias=bias)
    asked = run(adapted, inputs, motion=motion, bias=bias, on_share=shares.__setitem__)
    assert torch.equal(asked, plain)
    assert sorted(shares) == list(range(len(motion)))
    for layer, ((query, key, _, num_text, tokens, *_), _) in enumerate(layer_calls[: len(motion)]):
        keys = torch.cat([key, tokens.key.expand(len(key), -1, -1, -1)], dim=2)
        logits = query @ keys.mT / math.sqrt(query.shape[-1])
        logits[..., key.shape[2] :] += bias + math.log(strength)
        given = logits.softmax(-1)[-1, :, num_text:, key.shape[2] :].sum(-1)
        step = max(1, given.shape[1] // SHARE_ROWS)
        assert abs(given[:, ::step].mean() - shares[layer]) <= 1e-6

"""What attention with motion tokens holds in memory."""

import copy

import pytest
import torch
import torch.nn.functional as F

from flexiact_core.cogvideox.model import rotary_positions
from flexiact_core.flexiact.processor import project_motion, with_motion_attention

SIZES = (1024, 2048, 4096, 8192)


@pytest.fixture(scope="module")
def inputs(golden):
    return golden.tensors("forward")


def forward(transformer, inputs, **attention_kwargs):
    return transformer(
        inputs["hidden_states"],
        inputs["encoder_hidden_states"],
        inputs["timestep"],
        image_rotary_emb=(inputs["rope_cos"], inputs["rope_sin"]),
        attention_kwargs=attention_kwargs or None,
        return_dict=False,
    )[0]


@pytest.fixture(scope="module")
def adapted(golden):
    return with_motion_attention(golden.adapted(0.7))


def peak_bytes(work) -> int:
    """The most memory held at one moment, as the allocator reports it, kernels' own workspaces included."""
    from torch.profiler import ProfilerActivity, profile

    work()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        work()
    changes = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    assert peak > 0, "the profiler saw no allocation"
    return peak


def bytes_per_token(attention, sizes):
    return [peak_bytes(attention(size)) / size for size in sizes]


def grows_linearly(per_token) -> bool:
    # Kernels' workspaces of a fixed size let the small sizes stand above the line.
    return max(per_token) < 1.25 * per_token[0]


def one_layer(golden, attention_of, num_video, dtype=torch.float32):
    """One attention call over num_video video tokens, with the golden layer's sizes and motion tokens."""
    from flexiact_core.flexiact.motion import LayerMotion

    config = golden.config
    heads, width, num_text = config["num_attention_heads"], config["attention_head_dim"], config["max_text_seq_length"]
    num_motion = golden.fae.tokens.shape[1]
    own = [torch.randn(1, heads, num_text + num_video, width, dtype=dtype) for _ in range(3)]
    layer = LayerMotion(*(torch.randn(1, heads, num_motion, width, dtype=dtype) for _ in range(2)), None)

    def call():
        with torch.no_grad():
            attention_of(*own, num_text, layer, 1.0)

    return call


def dense_mask_attention(query, key, value, num_text, layer, bias):
    key, value = torch.cat([key, layer.key], dim=2), torch.cat([value, layer.value], dim=2)
    mask = torch.zeros(query.shape[2], key.shape[2], dtype=query.dtype)
    mask[num_text:, -layer.key.shape[2] :] = bias
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_memory_of_attention_with_bias_grows_linearly_with_video_tokens(golden, dtype):
    from flexiact_core.flexiact.motion import attend_with_motion

    per_token = bytes_per_token(lambda size: one_layer(golden, attend_with_motion, size, dtype), SIZES)
    assert grows_linearly(per_token), per_token


def test_memory_of_a_dense_mask_would_be_caught(golden):
    per_token = bytes_per_token(lambda size: one_layer(golden, dense_mask_attention, size), SIZES[:3])
    assert not grows_linearly(per_token), per_token


def test_memory_of_training_with_motion_tokens_grows_linearly(golden, adapted):
    attn = adapted.transformer_blocks[0].attn1
    tokens = golden.fae.tokens.clone().requires_grad_()
    text = torch.randn(1, golden.config["max_text_seq_length"], attn.query_dim)

    def attention(size):
        video = torch.randn(1, size, attn.query_dim)

        def call():
            layers = project_motion(adapted, [(tokens, 1.0)])
            out, _ = attn.processor(attn, video, text, motion=layers, bias=1.0)
            out.square().sum().backward()

        return call

    per_token = bytes_per_token(attention, SIZES[:-1])
    assert grows_linearly(per_token), per_token


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_the_gradient_of_motion_tokens_keeps_no_other_alive(golden, inputs, adapted, bias):
    """It waits for the end of the backward pass, in every layer: as a view of the gradient of all keys it would hold
    one long video per layer."""
    layers = project_motion(adapted, [(golden.fae.tokens.clone().requires_grad_(), 1.0)])
    waiting = []
    for layer in layers:
        for projected in (layer.key, layer.value):
            projected.register_hook(waiting.append)
    one = {name: inputs[name][:1] for name in ("hidden_states", "encoder_hidden_states", "timestep")}
    forward(adapted, {**inputs, **one}, motion=layers, bias=bias).sum().backward()
    assert len(waiting) == 2 * len(layers)
    assert all(gradient.untyped_storage().nbytes() == gradient.nbytes for gradient in waiting)


@pytest.mark.parametrize("num_latent_frames", [13, 3])
def test_the_released_sizes_run_as_they_are(released_transformer, num_latent_frames):
    from flexiact_core.cogvideox.model import for_num_latent_frames
    from flexiact_core.flexiact.fae import FAE, check_fae
    from flexiact_core.flexiact.refadapter import RefAdapter, refadapter_shapes, with_refadapters

    meta, dtype = torch.device("meta"), torch.bfloat16
    matrices = {
        key: torch.empty(shape, device=meta, dtype=dtype) for key, shape in refadapter_shapes(42, 64, 3072).items()
    }
    fae = FAE(torch.empty(42, 226, 3072, device=meta, dtype=dtype))
    check_fae(fae, released_transformer)
    base = copy.deepcopy(released_transformer).to(dtype).eval()
    adapter = RefAdapter(matrices, 42, 64, 3072)
    transformer = with_motion_attention(with_refadapters(base, [(adapter, 0.7)], meta, dtype))
    motion = project_motion(transformer, [(fae.tokens, 1.0)])
    assert len(motion) == 42 and motion[0].key.shape == motion[0].value.shape == (1, 48, 226, 64)
    latents = torch.empty(2, num_latent_frames, 32, 60, 90, device=meta, dtype=dtype)
    rotary = rotary_positions(base.config, num_latent_frames, 60, 90)
    with torch.no_grad():
        out = for_num_latent_frames(transformer, num_latent_frames)(
            latents,
            torch.empty(2, 226, 4096, device=meta, dtype=dtype),
            torch.full((2,), 999, device=meta),
            image_rotary_emb=tuple(table.to(meta) for table in rotary),
            attention_kwargs={"motion": motion, "bias": 1.0},
            return_dict=False,
        )[0]
    assert out.shape == (2, num_latent_frames, 16, 60, 90)

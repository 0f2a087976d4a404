"""The pose stream against recorded numbers, on stock diffusers blocks."""

import pytest
import torch
from dynamictrl_golden import facts, part, tensors

from flexiact_core.cogvideox.pose_norms import add_pose_norms, has_pose_norms
from flexiact_core.cogvideox.processor import with_video_attention
from flexiact_core.dynamictrl.pose_norm import (
    PoseStream,
    check_takes_poses,
    norm_pose,
    pose_kwargs,
    pose_tokens,
    steps_between,
    time_embedding,
)
from flexiact_core.errors import FileError, SettingError

CLOSE = {"atol": 1e-5, "rtol": 0}


def recorded_transformer(name: str = "transformer", prefix: str = "sd."):
    """diffusers' own transformer with the recorded weights, loaded strict."""
    from diffusers import CogVideoXTransformer3DModel

    transformer = CogVideoXTransformer3DModel(**facts(name)["config"])
    add_pose_norms(transformer)
    transformer.load_state_dict(part(name, prefix), strict=True, assign=True)
    return transformer.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def transformer():
    return recorded_transformer()


@pytest.fixture(scope="module")
def recorded():
    return tensors("transformer")


def run(transformer, recorded, pose=None, batch=None):
    rows = slice(batch)
    kwargs = {} if pose is None else {"attention_kwargs": {"pose": pose}}
    return transformer(
        hidden_states=recorded["in.hidden_states"][rows],
        encoder_hidden_states=recorded["in.encoder_hidden_states"][rows],
        timestep=recorded["in.timestep"][rows],
        ofs=recorded["in.ofs"],
        image_rotary_emb=(recorded["in.rope_cos"], recorded["in.rope_sin"]),
        return_dict=False,
        **kwargs,
    )[0]


def stream(transformer, recorded, strength=1.0, rows=slice(None)) -> PoseStream:
    tokens = pose_tokens(transformer, recorded["in.control_hidden_states"][rows])
    temb = time_embedding(transformer, recorded["in.timestep"][rows], float(recorded["in.ofs"][0]), torch.float32)
    return PoseStream(transformer.transformer_blocks, tokens, temb, strength)


def test_tokens_and_time_are_the_recorded_ones(transformer, recorded):
    poses = stream(transformer, recorded)
    torch.testing.assert_close(poses.temb, recorded["out.temb"], **CLOSE)
    text = recorded["in.encoder_hidden_states"].shape[1]
    torch.testing.assert_close(poses.tokens, recorded["out.patch_embed_control"][:, text:], **CLOSE)


def test_the_video_with_poses_is_the_recorded_one(transformer, recorded):
    twin = with_video_attention(transformer)
    seen = {}
    for layer, block in enumerate(twin.transformer_blocks):
        block.register_forward_hook(lambda module, args, out, layer=layer: seen.update({layer: out}))
    output = run(twin, recorded, stream(transformer, recorded))
    for layer, (video, text) in seen.items():
        torch.testing.assert_close(video, recorded[f"out.block{layer}.hidden"], **CLOSE)
        torch.testing.assert_close(text, recorded[f"out.block{layer}.text"], **CLOSE)
    assert len(seen) == transformer.config.num_layers
    torch.testing.assert_close(output, recorded["out.output"], **CLOSE)
    # Without the poses it is another video.
    assert (run(twin, recorded) - recorded["out.output"]).abs().max() > 0.05


def test_the_stream_goes_on_as_recorded(transformer, recorded):
    """What a block hands on is its added tokens times one plus the gate."""
    poses = stream(transformer, recorded)
    for layer in range(transformer.config.num_layers):
        handed_on = poses.at(layer) * (1 + poses.gate)
        torch.testing.assert_close(handed_on, recorded[f"out.block{layer}.control"], **CLOSE)


def test_a_pose_norm_alone_is_the_recorded_one():
    recorded, weights = tensors("block"), part("block", "sd.")
    from diffusers import CogVideoXTransformer3DModel

    config = facts("block")["config"]
    block = CogVideoXTransformer3DModel(**config | {"num_layers": 1})
    add_pose_norms(block)
    block = block.transformer_blocks[0]
    block.load_state_dict(weights, strict=True, assign=True)
    added, gate = norm_pose(block.control_norm1, recorded["in.ln.control_in"], recorded["in.ln.temb"])
    torch.testing.assert_close(added, recorded["out.ln.norm_out"], **CLOSE)
    torch.testing.assert_close(gate, recorded["out.ln.gate_out"], **CLOSE)


def test_a_hook_on_the_first_norm_gives_the_same(transformer, recorded):
    """A second formulation: the poses added to what the block's own norm gives, not in attention."""
    hooked, poses = with_video_attention(transformer), stream(transformer, recorded)
    for layer, block in enumerate(hooked.transformer_blocks):
        block.norm1 = _copy_with_hook(block.norm1, lambda m, a, out, i=layer: (out[0] + poses.at(i), *out[1:]))
    torch.testing.assert_close(run(hooked, recorded), recorded["out.output"], **CLOSE)


def _copy_with_hook(module, hook):
    from flexiact_core.modules import share_weights

    twin = share_weights(module)
    twin.register_forward_hook(hook)
    return twin


def test_each_sample_has_its_own_timestep(transformer, recorded):
    """The recorded batch may have one timestep twice: here they differ, against each sample by itself."""
    mixed = dict(recorded)
    count = len(recorded["in.timestep"])
    mixed["in.timestep"] = torch.linspace(900, 80, count).round().long()
    twin = with_video_attention(transformer)
    both = run(twin, mixed, stream(transformer, mixed))
    for sample in range(count):
        rows = slice(sample, sample + 1)
        alone = {key: value[rows] if key in BATCHED else value for key, value in mixed.items()}
        torch.testing.assert_close(both[rows], run(twin, alone, stream(transformer, alone)), **CLOSE)


BATCHED = ("in.hidden_states", "in.encoder_hidden_states", "in.timestep", "in.control_hidden_states")


def test_one_stream_serves_both_halves_of_guidance(transformer, recorded):
    same = dict(recorded)
    count = len(recorded["in.timestep"])
    same["in.control_hidden_states"] = recorded["in.control_hidden_states"][:1].expand(count, -1, -1, -1, -1)
    same["in.timestep"] = recorded["in.timestep"][:1].expand(count)
    twin = with_video_attention(transformer)
    one, two = stream(transformer, same, rows=slice(1)), stream(transformer, same)
    assert len(one.at(0)) == 1 and len(two.at(0)) == count
    torch.testing.assert_close(run(twin, same, one), run(twin, same, two), atol=1e-6, rtol=0)


def test_strength_scales_what_is_added_and_not_the_stream(transformer, recorded):
    full, half = stream(transformer, recorded), stream(transformer, recorded, 0.5)
    for layer in range(transformer.config.num_layers):
        torch.testing.assert_close(half.at(layer), 0.5 * full.at(layer))


def test_layers_in_another_order_are_the_same_and_one_is_held(transformer, recorded):
    in_order, jumping = stream(transformer, recorded), stream(transformer, recorded)
    expected = [in_order.at(layer).clone() for layer in range(transformer.config.num_layers)]
    last = len(expected) - 1
    for layer in (last, 0, 0, last // 2, last):
        torch.testing.assert_close(jumping.at(layer), expected[layer])
    held = [value for value in vars(jumping).values() if torch.is_tensor(value) and value.ndim == 3]
    tokens = jumping.tokens[..., 0].numel()
    assert sum(value[..., 0].numel() for value in held) <= 2 * tokens + len(jumping.temb)


def test_named_arguments_for_each_timestep(transformer, recorded):
    tokens = pose_tokens(transformer, recorded["in.control_hidden_states"][:1])
    at = pose_kwargs(transformer, tokens, 2.0, strength=0.7, active={719, 80})
    assert at(719)["pose"].strength == 0.7 and at(500) == {}
    assert pose_kwargs(transformer, tokens, 2.0, strength=0)(719) == {}
    expected = time_embedding(transformer, torch.tensor([80]), 2.0, torch.float32)
    torch.testing.assert_close(at(80)["pose"].temb, expected)
    assert not torch.equal(at(719)["pose"].temb, expected)


def test_strengths_and_percentages_that_cannot_be_are_refused(transformer):
    for strength in (-0.1, 2.1):
        with pytest.raises(SettingError, match="between 0 and 2"):
            pose_kwargs(transformer, torch.zeros(1, 2, 2), 2.0, strength)
    for start, end in ((50, 50), (60, 40), (-1, 50), (0, 101)):
        with pytest.raises(SettingError, match="the start before the end"):
            steps_between([999, 500], start, end)


def test_steps_are_chosen_by_percent():
    timesteps = [999, 749, 499, 249]
    assert steps_between(timesteps, 0, 100) == set(timesteps)
    assert steps_between(timesteps, 25, 75) == {749, 499}
    assert steps_between(timesteps, 0, 1) == {999}


def test_a_plain_base_is_refused_by_name_of_what_to_load(transformer):
    from diffusers import CogVideoXTransformer3DModel

    check_takes_poses(transformer)
    plain = CogVideoXTransformer3DModel(**facts("transformer")["config"])
    assert has_pose_norms(transformer.state_dict()) and not has_pose_norms(plain.state_dict())
    with pytest.raises(FileError, match="gulucaptain/DynamiCtrl"):
        check_takes_poses(plain)

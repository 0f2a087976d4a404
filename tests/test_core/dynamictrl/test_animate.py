"""Whole runs against the recorded pipeline, and what it does not tell apart."""

import os

import pytest
import torch
from dynamictrl_golden import facts, part, tensors
from small_models_1_5 import make_base_1_5

from flexiact_core.cogvideox.acceleration import Acceleration
from flexiact_core.cogvideox.loading import load_base
from flexiact_core.cogvideox.model import CogVideoXI2V, Posterior, base_signature, encode_pixels, rotary_positions
from flexiact_core.cogvideox.predict import make_predict
from flexiact_core.cogvideox.processor import with_video_attention
from flexiact_core.cogvideox.sampling import Run, make_scheduler
from flexiact_core.dynamictrl.animate import PoseControl, animate_picture, scale_of_image
from flexiact_core.dynamictrl.frames import plan_frames
from flexiact_core.dynamictrl.pose_norm import PoseStream, pose_tokens, time_embedding
from flexiact_core.errors import FileError, SettingError, ShapeError

CPU = torch.device("cpu")
SHEET = facts("pipeline")
RUNS = SHEET["runs"]
AS_RELEASED = PoseControl()
CLOSE = {"atol": 1e-5, "rtol": 0}
# Over all steps; a set of longer runs adds up more rounding.
END_TO_END = {"atol": 1e-4 if "DYNAMICTRL_GOLDEN" in os.environ else 2e-5, "rtol": 0}


def recorded_base(invert_scale: bool, scheduler: dict | None = None) -> CogVideoXI2V:
    """A base of the recorded transformer and VAE; text comes recorded."""
    from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel

    from flexiact_core.cogvideox.pose_norms import add_pose_norms

    transformer = CogVideoXTransformer3DModel(**SHEET["config"])
    add_pose_norms(transformer)
    transformer.load_state_dict(part("transformer", "sd."), strict=True, assign=True)
    vae = AutoencoderKLCogVideoX(**SHEET["vae"] | {"invert_scale_latents": invert_scale})
    vae.load_state_dict(part("pipeline", "sd.vae."), strict=True, assign=True)
    scheduler = scheduler or SHEET["scheduler"]
    return CogVideoXI2V(transformer.eval().requires_grad_(False), vae.eval(), None, None, scheduler, torch.float32)


def base_of(tag: str) -> CogVideoXI2V:
    own = RUNS[tag].get("scheduler")
    return recorded_base(RUNS[tag]["invert_scale_latents"], own if isinstance(own, dict) else None)


def scheduler_of(tag: str) -> str:
    return "DDIM" if "DDIM" in str(RUNS[tag].get("scheduler", "")) else "DPM"


def posteriors(base, recorded, tag):
    videos = [value for key, value in recorded.items() if key.startswith("in.pose")]
    poses = next(video for video in videos if video.shape[1] == RUNS[tag]["pose_frames"])
    image = recorded["in.image"][:, :, None] * 2 - 1
    return encode_pixels(base.vae, image, CPU), encode_pixels(base.vae, poses.transpose(1, 2), CPU)


@pytest.fixture
def recorded_noise(monkeypatch):
    """Makes the next random draws those of a recorded run, in its order."""

    def play(tag):
        draws = part("pipeline", f"rand.{tag}.")
        # The VAE's noise, the first two, is recorded in its own layout, channels before frames.
        queue = [draws[str(index)].transpose(1, 2) if index < 2 else draws[str(index)] for index in range(len(draws))]
        first, queue = queue[:3], queue[3:]
        # The release draws for all pictures at once, we for one after the other: picture, poses, noise of each.
        rows = [each[row : row + 1] for row in range(len(first[2])) for each in first]

        def draw_row(shape, *args, **kwargs):
            noise = rows.pop(0)
            assert noise.shape == torch.Size(shape)
            return noise

        def draw(shape, *args, **kwargs):
            noise = queue.pop(0)
            assert noise.shape == torch.Size(shape)
            return noise

        monkeypatch.setattr(torch, "randn", draw_row)
        monkeypatch.setattr("diffusers.schedulers.scheduling_dpm_cogvideox.randn_tensor", draw)
        return rows, queue

    return play


@pytest.mark.parametrize("tag", RUNS)
def test_a_run_is_the_recorded_one(tag, recorded_noise, monkeypatch):
    facts_of_run, recorded = RUNS[tag], tensors("pipeline")
    base = base_of(tag)
    image, poses = posteriors(base, recorded, tag)
    calls = []
    forward = type(base.transformer).forward

    def watched(self, **inputs):
        out = forward(self, **inputs)
        calls.append((inputs["hidden_states"], out[0]))
        return out

    monkeypatch.setattr(type(base.transformer), "forward", watched)
    left = recorded_noise(tag)
    run = Run(
        facts_of_run["num_frames"], CPU, facts_of_run["num_inference_steps"], facts_of_run["guidance_scale"],
        scheduler_of(tag),
    )  # fmt: skip
    latents = animate_picture(base, image, poses, recorded["in.text"], recorded["in.neg"], run)
    assert left == ([], []) and latents.shape[1] == facts_of_run["latent_frames"]
    assert len(calls) == facts_of_run["num_inference_steps"]
    for number, (given, velocity) in enumerate(calls):
        torch.testing.assert_close(given, recorded[f"out.{tag}.call{number}.in"], **END_TO_END)
        torch.testing.assert_close(velocity, recorded[f"out.{tag}.call{number}.v"], **END_TO_END)
    expected = recorded[f"out.{tag}.latents"]
    torch.testing.assert_close(latents, expected.reshape(latents.shape), **END_TO_END)


@pytest.mark.parametrize("tag", RUNS)
def test_pose_latents_and_timesteps_are_the_recorded_ones(tag):
    recorded, base = tensors("pipeline"), base_of(tag)
    noise = part("pipeline", f"rand.{tag}.")["1"].transpose(1, 2)
    poses = posteriors(base, recorded, tag)[1]
    latents = (poses.mean + poses.std * noise) * base.vae.config.scaling_factor
    # Recorded for each half of guidance.
    for half in recorded[f"out.{tag}.control_latents"].split(len(latents)):
        torch.testing.assert_close(latents, half, **CLOSE)
    scheduler = make_scheduler(base.scheduler_config, scheduler_of(tag))
    scheduler.set_timesteps(RUNS[tag]["num_inference_steps"])
    assert torch.equal(scheduler.timesteps, recorded[f"out.{tag}.timesteps"])


def test_training_steps_are_the_recorded_ones():
    """Noisy latents, velocity, clean latents and the weighted loss, one timestep a sample."""
    recorded, base, given = tensors("pipeline"), recorded_base(False), part("pipeline", "train.in.")
    scheduler = make_scheduler(base.scheduler_config, "DPM")
    torch.testing.assert_close(scheduler.alphas_cumprod.float(), recorded["train.out.alphas_cumprod"], **CLOSE)
    tokens = pose_tokens(base.transformer, given["ctl"])
    temb = time_embedding(base.transformer, given["t"], base.family.ofs, torch.float32)
    stream = PoseStream(base.transformer.transformer_blocks, tokens, temb)
    predict = make_predict(with_video_attention(base.transformer), given["x0"].shape, CPU)
    noisy = scheduler.add_noise(given["x0"], given["noise"], given["t"])
    velocity = predict(noisy, given["img"], given["text"], given["t"], {"pose": stream})
    clean = scheduler.get_velocity(velocity, noisy, given["t"])
    loss = (clean - given["x0"]).square().flatten(1).mean(1) / (1 - scheduler.alphas_cumprod[given["t"]])
    for name, value in {"noisy": noisy, "v": velocity, "pred_x0": clean, "loss_per_sample": loss.float()}.items():
        torch.testing.assert_close(value, recorded[f"train.out.{name}"], **CLOSE)
    torch.testing.assert_close(loss.mean().float(), recorded["train.out.loss"], **CLOSE)


@pytest.mark.parametrize("name", ["transformer", "block"])
def test_rotary_positions_are_the_recorded_ones(name):
    recorded = tensors(name)
    config = recorded_base(False).transformer.config
    shape = tensors("transformer")["in.hidden_states"].shape
    cos, sin = rotary_positions(config, shape[1], *shape[-2:])
    torch.testing.assert_close(cos, recorded["in.rope_cos"], atol=1e-6, rtol=0)
    torch.testing.assert_close(sin, recorded["in.rope_sin"], atol=1e-6, rtol=0)


def test_rotary_positions_know_rows_from_columns():
    """Grids wider than high and higher than wide, worked out by hand: the patches' own numbers, frame, row, column."""
    config = recorded_base(False).transformer.config
    for rows, columns in ((2, 5), (5, 2), (9, 3)):
        cos, sin = rotary_positions(config, 4, 2 * rows, 2 * columns)
        head = config.attention_head_dim
        assert cos.shape == (2 * rows * columns, head)
        for frame, row, column in ((0, 0, columns - 1), (1, rows - 1, 0), (1, 1, 1)):
            token = (frame * rows + row) * columns + column
            # Channel 0 of each part turns by its place itself.
            first = {0: frame, head // 4: row, head // 4 + head // 8 * 3: column}
            for channel, place in first.items():
                torch.testing.assert_close(cos[token, channel], torch.tensor(float(place)).cos())
                torch.testing.assert_close(sin[token, channel], torch.tensor(float(place)).sin())


@pytest.fixture(scope="module")
def dynamictrl(tmp_path_factory):
    folder = make_base_1_5(tmp_path_factory.mktemp("animate") / "DynamiCtrl", poses=True)
    return load_base(folder, folder, torch.float32)


@pytest.fixture(scope="module")
def inputs(dynamictrl):
    """Posteriors of a picture and of 13 poses, and embeddings."""
    generator = torch.Generator().manual_seed(5)
    picture = torch.rand(1, 3, 1, 32, 48, generator=generator) * 2 - 1
    drawn = torch.rand(1, 3, 13, 32, 48, generator=generator) * 2 - 1
    embeds = torch.randn(2, 1, 8, 32, generator=generator)
    vae = dynamictrl.vae
    return encode_pixels(vae, picture, CPU), encode_pixels(vae, drawn, CPU), embeds[0], embeds[1]


def animate(base, inputs, control=AS_RELEASED, conditioned=None, **run):
    return animate_picture(base, *inputs, Run(13, CPU, **{"steps": 2, "cfg": 3.0} | run), control, conditioned)


def test_a_seed_gives_the_same_and_another_another(dynamictrl, inputs):
    first = animate(dynamictrl, inputs, seed=1)
    assert torch.equal(animate(dynamictrl, inputs, seed=1), first)
    assert not torch.allclose(animate(dynamictrl, inputs, seed=2), first, atol=1e-2)


def test_poses_strength_and_their_steps_change_the_video(dynamictrl, inputs):
    image, poses, *embeds = inputs
    still = Posterior(poses.mean[:, :1].expand_as(poses.mean), poses.std)
    full = animate(dynamictrl, inputs)
    others = [
        animate(dynamictrl, (image, still, *embeds)),
        animate(dynamictrl, inputs, PoseControl(strength=0.5)),
        animate(dynamictrl, inputs, PoseControl(strength=0)),
        animate(dynamictrl, inputs, PoseControl(end=50)),
        animate(dynamictrl, inputs, PoseControl(start=50)),
        animate(dynamictrl, inputs, PoseControl(image_scale="training")),
    ]
    for index, one in enumerate(others):
        for other in [full, *others[:index]]:
            assert (one - other).abs().max() > 1e-4


def test_before_the_start_poses_add_nothing(dynamictrl, inputs):
    """The first of two steps is then a step without any."""
    seen = {}

    def watch(name):
        return lambda index, clean: seen.setdefault((name, index), clean)

    animate(dynamictrl, inputs, PoseControl(start=50), on_step=watch("late"))
    animate(dynamictrl, inputs, PoseControl(strength=0), on_step=watch("none"))
    animate(dynamictrl, inputs, on_step=watch("all"))
    assert torch.equal(seen["late", 0], seen["none", 0]) and not torch.equal(seen["late", 1], seen["none", 1])
    assert not torch.equal(seen["all", 0], seen["none", 0])


def test_a_batch_gives_each_picture_what_it_gets_alone(dynamictrl, inputs):
    image, poses, prompt, negative = inputs
    other = Posterior(image.mean.flip(-1), image.std)
    both = Posterior(torch.cat([image.mean, other.mean]), torch.cat([image.std, other.std]))
    pair = animate(dynamictrl, (both, poses, prompt.expand(2, -1, -1), negative.expand(2, -1, -1)), seed=(3, 4))
    torch.testing.assert_close(pair[:1], animate(dynamictrl, inputs, seed=3), atol=1e-4, rtol=0)
    torch.testing.assert_close(pair[1:], animate(dynamictrl, (other, *inputs[1:]), seed=4), atol=1e-4, rtol=0)


def test_an_action_and_poses_act_together(dynamictrl, inputs):
    from flexiact_core.flexiact.fae import FAE
    from flexiact_core.flexiact.transfer import condition_on_actions

    config = dynamictrl.transformer.config
    tokens = torch.randn(config.num_layers, 6, 32, generator=torch.Generator().manual_seed(8))
    action = FAE(tokens, metadata={"base": base_signature(dynamictrl.transformer)})
    poses_alone = animate(dynamictrl, inputs)
    together = animate(dynamictrl, inputs, conditioned=condition_on_actions(dynamictrl, CPU, faes=[(action, 1.0)]))
    assert (together - poses_alone).abs().max() > 1e-3
    action_alone = animate(
        dynamictrl, inputs, PoseControl(strength=0), condition_on_actions(dynamictrl, CPU, faes=[(action, 1.0)])
    )
    assert (together - action_alone).abs().max() > 1e-3
    # An action of no strength, and the processor that could take one, change nothing.
    nothing = condition_on_actions(dynamictrl, CPU, faes=[(action, 0.0)])
    torch.testing.assert_close(animate(dynamictrl, inputs, conditioned=nothing), poses_alone, atol=1e-6, rtol=0)


def test_a_base_is_left_as_it_is_and_stops_where_it_is_told(dynamictrl, inputs):
    processors = [type(block.attn1.processor) for block in dynamictrl.transformer.transformer_blocks]

    def stop(index, clean):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        animate(dynamictrl, inputs, on_step=stop)
    assert [type(block.attn1.processor) for block in dynamictrl.transformer.transformer_blocks] == processors
    assert torch.isfinite(animate(dynamictrl, inputs)).all()


def test_step_caches_run_with_poses(dynamictrl, inputs):
    """A threshold of 0 and an interval of 1 reuse nothing: they are exact."""
    exact = animate(dynamictrl, inputs, steps=4)
    for acceleration in (Acceleration("first_block", threshold=0.0), Acceleration("taylor", interval=1)):
        accelerated = animate(dynamictrl, inputs, steps=4, acceleration=acceleration)
        torch.testing.assert_close(accelerated, exact, atol=1e-4, rtol=0)
    reused = animate(dynamictrl, inputs, steps=6, acceleration=Acceleration("taylor", interval=3))
    assert torch.isfinite(reused).all()


def test_compiled_blocks_give_the_same_and_are_compiled_once(dynamictrl, inputs):
    """What the poses add is another tensor in each layer and step, and no reason to compile anew."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compile_block = torch.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda forward: compile_block(forward, backend=counter))
        compiled = animate(dynamictrl, inputs, steps=3, acceleration=Acceleration(compiled=True))
        after_three = counter.frame_count
        torch._dynamo.reset()
        counter.frame_count = 0
        animate(dynamictrl, inputs, steps=1, acceleration=Acceleration(compiled=True))
    torch._dynamo.reset()
    assert counter.frame_count == after_three > 0
    torch.testing.assert_close(compiled, animate(dynamictrl, inputs, steps=3), atol=1e-4, rtol=0)


def test_the_scale_of_the_picture():
    inverted, plain = recorded_base(True).vae, recorded_base(False).vae
    scale = plain.config.scaling_factor
    assert scale_of_image(inverted, "release") == 1 and scale_of_image(plain, "release") == scale
    assert scale_of_image(inverted, "training") == scale_of_image(plain, "training") == scale


def test_a_vae_config_without_the_inversion_is_not_inverted(tmp_path):
    folder = make_base_1_5(tmp_path / "old", poses=True, invert_scale=None)
    loaded = load_base(folder, folder, torch.float32)
    assert scale_of_image(loaded.vae, "release") == loaded.vae.config.scaling_factor


def test_what_cannot_be_animated_is_refused(dynamictrl, inputs, base):
    image, poses, *embeds = inputs
    with pytest.raises(FileError, match="plain CogVideoX base.*gulucaptain/DynamiCtrl"):
        animate(base, inputs)
    with pytest.raises(ShapeError, match="do not fit the picture's"):
        animate(dynamictrl, (image, Posterior(poses.mean[..., :4], poses.std[..., :4]), *embeds))
    with pytest.raises(ShapeError, match="3 latent frames; an even number"):
        animate(dynamictrl, (image, Posterior(poses.mean[:, :3], poses.std[:, :3]), *embeds))
    for change in ({"strength": 3}, {"strength": -1}, {"start": 60, "end": 50}, {"image_scale": "half"}):
        with pytest.raises(SettingError):
            PoseControl(**change)


def test_plain_sampling_refuses_a_base_that_was_trained_with_poses(dynamictrl, inputs):
    from flexiact_core.flexiact.transfer import transfer_action

    with pytest.raises(FileError, match="Use Pose Transfer"):
        transfer_action(dynamictrl, inputs[0], *inputs[2:], Run(13, CPU, 1))


def test_the_last_decoded_frames_are_the_clips_own():
    """On the small world's trained VAE: 13 frames come back as 16, and the first three are too many."""
    from flexiact_core.cogvideox.model import decode_latents
    from flexiact_core.video import to_frames, to_model_pixels
    from flexiact_core.world import shipped

    vae = load_base(shipped.base_folder(), shipped.base_folder(), torch.float32).vae
    plan = plan_frames(13)
    for action in ("jump", "slide"):
        clip = torch.from_numpy(shipped.example(action).reference[:13]).float()
        latents = encode_pixels(vae, to_model_pixels(clip), CPU).mean * vae.config.scaling_factor
        decoded = to_frames(decode_latents(vae, latents, CPU))
        assert len(decoded) == 16
        errors = [(kept - clip).square().mean() for kept in (plan.keep_frames(decoded), decoded[:13])]
        assert 10 * torch.log10(errors[1] / errors[0]) >= 5


def test_nothing_is_learned_on_it_without_poses(dynamictrl):
    from flexiact_core.flexiact.fit import fit_fae
    from flexiact_core.training import Course

    with pytest.raises(FileError, match="Train on plain CogVideoX 1.5"):
        fit_fae(dynamictrl.transformer, None, None, Course(1, 0.1, 0, CPU))

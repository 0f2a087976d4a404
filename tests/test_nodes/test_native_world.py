"""The small world on ComfyUI's own MODEL, CLIP and VAE, against our own base, and beside ComfyUI's own nodes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flexiact_core.flexiact.bias import MotionBias
from flexiact_core.world import measure, shipped

STEPS, CPU = 8, torch.device("cpu")


@pytest.fixture(scope="module")
def world():
    """A base of both kinds, and the inputs of one run of 17 frames."""
    import comfy.model_management
    from flexiact_pack.nodes.native_loading import condition_on_picture, load_native

    from flexiact_core.cogvideox.loading import load_base
    from flexiact_core.cogvideox.model import encode_pixels, encode_prompt
    from flexiact_core.cogvideox.sampling import Run, start_latents
    from flexiact_core.flexiact.fae import load_fae
    from flexiact_core.video import to_model_pixels

    torch.set_num_threads(1)
    example, folder = shipped.example("jump"), shipped.base_folder()
    picture = torch.from_numpy(example.image)[None]
    with torch.inference_mode():
        model, clip, vae = load_native(folder, folder, {"text_encoder": None, "vae": None}, "as stored")
        base = load_base(folder, folder, torch.float32)
        texts = (example.caption, "")
        embeds = [encode_prompt(base.text_encoder, base.tokenizer, text, 16, CPU) for text in texts]
        prompts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts]
        posterior = encode_pixels(base.vae, to_model_pixels(picture), CPU)
        run = Run(17, CPU, STEPS, 1.0, "DDIM", 7)
        noise, condition, _ = start_latents(base, posterior, run)
        positive, negative, _ = condition_on_picture(*prompts, vae, picture, (64, 64, 17), 7)
    yield SimpleNamespace(
        model=model, clip=clip, vae=vae, base=base, embeds=embeds, prompts=prompts, posterior=posterior, run=run,
        noise=noise, condition=condition, positive=positive, negative=negative, scene=example.target,
        faes=((load_fae(shipped.fae_path("jump")), 1.0),), scale=base.vae.config.scaling_factor,
    )  # fmt: skip
    comfy.model_management.unload_all_models()


def run(world, model, noise=None, sampler=None):
    """Latents (1, C, L, h, w) as ComfyUI has them."""
    import comfy.sample
    from flexiact_pack.nodes.native_sampling import sampler_class, trailing_sigmas

    noise = (world.noise if noise is None else noise).movedim(1, 2)
    sigmas = trailing_sigmas(model.get_model_object("model_sampling"), STEPS)
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model, noise, 1.0, sampler or sampler_class()("DDIM"), sigmas, world.positive, world.negative,
            torch.zeros_like(noise), disable_pbar=True, seed=7,
        )  # fmt: skip


def acting(world, model=None):
    from flexiact_pack.nodes.native_action import with_action

    return with_action(model or world.model, world.faes, MotionBias())


def test_prompts_and_pictures_are_read_as_our_own_base_reads_them(world):
    for own, (given, _) in zip(world.embeds, (prompt[0] for prompt in world.prompts), strict=True):
        torch.testing.assert_close(given, own, rtol=0, atol=5e-6)
    latent = world.positive[0][1]["concat_latent_image"].movedim(1, 2) * world.scale
    torch.testing.assert_close(latent, world.condition[:, :1], rtol=0, atol=1e-5)


def test_a_prompt_that_is_too_long_keeps_its_end():
    from flexiact_pack.nodes.native_loading import cut_text

    embeds = torch.arange(300.0)[None, :, None]
    cut = cut_text([[embeds, {}]], 226)[0][0]
    assert cut.flatten().tolist() == [*range(225), 299]


def test_the_video_and_its_slope_are_those_of_our_own_sampler(world):
    import comfy.samplers

    from flexiact_core.cogvideox.model import decode_latents
    from flexiact_core.flexiact.transfer import transfer_action
    from flexiact_core.video import to_frames

    own = transfer_action(world.base, world.posterior, *world.embeds, world.run, faes=world.faes, bias=MotionBias())
    found = run(world, acting(world))
    torch.testing.assert_close(found.movedim(1, 2) * world.scale, own, rtol=0, atol=1e-4)
    with torch.inference_mode():
        frames = world.vae.decode(run(world, acting(world), sampler=comfy.samplers.sampler_object("euler")))[0]
        expected = to_frames(decode_latents(world.base.vae, own, CPU))
    # ComfyUI's VAE decodes in other stretches of frames.
    torch.testing.assert_close(frames, expected, rtol=0, atol=8 / 255)
    assert (frames - expected).abs().mean() < 0.3 / 255
    slopes = [measure.measure_action(each.numpy(), world.scene, "jump").slope for each in (frames, expected)]
    assert abs(slopes[0] - slopes[1]) < 0.01 and slopes[1] > 0.8


def test_one_graph_of_lora_action_cache_windows_compiler_and_part_of_the_memory(world):
    import comfy.model_management
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode
    from comfy_extras.nodes_easycache import EasyCacheNode
    from comfy_extras.nodes_torch_compile import TorchCompileModel
    from flexiact_pack.nodes.native import with_lora

    from flexiact_core.cogvideox.loras import load_lora

    lora = load_lora(shipped.refadapter_path())
    noise = torch.randn(1, 9, *world.noise.shape[2:], generator=torch.Generator().manual_seed(3))

    def graph(action="before"):
        model = with_lora(world.model, lora, 0.7)
        model = acting(world, model) if action == "before" else model
        model = EasyCacheNode.execute(model, 0.2, 0.15, 0.95, False).args[0]
        model = acting(world, model) if action == "after" else model
        # Windows of one length: EasyCache compares a window with the one before it.
        return ContextWindowsManualNode.execute(
            model, 5, 2, "standard_static", 1, False, "pyramid", 2, False, "0", causal_window_fix=False
        ).args[0]

    plain = run(world, graph(), noise)
    assert (run(world, graph(None), noise) - plain).abs().max() > 0.1
    torch.testing.assert_close(run(world, graph("after"), noise), plain, rtol=0, atol=1e-3)
    compiled = TorchCompileModel.execute(graph(), "eager").args[0]
    torch.testing.assert_close(run(world, compiled, noise), plain, rtol=0, atol=1e-3)
    comfy.model_management.unload_all_models()
    partly = graph()
    partly.partially_load(CPU, int(0.4 * partly.model_size()))
    assert partly.model.model_lowvram
    torch.testing.assert_close(run(world, partly, noise), plain, rtol=0, atol=1e-3)


def test_samplers_have_colours_for_a_preview(world):
    from latent_preview import Latent2RGBPreviewer

    shown = world.model.model.latent_format
    previewer = Latent2RGBPreviewer(shown.latent_rgb_factors, shown.latent_rgb_factors_bias)
    latent = world.condition[:, :1].movedim(1, 2)
    picture = torch.from_numpy(np.array(previewer.decode_latent_to_preview(latent))) / 255
    mean = torch.from_numpy(shipped.example("jump").image).mean((0, 1))
    assert (picture.mean((0, 1)) - mean).abs().max() < 0.1


def long_video(world, retained: str) -> np.ndarray:
    """65 frames, 17 latent frames in windows of 5 that overlap by 2."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    noise = torch.randn(1, 17, *world.noise.shape[2:], generator=torch.Generator().manual_seed(3))
    windows = ContextWindowsManualNode.execute(
        acting(world), 5, 2, "standard_static", 1, False, "pyramid", 2, False, retained
    ).args[0]
    with torch.inference_mode():
        return world.vae.decode(run(world, windows, noise))[0].numpy()


def test_a_long_video_in_windows_keeps_its_subject_where_each_window_sees_the_picture(world):
    def drifts(frames):
        """How far the subject's colour is from the picture's in each stretch of 13 frames."""
        return [measure.measure_identity(part, world.scene).colour for part in np.split(frames, 5)]

    kept, lost = drifts(long_video(world, "0")), drifts(long_video(world, ""))
    assert max(kept) < 0.1
    assert max(lost) > 0.4


def test_an_action_that_was_just_trained_on_our_base_runs_natively(world, tmp_path):
    from flexiact_pack.nodes.native_action import with_action

    from flexiact_core.cogvideox.encodings import encode_clips
    from flexiact_core.cogvideox.loading import load_base
    from flexiact_core.cogvideox.sampling import make_scheduler
    from flexiact_core.flexiact.fae import FAE, load_fae, save_fae
    from flexiact_core.flexiact.fit import TOKENS, fit_fae
    from flexiact_core.flexiact.transfer import transfer_action
    from flexiact_core.training import Course

    base, reference = world.base, torch.from_numpy(shipped.example("slide").reference)
    clips = encode_clips(base.vae, [reference], *(embeds.clone() for embeds in world.embeds), CPU)
    scheduler = make_scheduler(base.scheduler_config, "DDIM")
    # Of its own: the other was made where nothing can be learned.
    learner = load_base(shipped.base_folder(), shipped.base_folder(), torch.float32).transformer
    state = fit_fae(learner, scheduler, clips, Course(3, 0.05, 0, CPU))
    save_fae(FAE(state.parameters[TOKENS].detach(), "slide"), tmp_path / "slide.safetensors")
    faes = ((load_fae(tmp_path / "slide.safetensors"), 1.0),)
    own = transfer_action(base, world.posterior, *world.embeds, world.run, faes=faes, bias=MotionBias())
    found = run(world, with_action(world.model, faes, MotionBias())).movedim(1, 2) * world.scale
    torch.testing.assert_close(found, own, rtol=0, atol=1e-4)
    assert (found - run(world, world.model).movedim(1, 2) * world.scale).abs().max() > 0.1

"""Small trainings for tests."""

from dataclasses import replace

import torch

from flexiact_core.cogvideox.encodings import TrainingClip
from flexiact_core.cogvideox.model import Posterior
from flexiact_core.flexiact.fit import draw_refadapter_batch, fit_fae, fit_refadapter
from flexiact_core.training import Course

CPU = torch.device("cpu")
GRADIENT_TOLERANCE = 2e-5


def fit(base, scheduler, clips, **settings):
    own = {name: settings.pop(name) for name in ("num_tokens", "debiased") if name in settings}
    course = Course(**{"steps": 4, "learning_rate": 3e-3, "seed": 7, "device": CPU} | settings)
    return fit_fae(base.transformer, scheduler, clips, course, **{"num_tokens": 5} | own)


def clip_of(clips, which):
    posteriors = (Posterior(p.mean[[which]], p.std[[which]]) for p in (clips.video, clips.image))
    return TrainingClip(*posteriors, clips.prompt_embeds, 0.7)


def fit_adapter(base, scheduler, clips, **settings):
    def draw_clip(generator):
        return clip_of(clips, int(torch.randint(2, (), generator=generator)))

    rank = settings.pop("rank", 4)
    course = Course(**{"steps": 2, "learning_rate": 1e-2, "seed": 7, "device": CPU} | settings)
    return fit_refadapter(base.transformer, scheduler, draw_clip, course, rank=rank)


def same_state(first, second):
    return (
        all(torch.equal(first.parameters[key], value) for key, value in second.parameters.items())
        and all(torch.equal(first.moments[key], value) for key, value in second.moments.items())
        and torch.equal(first.generator, second.generator)
        and torch.equal(first.losses, second.losses)
    )


def assert_gradients(found, recorded, prefix):
    expected = {key[len(prefix) :]: value for key, value in recorded.items() if key.startswith(prefix)}
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        error = (found[key].reshape(gradient.shape) - gradient).abs().max()
        assert error <= GRADIENT_TOLERANCE * gradient.abs().max(), key


def refadapter_inputs(recorded):
    inputs = {name: recorded[f"refadapter.{name}"] for name in ("noise", "timesteps", "prompt_embeds")}
    image, video = recorded["refadapter.image_latent"], recorded["refadapter.video_latents"]
    # A clip whose VAE is sure of itself, so that its drawn latents are the recorded ones.
    sure = Posterior(video, torch.zeros_like(video)), Posterior(image, torch.zeros_like(image))
    clips = [
        TrainingClip(*(Posterior(p.mean[i : i + 1], p.std[i : i + 1]) for p in sure), inputs["prompt_embeds"][[i]], 1.0)
        for i in range(len(video))
    ]
    return replace(draw_refadapter_batch(clips, 1000, torch.Generator()), **inputs)

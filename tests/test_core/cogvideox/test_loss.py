import pytest
import torch
from trainings import assert_gradients, refadapter_inputs

from flexiact_core.cogvideox.loss import Batch, denoising_loss
from flexiact_core.cogvideox.sampling import make_scheduler
from flexiact_core.flexiact.fae import TOKEN_KEY
from flexiact_core.flexiact.processor import project_motion, with_motion_attention
from flexiact_core.flexiact.refadapter import learned_matrices

LOSS_RTOL = 1e-6


@pytest.fixture(scope="module")
def recorded(golden):
    return golden.tensors("training")


@pytest.fixture(scope="module")
def golden_scheduler(golden):
    return make_scheduler(golden.schedule["scheduler_config"], "DPM")


def fae_loss(golden, recorded, scheduler, transformer, tokens, **changes):
    inputs = {name: recorded[f"fae.{name}"] for name in ("video_latents", "noise", "timesteps", "prompt_embeds")}
    inputs["image_latents"] = recorded["fae.image_latent"]
    inputs["debias_frames"] = recorded["fae.rand_idx"].expand(len(inputs["timesteps"]))
    return denoising_loss(
        transformer,
        scheduler,
        Batch(**inputs | changes),
        attention_kwargs={"motion": project_motion(transformer, [(tokens, 1.0)])},
    )


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "gradient checkpointing"])
def test_fae_loss_and_every_gradient_are_the_recorded_ones(golden, recorded, golden_scheduler, checkpointing):
    tokens = golden.fae.tokens.clone().requires_grad_()
    transformer = with_motion_attention(golden.transformer)
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    loss = fae_loss(golden, recorded, golden_scheduler, transformer, tokens)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(recorded["fae.loss"].item(), rel=LOSS_RTOL)
    assert loss.item() == pytest.approx(recorded["fae.loss_float64"].item(), rel=LOSS_RTOL)
    loss.backward()
    gradients = {TOKEN_KEY.format(layer): gradient for layer, gradient in enumerate(tokens.grad)}
    assert_gradients(gradients, recorded, "fae.grad.")
    assert all(parameter.grad is None for parameter in golden.transformer.parameters())


def test_a_refadapter_at_weight_0_changes_no_gradient_of_the_fae(golden, recorded, golden_scheduler):
    tokens = golden.fae.tokens.clone().requires_grad_()
    fae_loss(golden, recorded, golden_scheduler, with_motion_attention(golden.adapted(0.0)), tokens).backward()
    gradients = {TOKEN_KEY.format(layer): gradient for layer, gradient in enumerate(tokens.grad)}
    assert_gradients(gradients, recorded, "fae.grad.")


def test_the_debiased_term_is_the_recorded_one_per_sample(golden, recorded, golden_scheduler):
    transformer = with_motion_attention(golden.transformer)
    for sample, expected in enumerate(recorded["fae.loss_biased"].tolist()):
        names = ("video_latents", "noise", "timesteps", "prompt_embeds")
        changes = {name: recorded[f"fae.{name}"][[sample]] for name in names}
        changes["image_latents"] = recorded["fae.image_latent"][[sample]]
        with torch.no_grad():
            with_term, without = (
                fae_loss(golden, recorded, golden_scheduler, transformer, golden.fae.tokens, **changes, **frames).item()
                for frames in ({"debias_frames": recorded["fae.rand_idx"]}, {"debias_frames": None})
            )
        assert with_term - without == pytest.approx(expected, rel=1e-5)


def test_refadapter_loss_and_every_gradient_are_the_recorded_ones(golden, recorded, golden_scheduler):
    transformer = golden.adapted(1.0)
    matrices = learned_matrices(transformer, "lora_0")
    for matrix in matrices.values():
        matrix.requires_grad_()
    loss = denoising_loss(transformer, golden_scheduler, refadapter_inputs(recorded))
    assert loss.item() == pytest.approx(recorded["refadapter.loss"].item(), rel=LOSS_RTOL)
    assert loss.item() == pytest.approx(recorded["refadapter.loss_float64"].item(), rel=LOSS_RTOL)
    loss.backward()
    assert_gradients({key: matrix.grad for key, matrix in matrices.items()}, recorded, "refadapter.grad.")
    assert all(parameter.grad is None for parameter in golden.transformer.parameters())


def test_the_weights_of_the_loss_are_one_over_one_minus_abar(recorded, golden_scheduler):
    for prefix in ("fae", "refadapter"):
        abar = golden_scheduler.alphas_cumprod[recorded[f"{prefix}.timesteps"]].float()
        torch.testing.assert_close(1 / (1 - abar), recorded[f"{prefix}.weights"], rtol=1e-05, atol=1e-8)

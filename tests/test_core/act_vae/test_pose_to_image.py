"""P2I's generator and critic are those of the authors' code, in eval and in train mode."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from flexiact_core.act_vae.pose_to_image import PoseCritic, PoseToImage, draw_heat_maps, start_weights


def generator_of(golden) -> PoseToImage:
    state, about = golden.state("generator"), golden.about
    network = PoseToImage(len(state["model_stream1_up_1_bn.embed.weight"]), about["ngf"], about["n_blocks"])
    network.load_state_dict(state, strict=True)
    return network.eval()


def critic_of(golden) -> PoseCritic:
    network = PoseCritic(golden.about["d_ngf"], golden.about["d_blocks"])
    network.load_state_dict(golden.state("classifier"), strict=True)
    return network.eval()


def painted(golden, network: PoseToImage, exchanged: bool = False) -> torch.Tensor:
    given, recorded = golden.inputs(), golden.outputs()
    maps = [recorded["maps_src"], recorded["maps_tgt"]]
    with torch.no_grad():
        return network(given["image"], *(reversed(maps) if exchanged else maps), given["label"])


def test_heat_maps_are_the_recorded_ones(golden_images):
    given, recorded = golden_images.inputs(), golden_images.outputs()
    side = given["image"].shape[-1]
    assert_close(draw_heat_maps(given["pose_src"], side), recorded["maps_src"], atol=1e-6, rtol=0)
    assert_close(draw_heat_maps(given["pose_tgt"], side), recorded["maps_tgt"], atol=1e-6, rtol=0)


def test_a_heat_map_is_one_at_its_joint_and_falls_off_around_it():
    maps = draw_heat_maps(torch.tensor([[[0.0, -1.0], [1.0, 1.0]]]), 5)
    assert maps[0, 0, 0, 2] == 1 and maps[0, 1, 4, 4] == 1
    # Half of the square away, the released sharpness leaves nothing.
    assert maps[0, 0, 0, 4] < 1e-30


def test_the_picture_is_the_recorded_one_in_eval_mode(golden_images):
    recorded = golden_images.outputs()
    assert_close(painted(golden_images, generator_of(golden_images)), recorded["image_out"], atol=2e-6, rtol=0)


def test_the_picture_is_the_recorded_one_in_train_mode(golden_images):
    recorded = golden_images.outputs()
    network = generator_of(golden_images).train()
    assert_close(painted(golden_images, network), recorded["image_out_trainmode"], atol=2e-6, rtol=0)


def test_source_and_target_maps_are_not_exchanged(golden_images):
    """In eval mode the recorded picture hardly feels it, so that the tolerance above must be finer than this."""
    network, recorded = generator_of(golden_images), golden_images.outputs()
    apart = (painted(golden_images, network, exchanged=True) - recorded["image_out"]).abs().max()
    assert apart > 4e-6
    apart = (painted(golden_images, network.train(), exchanged=True) - recorded["image_out_trainmode"]).abs().max()
    assert apart > 4e-6


def test_the_critic_is_the_recorded_one(golden_images):
    given, recorded, critic = golden_images.inputs(), golden_images.outputs(), critic_of(golden_images)
    with torch.no_grad():
        fake, features = critic(recorded["image_out"], recorded["maps_tgt"])
        real, _ = critic(given["target"], recorded["maps_tgt"])
    assert_close(fake, recorded["dis_fake"], atol=2e-6, rtol=0)
    assert_close(real, recorded["dis_real"], atol=2e-6, rtol=0)
    for number, level in enumerate(features):
        assert_close(level, recorded[f"dis_feat{number}"], atol=2e-6, rtol=0)


def test_a_picture_stays_as_it_is_where_the_mask_says_so():
    network = PoseToImage(2, 4, 1).eval()
    with torch.no_grad():
        network.model_stream1_up[1].weight.zero_()
        network.model_stream1_up[1].bias.copy_(torch.tensor([0.0, 0.0, 0.0, -40.0]))
        image = torch.rand(1, 3, 16, 16) * 2 - 1
        maps = torch.rand(1, 13, 16, 16)
        assert_close(network(image, maps, maps, torch.tensor([1])), image)


def test_a_training_starts_from_small_weights_that_the_seed_decides():
    first, second = PoseToImage(9, 4, 1), PoseToImage(9, 4, 1)
    for network in (first, second):
        start_weights(network, torch.Generator().manual_seed(3))
    for one, other in zip(first.state_dict().values(), second.state_dict().values()):
        assert_close(one, other)
    assert 0.015 < first.model_stream2_down[1].weight.std() < 0.025
    assert first.model_stream2_down[1].bias.abs().max() == 0
    # The action's scale and shift begin at 1 and 0.
    assert_close(first.model_stream1_up_1_bn.embed.weight[0], torch.tensor([1.0] * 8 + [0.0] * 8))

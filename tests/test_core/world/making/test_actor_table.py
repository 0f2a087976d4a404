"""The table of the small people, and all that it needs of a base, on one that was never trained."""

import pytest
import torch

from flexiact_core.metrics.statistics import interval
from flexiact_core.world import shipped
from flexiact_core.world.actor_cases import driving, load_actors, make_actor_cases, perform
from flexiact_core.world.actors import NUM_FRAMES, actor_vocabulary
from flexiact_core.world.making.actor_action import learn_from_person
from flexiact_core.world.making.actor_table import ROWS, Bench, make_actor_table, run_row
from flexiact_core.world.making.models import make_posed_transformer, make_text_encoder, make_vae, save_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.manual_seed(0)
    transformer = make_posed_transformer()
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    weights, words = tmp_path_factory.mktemp("weights"), actor_vocabulary()
    encoder = make_text_encoder(words)
    save_base(
        shipped.actors_folder(weights), vae=make_vae(), transformer=transformer, text_encoder=encoder, words=words
    )
    return load_actors(weights)


def test_a_base_that_is_written_is_loaded_and_its_poses_reach_the_video(base):
    cases = make_actor_cases(1)[:1]
    posed, without = (perform(base, cases, [driving(cases[0])], strength=much, steps=1) for much in (1.0, 0.0))
    assert posed.shape == (1, NUM_FRAMES, 64, 64, 3) and (posed != without).any()


def test_a_camera_is_learned_as_motion_tokens_that_act_beside_poses(base):
    cases, fae = make_actor_cases(1)[:1], learn_from_person(base, shipped.CAMERA_MOVE, steps=1)
    assert all("control_norm1" in block._modules for block in base.transformer.transformer_blocks)
    alone, both = (perform(base, cases, [driving(cases[0])], steps=1, faes=faes) for faes in ((), [(fae, 1.0)]))
    assert (alone != both).any()


def test_true_videos_would_fill_the_table_and_still_ones_would_not(base, monkeypatch):
    from flexiact_core.world.actor_render import render_actor
    from flexiact_core.world.making import actor_table

    bench = Bench(base, make_actor_cases(1), shipped.WEIGHTS)
    # A VAE that loses nothing: the row of true videos is then the best that any base can reach.
    monkeypatch.setattr(actor_table, "through_vae", lambda _, videos: torch.stack(list(videos)))
    assert torch.equal(ROWS["true"].make(bench)[0], render_actor(bench.cases[0].actor, bench.cases[0].performance))
    results = {name: run_row(bench, name) for name in ("true", "still")}
    near, limbs = ({name: interval(made, value)[0] for name, made in results.items()} for value in ("follow", "limbs"))
    assert near["true"] > 0.97 and near["still"] < near["true"] - 0.2
    assert abs(limbs["true"] - 1) < 0.1 and abs(limbs["still"]) < 0.1
    assert all(one["nearest"] == 1.0 for one in results["true"])
    assert make_actor_table(results).count(f"| {len(bench.cases)} |") == 2

import numpy as np
import pytest

from flexiact_core.world.actions import ACTIONS, NUM_FRAMES, SEEN_ACTIONS, UNSEEN_ACTIONS, compose, medleys, motion_of


def test_there_are_ten_actions_two_of_the_camera_and_two_unseen():
    assert len(ACTIONS) >= 10
    assert {"pan", "zoom"} <= set(SEEN_ACTIONS)
    assert len(UNSEEN_ACTIONS) >= 2


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_starts_where_the_first_frame_is(action):
    motion = motion_of(action)
    for field in ("dx", "dy", "angle", "pan"):
        assert getattr(motion, field).shape == (NUM_FRAMES,)
        assert getattr(motion, field)[0] == 0
    assert motion.scale[0] == motion.zoom[0] == 1


def test_no_action_is_standing_still():
    still = motion_of(None)
    assert not still.dx.any() and not still.dy.any() and (still.scale == 1).all()


def test_training_never_mixes_the_parts_of_an_unseen_action():
    withheld = {frozenset(ACTIONS[name].parts) for name in UNSEEN_ACTIONS}
    assert withheld.isdisjoint(frozenset(pair) for pair in medleys())


def test_the_parts_of_an_unseen_action_are_seen_in_other_mixtures():
    mixed = {part for pair in medleys() for part in pair}
    for name in UNSEEN_ACTIONS:
        assert set(ACTIONS[name].parts) <= mixed


def test_parts_that_move_the_same_quantity_cannot_be_mixed():
    with pytest.raises(ValueError, match="slide and sway"):
        compose(("slide", "sway"))


def test_the_hop_lands_beside_its_start():
    motion = motion_of("hop")
    assert motion.dx[-1] > 10 and abs(motion.dy[-1]) < 1e-9 and np.min(motion.dy) < -10

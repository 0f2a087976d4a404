"""Which takes the small AMG is measured on."""

from flexiact_core.world.actors import HELD_OUT_CLOTHES
from flexiact_core.world.take_cases import OTHER_CAMERA, make_take_cases
from flexiact_core.world.takes import CAMERAS, SCENES


def test_cases_show_every_camera_and_scene_in_clothes_of_no_training():
    cases = make_take_cases(45)
    assert {case.camera for case in cases} == set(CAMERAS) and {case.take.scene for case in cases} == set(SCENES)
    assert {(case.take.actor.shirt, case.take.actor.trousers) for case in cases} == set(HELD_OUT_CLOTHES)
    assert len({(case.camera, case.take.scene) for case in cases}) > 20


def test_what_another_case_would_show_differs_in_one_thing():
    for case in make_take_cases(5):
        assert case.other_scene() != case.take.scene
        assert OTHER_CAMERA[case.camera] != case.camera
        moved = case.other_motion()
        assert moved.actor is case.take.actor and (moved.shot.pan == case.take.shot.pan).all()
        assert (moved.shot.postures != case.take.shot.postures).any()
        assert (case.by_other_camera().shot.postures == case.take.shot.postures).all()

"""Bones of many makers become OpenPose's joints."""

import pytest
import torch
from gltf_models import triangle

from flexiact_core.avatars.gltf import read_avatar
from flexiact_core.avatars.joints import NAMES, bone_stem, find_body, place_joints
from flexiact_core.avatars.pose import node_matrices

LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
RIGS = {
    "mixamo": ("mixamorig:{Side}Arm", "ForeArm", "Hand", "UpLeg", "Leg", "Foot", "mixamorig:Head"),
    "bvh": ("{Side}Arm", "ForeArm", "Hand", "UpLeg", "Leg", "Foot", "Head"),
    "vrm": ("J_Bip_{S}_UpperArm", "LowerArm", "Hand", "UpperLeg", "LowerLeg", "Foot", "J_Bip_C_Head"),
    "unreal": ("upperarm_{s}", "lowerarm", "hand", "thigh", "calf", "foot", "head"),
    "rigify": ("DEF-upper_arm.{S}", "DEF-forearm", "DEF-hand", "DEF-thigh", "DEF-shin", "DEF-foot", "DEF-head"),
    "biped": ("Bip01 {S} UpperArm", "Forearm", "Hand", "Thigh", "Calf", "Foot", "Bip01 Head"),
    "character creator": ("CC_Base_{S}_Upperarm", "Forearm", "Hand", "Thigh", "Calf", "Foot", "CC_Base_Head"),
    "smpl": ("{side}_shoulder", "elbow", "wrist", "hip", "knee", "ankle", "head"),
}


def named(pattern: str, part: str, side: str) -> str:
    """The bone of a side: the pattern's own, or the same with another part."""
    known = ("UpperArm", "Upperarm", "upper_arm", "upperarm", "DEF-upper_arm", "shoulder", "Arm")
    if part != pattern:
        old = next(word for word in known if word in pattern)
        if part.startswith("DEF-"):
            old = "DEF-upper_arm"
        pattern = pattern.replace(old, part)
    letter = side[0]
    return pattern.format(Side=side.capitalize(), side=side, S=letter.upper(), s=letter)


def rig(names: tuple[str, ...]):
    """A model whose nodes carry the names, each at a place of its own; the clavicles of Mixamo are there as well."""
    model = triangle()
    parts = names[:6]
    bones = [
        (f"{side}_{joint}", named(names[0], part, side))
        for side in ("right", "left")
        for joint, part in zip(LIMBS, parts)
    ]
    model.data["nodes"] += [{"name": name, "translation": [number, 1, 0]} for number, (_, name) in enumerate(bones)]
    model.data["nodes"] += [{"name": names[6], "translation": [0, 2, 0]}]
    return read_avatar(model.glb()), {joint: number for number, (joint, _) in enumerate(bones)}


@pytest.mark.parametrize("maker", RIGS)
def test_the_bones_of_a_maker_are_found(maker):
    avatar, places = rig(RIGS[maker])
    body = find_body(avatar)
    assert body is not None and body.head is not None
    joints, known = place_joints(body, node_matrices(avatar.skeleton, None, torch.zeros(1)))
    for joint, number in places.items():
        assert joints[0, NAMES.index(joint)].tolist() == [number, 1, 0], joint
    shoulders = (places["left_shoulder"] + places["right_shoulder"]) / 2
    assert joints[0, NAMES.index("neck")].tolist() == [shoulders, 1, 0]
    assert known[: NAMES.index("right_eye")].sum() >= 13


def test_a_clavicle_is_not_taken_for_the_shoulder_where_there_is_an_arm():
    assert bone_stem("mixamorig:LeftShoulder") == ("left", "shoulder")
    avatar, places = rig(RIGS["mixamo"])
    model = triangle()
    model.data["nodes"] += [{"name": "mixamorig:LeftShoulder"}, {"name": "mixamorig:LeftArm"}]
    names = ("RightArm", "LeftUpLeg", "RightUpLeg")
    model.data["nodes"] += [{"name": f"mixamorig:{name}"} for name in names]
    body = find_body(read_avatar(model.glb()))
    assert body.nodes["left_shoulder"] == 2


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("mixamorig:LeftUpLeg", ("left", "upleg")),
        ("thigh.L", ("left", "thigh")),
        ("upperarm_twist_01_l", ("left", "upperarmtwist01")),
        ("LHipJoint", ("left", "hipjoint")),
        ("rShldr", ("right", "shldr")),
        ("Head", ("", "head")),
        ("HeadTop_End", ("", "headtopend")),
        ("", ("", "")),
    ],
)
def test_what_a_bones_name_says(name, stem):
    assert bone_stem(name) == stem


def test_a_thing_has_no_body():
    assert find_body(read_avatar(triangle().glb())) is None

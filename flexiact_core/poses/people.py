"""Which person is meant, and who is who from frame to frame."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import SettingError
from .sequence import PoseSequence, with_points

# Of the canvas's diagonal.
NEW_PERSON = 0.25

PERSONS = ("largest", "leftmost", "all")


def choose_person(poses: PoseSequence, person: str | int = "largest") -> PoseSequence:
    """One person's poses, or those of all.

    person is 'largest' (tallest on average), 'leftmost' (over the whole clip), 'all', or a number from 0 in the order
    of the first frame with anybody. A person is followed from frame to frame by the nearest place.
    Raises SettingError for another word, or a number that nobody has.
    """
    poses = track_people(poses)
    if person == "all":
        return poses
    index = _number_of(poses, person)
    return with_points(poses, poses.points[:, index : index + 1], poses.scores[:, index : index + 1])


def track_people(poses: PoseSequence) -> PoseSequence:
    """The same people, each kept at one place of the list from frame to frame: the nearest to where it last was."""
    if poses.num_people < 2:
        return poses
    from scipy.optimize import linear_sum_assignment

    number = poses.num_people
    present, centres = poses.present(), _centres(poses)
    order = torch.arange(number).repeat(poses.num_frames, 1)
    last = torch.full((number, 2), torch.nan)
    # Farther than this from where anybody was: rather somebody new, if a place in the list is free.
    far = NEW_PERSON * float(torch.tensor(poses.canvas).float().norm())
    ties = 1e-3 * (torch.arange(number)[:, None] - torch.arange(number)).abs()
    for frame in range(poses.num_frames):
        distance = torch.cdist(last, centres[frame])
        distance = torch.where(torch.isnan(distance), far, distance)
        # Who is not in this frame costs the same everywhere.
        cost = torch.where(present[frame], distance, 1e6) + ties
        order[frame] = torch.from_numpy(linear_sum_assignment(cost.numpy())[1])
        found = present[frame, order[frame]]
        last[found] = centres[frame, order[frame]][found]
    rows = torch.arange(poses.num_frames).unsqueeze(1)
    return with_points(poses, poses.points[rows, order], poses.scores[rows, order])


def _number_of(poses: PoseSequence, person: str | int) -> int:
    if isinstance(person, int):
        if not 0 <= person < poses.num_people:
            raise SettingError(f"person {person}: {poses.num_people} people found, counted from 0.")
        return person
    if person not in PERSONS:
        raise SettingError(f"person '{person}': choose one of {', '.join(PERSONS)}, or a number from 0.")
    present = poses.present()
    if not present.any():
        return 0
    times = present.sum(0)
    if person == "leftmost":
        left = torch.where(present, _centres(poses)[..., 0], 0.0).sum(0) / times.clamp(min=1)
        return int(torch.where(times > 0, left, torch.inf).argmin())
    # Summed, not averaged: somebody who passes by for a frame, near the camera, is not who is meant.
    return int(torch.where(present, _heights(poses), 0.0).sum(0).argmax())


def _centres(poses: PoseSequence) -> Tensor:
    seen = (poses.scores > 0).unsqueeze(-1)
    return torch.where(seen, poses.points, 0.0).sum(2) / seen.sum(2).clamp(min=1)


def _heights(poses: PoseSequence) -> Tensor:
    seen = (poses.scores > 0).unsqueeze(-1)
    top = torch.where(seen, poses.points, torch.inf).amin(2)
    bottom = torch.where(seen, poses.points, -torch.inf).amax(2)
    return (bottom - top).clamp(min=0).norm(dim=-1)

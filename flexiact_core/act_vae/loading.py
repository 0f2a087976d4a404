"""ACT-VAE's files: the release's pairs, checkpoints of its training, and one safetensors of ours that holds all.

A network is known by its keys and shapes, never by its file's name; names only tell which files belong together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import FileError, why
from ..file_lists import mentions, walk_files
from ..pickles import PICKLE_SUFFIXES
from ..weight_files import check_keys, read_metadata, read_tensors, write_tensors
from .figures import ACTIONS
from .judge import PoseJudge
from .model import NUM_JOINTS, PENN_ACTIONS, POSE_WIDTH, RELEASED_STEPS, ActionPoses
from .pose_to_image import PoseCritic, PoseToImage

# Parts of a model by the names that the release gives their files, and their prefixes in ours.
POSES, LATENTS, GENERATOR, CRITIC = "im_encode_content", "im_encode_vae", "generator", "classifier"
PREFIXES = {POSES: "image_enc_content.", LATENTS: "image_enc_vae.", GENERATOR: "generator.", CRITIC: "classifier."}
JUDGE_PREFIX = "judge."
FAMILY = "act_vae"
# A folder with more files than parts holds the checkpoints of a training: each is listed by itself.
MOST_PARTS = len(PREFIXES)
# Of the longer side of a person, on every side, where the file does not say it.
RELEASED_MARGIN = 0.1


@dataclass(frozen=True, eq=False)
class ACTVAE:
    """A loaded model: the pose predictor, the names of its actions, and what else its files held.

    steps is how many poses it was trained to predict from one, margin the border of its boxes around a person, as a
    share of the person's longer side.
    """

    predictor: ActionPoses
    actions: tuple[str, ...]
    steps: int = RELEASED_STEPS
    margin: float = RELEASED_MARGIN
    generator: PoseToImage | None = None
    critic: PoseCritic | None = None
    judge: PoseJudge | None = None
    name: str = ""


def find_models(root: Path) -> dict[str, Path]:
    """What load_act_vae() may be given under a folder, by names relative to it: files of ours, folders, pickles."""
    found: dict[str, Path] = {}
    for folder, _, files in walk_files(root, leave_out=("training",)):
        pickles = [path for path in files if path.suffix in PICKLE_SUFFIXES]
        single = [path for path in files if path.suffix == ".safetensors" and mentions(path, b"image_enc_content.rnn")]
        if folder != root and 0 < len(pickles) <= MOST_PARTS:
            single.append(folder)
        else:
            single += [path for path in pickles if mentions(path, b"rnn.weight_ih_l0")]
        found |= {path.relative_to(root).as_posix(): path for path in single}
    return dict(sorted(found.items()))


def known_actions(paths: Iterable[Path]) -> list[str]:
    """Names of the figures' actions, of the released ones, and of those that files of ours say they have."""
    names = [*ACTIONS, *PENN_ACTIONS]
    for path in paths:
        try:
            names += _named_in(read_metadata(path)) if path.is_file() else ()
        except FileError:
            # A list shows what can be read; loading says what is wrong.
            continue
    return list(dict.fromkeys(names))


def load_act_vae(path: Path) -> ACTVAE:
    """The model of a safetensors of ours, of a folder with the release's files, or of one file and those beside it.

    Raises FileError for files that are damaged, unsafe, of another model, or do not belong together.
    """
    path = Path(path)
    if path.suffix == ".safetensors" and path.is_file():
        return _from_one_file(path)
    files = sorted(child for child in path.iterdir() if _is_weights(child)) if path.is_dir() else _beside(path)
    parts: dict[str, tuple[Path, dict[str, Tensor]]] = {}
    for file in files:
        tensors = read_tensors(file, inside=("a",))
        kind = kind_of(file.name, tensors)
        if kind in parts:
            other = parts[kind][0]
            raise FileError(
                f"{file.name} and {other.name} are both {kind} (weight {_first_shape(tensors)} and "
                f"{_first_shape(parts[kind][1])}). Keep one of them in the folder, or choose the file you mean."
            )
        parts[kind] = file, tensors
    _check_pair(path, parts)
    return make_model({kind: tensors for kind, (_, tensors) in parts.items()}, name=path.stem)


def kind_of(name: str, tensors: Mapping[str, Tensor]) -> str:
    """Which part a released state is: POSES, LATENTS, GENERATOR or CRITIC.

    Raises FileError, naming the first keys, if it is none of them.
    """
    if "rnn.weight_ih_l0" in tensors and "rnn.weight_hh_l0" in tensors:
        return POSES if tensors["rnn.weight_hh_l0"].shape[-1] == POSE_WIDTH else LATENTS
    if "model_stream1_down.1.weight" in tensors:
        return GENERATOR
    if "model1.1.weight" in tensors:
        return CRITIC
    raise FileError(
        f"{name}: no file of ACT-VAE; its keys are {', '.join(list(tensors)[:3])}, ... Put other models' files into "
        "their own folder, and ACT-VAE's im_encode_content.pt and im_encode_vae.pt here."
    )


def make_model(
    parts: Mapping[str, Mapping[str, Tensor]],
    *,
    actions: tuple[str, ...] | None = None,
    steps: int = RELEASED_STEPS,
    margin: float = RELEASED_MARGIN,
    judge: Mapping[str, Tensor] | None = None,
    name: str = "",
) -> ACTVAE:
    """A model from the states of its parts under the release's keys; sizes are read off the shapes.

    Raises FileError if keys or shapes do not fit, or the parts each other.
    """
    predictor = _load_predictor(name, parts[POSES], parts[LATENTS])
    number = predictor.num_actions
    if actions is None:
        actions = PENN_ACTIONS if number == len(PENN_ACTIONS) else tuple(f"action_{n}" for n in range(number))
    if len(actions) != number:
        raise FileError(f"{name}: {len(actions)} names for {number} actions. Get the file again from where it is from.")
    return ACTVAE(
        predictor,
        tuple(actions),
        steps,
        margin,
        _load_generator(name, parts[GENERATOR], number) if GENERATOR in parts else None,
        _load_critic(name, parts[CRITIC]) if CRITIC in parts else None,
        None if judge is None else load_judge(name, judge, number),
        name,
    )


def save_act_vae(
    model: ACTVAE, path: Path, metadata: Mapping[str, str] | None = None, dtype: torch.dtype = torch.float32
) -> Path:
    """The one .safetensors file with all parts of a model, written whole. Raises FileError if that fails."""
    tensors = {
        f"{PREFIXES[kind]}{key}": value for kind, state in states_of(model).items() for key, value in state.items()
    }
    if model.judge is not None:
        tensors |= {f"{JUDGE_PREFIX}{key}": value for key, value in model.judge.state_dict().items()}
    tensors = {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}
    about = {
        "family": FAMILY, "actions": json.dumps(model.actions), "steps": str(model.steps), "margin": str(model.margin),
    }  # fmt: skip
    return write_tensors(tensors, path, dict(metadata or {}) | about)


def states_of(model: ACTVAE) -> dict[str, dict[str, Tensor]]:
    """The state of each part of a model, under the release's keys."""
    states = {
        POSES: {f"rnn.{key}": value for key, value in model.predictor.pose_lstm.state_dict().items()},
        LATENTS: {f"rnn.{key}": value for key, value in model.predictor.latent_lstm.state_dict().items()},
    }
    if model.generator is not None:
        states[GENERATOR] = model.generator.state_dict()
    if model.critic is not None:
        states[CRITIC] = model.critic.state_dict()
    return states


def load_judge(name: str, tensors: Mapping[str, Tensor], num_actions: int) -> PoseJudge:
    """The judge of a state. Raises FileError if it does not fit."""
    return _strict(name, PoseJudge(num_actions), tensors)


def _from_one_file(path: Path) -> ACTVAE:
    tensors, about = read_tensors(path), read_metadata(path)
    parts = {
        kind: {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        for kind, prefix in PREFIXES.items()
    }
    if not (parts[POSES] and parts[LATENTS]):
        kind_of(path.name, {key: value for key, value in tensors.items() if not key.startswith("image_enc_")})
        raise FileError(f"{path.name}: one part alone. Choose the folder that holds {POSES} and {LATENTS}.")
    judge = {key[len(JUDGE_PREFIX) :]: value for key, value in tensors.items() if key.startswith(JUDGE_PREFIX)}
    try:
        actions = _named_in(about) or None
        steps, margin = int(about.get("steps", RELEASED_STEPS)), float(about.get("margin", RELEASED_MARGIN))
    except ValueError as error:
        raise FileError(
            f"{path.name}: what it says of itself cannot be read ({why(error)}). Get the file again."
        ) from error
    return make_model(
        {kind: state for kind, state in parts.items() if state},
        actions=actions, steps=steps, margin=margin, judge=judge or None, name=path.stem,
    )  # fmt: skip


def _named_in(about: Mapping[str, str]) -> tuple[str, ...]:
    """The actions that a file's metadata names. Raises FileError if they are no list."""
    try:
        names = json.loads(about.get("actions", "[]"))
    except (ValueError, RecursionError) as error:
        raise FileError(
            f"actions: no list of names ({why(error)}). Get the file again from where it is from."
        ) from error
    if not isinstance(names, list):
        raise FileError("actions: no list of names. Get the file again from where it is from.")
    return tuple(map(str, names))


def _beside(path: Path) -> list[Path]:
    """A file and those of its folder that are named as it is but for the part."""
    own = next((kind for kind in PREFIXES if kind in path.name), None)
    if own is None or not path.is_file():
        return [path]
    others = [path.with_name(path.name.replace(own, kind)) for kind in PREFIXES if kind != own]
    return [path, *(other for other in others if other.is_file())]


def _is_weights(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.suffix in (*PICKLE_SUFFIXES, ".safetensors")


def _check_pair(path: Path, parts: Mapping[str, tuple[Path, dict[str, Tensor]]]) -> None:
    for kind, other in ((POSES, LATENTS), (LATENTS, POSES)):
        if kind not in parts:
            have = ", ".join(f"{file.name} is {of} {_first_shape(state)}" for of, (file, state) in parts.items())
            raise FileError(
                f"{path.name}: no {kind} beside it ({have or 'no weights in it'}). Put {kind}.pt, whose "
                f"rnn.weight_hh_l0 is {'[104, 26]' if kind == POSES else '[8 z, 2 z]'}, beside {other}.pt."
            )


def _first_shape(tensors: Mapping[str, Tensor]) -> list[int]:
    return list(next(iter(tensors.values())).shape)


def _load_predictor(name: str, poses: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> ActionPoses:
    for kind, state in ((POSES, poses), (LATENTS, latents)):
        shape = state["rnn.weight_ih_l0"].shape if "rnn.weight_ih_l0" in state else ()
        if len(shape) != 2:
            raise FileError(f"{name}: {kind} has no rnn.weight_ih_l0 with two sides. Get the file again.")
    latent = latents["rnn.weight_ih_l0"].shape[0] // 8
    widths = [state["rnn.weight_ih_l0"].shape[1] for state in (latents, poses)]
    if widths[0] != widths[1]:
        raise FileError(
            f"{name}: {LATENTS} takes {widths[0]} numbers and {POSES} {widths[1]}: they are of models with other "
            "latents or other actions. Use the two files of one training."
        )
    number = widths[0] - POSE_WIDTH - latent
    if number < 1 or latent < 1:
        raise FileError(
            f"{name}: {widths[0]} numbers a step are too few for a pose, a latent of {latent} and an action. Use the "
            "two files of one training."
        )
    with torch.device("meta"):
        predictor = ActionPoses(number, latent)
    expected = {key: value.shape for key, value in predictor.state_dict().items()}
    state = {
        f"{part}.{key.removeprefix('rnn.')}": value.float().clone()
        for part, tensors in (("pose_lstm", poses), ("latent_lstm", latents))
        for key, value in tensors.items()
    }
    check_keys(name, {key: value.shape for key, value in state.items()}, expected, "Use ACT-VAE's own files.")
    predictor.load_state_dict(state, assign=True)
    return predictor.eval().requires_grad_(False)


def _load_generator(name: str, tensors: Mapping[str, Tensor], num_actions: int) -> PoseToImage:
    first = tensors["model_stream1_down.1.weight"] if "model_stream1_down.1.weight" in tensors else torch.zeros(1)
    blocks = {int(key.split(".")[1]) for key in tensors if key.startswith("att.") and key.split(".")[1].isdigit()}
    classes = tensors.get("model_stream1_up_1_bn.embed.weight")
    if classes is not None and len(classes) != num_actions:
        raise FileError(
            f"{name}: the image generator knows {len(classes)} actions and the pose predictor {num_actions}. Use the "
            "files of one training."
        )
    with torch.device("meta"):
        network = PoseToImage(num_actions, first.shape[0], len(blocks))
    return _strict(name, network, tensors)


def _load_critic(name: str, tensors: Mapping[str, Tensor]) -> PoseCritic:
    blocks = {int(key.split(".")[1]) for key in tensors if key.startswith("model_res.")}
    width, inputs = tensors["model1.1.weight"].shape[:2]
    if inputs != 3 + NUM_JOINTS:
        raise FileError(f"{name}: a critic of {inputs} channels; {3 + NUM_JOINTS} expected. Use ACT-VAE's own file.")
    with torch.device("meta"):
        network = PoseCritic(width, len(blocks))
    return _strict(name, network, tensors)


def _strict(name: str, network: nn.Module, tensors: Mapping[str, Tensor]):
    expected = {key: value.shape for key, value in network.state_dict().items()}
    check_keys(name, {key: value.shape for key, value in tensors.items()}, expected, "Use ACT-VAE's own files.")
    # Copied, as a pickle's tensors lie in its file until then; counters of norms stay whole numbers.
    state = {key: value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
             for key, value in tensors.items()}  # fmt: skip
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)

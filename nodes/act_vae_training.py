"""ACT-VAE's training: poses of your own actions, or the figures that the shipped model learned from."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from comfy_api.latest import io

from . import inputs
from .act_vae import CATEGORY, MODELS, LoadedACTVAE, to_socket
from .host import encodings, folders, memory, progress
from .sockets import ActVaeSocket
from .training import Plan, Training, changes_while_unfinished, not_computed, training_inputs

if TYPE_CHECKING:
    from torch import Tensor

    from ..flexiact_core.act_vae.loading import ACTVAE
    from ..flexiact_core.act_vae.training_data import TrainingData
    from ..flexiact_core.training import TrainingState

# Three draws of a batch, their gradients and moments: no device is too small for it.
TRAINING_BYTES = 500_000_000


class TrainACTVAE(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TrainACTVAE",
            display_name="Train ACT-VAE",
            category=f"{CATEGORY}/training",
            description=(
                "Learns how poses go on in actions, from poses of your own or from procedural figures, and saves the "
                "model in models/act_vae/trained. Cancel keeps what was learned; the same settings and Queue go on."
            ),
            search_aliases=["train act-vae", "learn actions", "train poses"],
            inputs=[
                io.String.Input(
                    "data",
                    default="",
                    tooltip=(
                        "In ComfyUI's input folder or in a model folder: a folder with a folder of POSE_KEYPOINT "
                        ".json files for each action, Penn Action's labels (.mat), or the authors' list. Empty: "
                        "figures."
                    ),
                ),
                io.String.Input(
                    "actions",
                    default="",
                    multiline=True,
                    tooltip="The actions to learn, in order, commas between them. Empty: all that are there.",
                ),
                inputs.result_name("my_actions", "model"),
                inputs.steps(6000, 1000000, "Training steps. 6000 took three minutes of one core at latent 64."),
                inputs.learning_rate(0.002, 0.000001, "the shipped model's value; the authors' is 0.0002"),
                io.Int.Input(
                    "batch_size",
                    default=64,
                    min=1,
                    max=256,
                    advanced=True,
                    tooltip="Clips per step. 24: the authors' value. More: steadier steps that take longer.",
                ),
                io.Int.Input(
                    "latent",
                    default=64,
                    min=16,
                    max=1024,
                    advanced=True,
                    tooltip="Width of the latent. 64: 130 000 numbers, 512: the authors' value, 6.5 million.",
                ),
                io.Int.Input(
                    "pose_steps",
                    default=4,
                    min=1,
                    max=32,
                    advanced=True,
                    tooltip="Poses to predict from one. 4: the authors' value. Figures and the authors' list set it.",
                ),
                io.Int.Input(
                    "stride",
                    default=3,
                    min=1,
                    max=60,
                    advanced=True,
                    tooltip="Frames from one pose of a clip to the next. 1: small moves. High: few and large ones.",
                ),
                io.Boolean.Input(
                    "mirror",
                    default=True,
                    advanced=True,
                    tooltip="Half of the clips as in a mirror. Off where an action has a side. Not done with figures.",
                ),
                io.Float.Input(
                    "kl",
                    default=0.002,
                    min=0.0,
                    max=1.0,
                    step=0.0001,
                    advanced=True,
                    tooltip="Weight that keeps the latents near normal noise. 0.002: released. 0: none. High: blurred.",
                ),
                io.Int.Input(
                    "measure_every",
                    default=500,
                    min=0,
                    max=100000,
                    advanced=True,
                    tooltip="Steps between two measures on held-out clips, drawn beside the truth. 0: none.",
                ),
                *training_inputs(MODELS, gradient_checkpointing=False),
                ActVaeSocket.Input(
                    "start_from",
                    optional=True,
                    lazy=True,
                    tooltip="A model of the same actions and latent to go on from. Left open: from nothing.",
                ),
            ],  # fmt: skip
            outputs=[
                ActVaeSocket.Output(display_name="act_vae", tooltip="The model that was learned."),
                io.Image.Output(display_name="loss_curve", tooltip="The loss by step."),
                io.String.Output(display_name="text", tooltip="The data, and the measures on held-out clips."),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, data=None, **widgets):
        return f"{changes_while_unfinished(MODELS, **widgets)}{folders.input_state(data)}"

    @classmethod
    def check_lazy_status(cls, steps, learning_rate, batch_size, **inputs):
        from ..flexiact_core.act_vae.fit import RELEASED_RECIPE
        from ..flexiact_core.training import check_training_settings

        check_training_settings(steps, learning_rate, batch_size, RELEASED_RECIPE)
        return not_computed({"start_from": inputs["start_from"]} if "start_from" in inputs else {})

    @classmethod
    def execute(
        cls, data, actions, latent, pose_steps, stride, mirror, kl, measure_every, start_from=None, **settings
    ) -> io.NodeOutput:
        from ..flexiact_core.act_vae.training_data import read_training_data, split_names
        from ..flexiact_core.plots import draw_loss

        path = folders.input_path(data) if data.strip() else None
        with memory.normal_tensors():
            lessons = read_training_data(path, split_names(actions), pose_steps, stride, mirror)
        model, state, text = train_act_vae(lessons, Plan(**settings), latent, kl, measure_every, start_from)
        return io.NodeOutput(to_socket(model), draw_loss(state.losses), text)


def train_act_vae(
    data: TrainingData, plan: Plan, latent: int, kl: float, measure_every: int, start_from: LoadedACTVAE | None
) -> tuple[ACTVAE, TrainingState, str]:
    """The model that was learned and saved, its training's state, and a text of data and measures."""
    from ..flexiact_core.act_vae.fit import fit_action_poses, predictor_of
    from ..flexiact_core.act_vae.loading import ACTVAE, save_act_vae
    from ..flexiact_core.act_vae.model import ActionPoses
    from ..flexiact_core.act_vae.training_data import measure_state

    first = None if start_from is None else start_from.model.predictor
    identity = {
        "data": data.digest, "actions": list(data.names), "latent": latent, "kl": kl,
        "start_from": "" if first is None else encodings.tensor_digest(*first.parameters()),
    }  # fmt: skip
    training = Training(MODELS, plan, identity)
    fit = partial(
        fit_action_poses, data.draw, num_actions=len(data.names), latent=latent, kl_weight=kl, start_from=first
    )
    state = training.run(
        _device_of_training(ActionPoses(len(data.names), latent)), TRAINING_BYTES, fit, partial(_show, data),
        measure_every,
    )  # fmt: skip
    with memory.normal_tensors():
        model = ACTVAE(predictor_of(state), data.names, data.steps, data.margin, name=plan.name)

    def write(path, about):
        return save_act_vae(model, path, {key: str(value) for key, value in about.items()})

    training.save("trained", state, write)
    return model, state, "\n".join([*data.notes, measure_state(data, state)])


def _show(data: TrainingData, state: TrainingState) -> Tensor:
    """A held-out clip as it goes on, drawn; the measures are said."""
    from ..flexiact_core.act_vae.fit import predictor_of
    from ..flexiact_core.act_vae.report import draw_first
    from ..flexiact_core.act_vae.training_data import measure_state

    progress.say(measure_state(data, state))
    return draw_first(predictor_of(state), *data.held_out)


def _device_of_training(module):
    """ComfyUI's owner of a module of the size that is learned, which gives the device and makes room on it."""
    import comfy.model_management as management

    return memory.to_patcher(module, management.get_torch_device(), management.unet_offload_device())

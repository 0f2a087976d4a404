"""FlexiAct's nodes: the adapter, the action, and sampling."""

from __future__ import annotations

from comfy_api.latest import io

from ..flexiact_core.cogvideox.family import COGVIDEOX_1_0
from . import inputs
from .flexiact_sampling import AttentionPicture, perform_action
from .host import folders, media, memory, progress
from .native import ANY_MODEL, with_lora
from .sampling import complete_run, fit_picture
from .sockets import BaseModel, FAESocket, RunAcceleration, WeightedFAEs
from .training import not_computed

FILES = folders.ModelFolder("flexiact", "hf download shiyi0408/FlexiAct --local-dir {folder}")
REFADAPTER_WORDS = b".lora_"
FAE_WORDS = b"motion_inversion_tokens"


class ApplyRefAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ApplyRefAdapter",
            display_name="Apply RefAdapter",
            category="FlexiAct",
            description=(
                "Lets any picture, not only a true first frame, lead the video. Gives a new model; the one that comes "
                "in is unchanged. Several adapters add up, each with its own weight."
            ),
            search_aliases=["refadapter", "refnet lora", "flexiact adapter", "identity lora"],
            inputs=[
                io.MatchType.Input(
                    "model", ANY_MODEL, tooltip="The base from Load CogVideoX I2V, or a MODEL of CogVideoX 1.0."
                ),
                inputs.file_list(
                    "adapter_file",
                    folders.find_files(FILES, REFADAPTER_WORDS),
                    "A RefAdapter (.safetensors or released .pt) in models/flexiact. To fetch the released one: "
                    + FILES.command(),
                ),
                io.Float.Input(
                    "weight",
                    default=0.7,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip=(
                        "How strongly the adapter acts, as a factor on its change of the weights. 0: not at all. "
                        "0.7: the released value. 1: as it was trained."
                    ),
                ),
            ],
            outputs=[
                io.MatchType.Output(ANY_MODEL, display_name="model", tooltip="The model with the adapter applied.")
            ],
        )

    @classmethod
    def validate_inputs(cls, adapter_file):
        return folders.check_weights(FILES, adapter_file)

    @classmethod
    def fingerprint_inputs(cls, adapter_file=None, **_):
        return folders.files_state(folders.find_files(FILES).get(adapter_file))

    @classmethod
    def execute(cls, model, adapter_file, weight) -> io.NodeOutput:
        from ..flexiact_core.flexiact.refadapter import load_refadapter

        with memory.normal_tensors():
            adapter = load_refadapter(folders.weights_path(FILES, adapter_file))
        return io.NodeOutput(with_lora(model, adapter, weight))


class LoadFAEEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadFAEEmbedding",
            display_name="Load Action (FAE)",
            category="FlexiAct",
            description=(
                "Loads one learned action (FAE). Connect another Load Action to 'fae' to combine two actions; "
                "each keeps its own strength."
            ),
            search_aliases=["fae", "load fae embedding", "motion embedding", "flexiact action"],
            inputs=[
                inputs.file_list(
                    "fae_file",
                    folders.find_files(FILES, FAE_WORDS),
                    "An action (.safetensors or released .pt) in models/flexiact. Train Action makes new ones. To "
                    "fetch the released ones: " + FILES.command(),
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip=(
                        "Weight of this action's tokens in attention, as a factor. 0: exactly as without the action. "
                        "1: as trained. 2: each token counts twice."
                    ),
                ),
                FAESocket.Input("fae", optional=True, tooltip="Actions to combine this one with."),
            ],
            outputs=[FAESocket.Output(display_name="fae", tooltip="The action, with those combined before it.")],
        )

    @classmethod
    def validate_inputs(cls, fae_file):
        return folders.check_weights(FILES, fae_file)

    @classmethod
    def fingerprint_inputs(cls, fae_file=None, **_):
        return folders.files_state(folders.find_files(FILES).get(fae_file))

    @classmethod
    def execute(cls, fae_file, strength, fae: WeightedFAEs = ()) -> io.NodeOutput:
        from ..flexiact_core.flexiact.fae import load_fae

        with memory.normal_tensors():
            return io.NodeOutput((*fae, (load_fae(folders.weights_path(FILES, fae_file)), strength)))


class FlexiActSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FlexiActSampler",
            display_name="Action Transfer (animate image, motion transfer)",
            category="FlexiAct",
            description=(
                "Makes a video in which the picture performs the action. Without an action it is plain CogVideoX "
                "image-to-video."
            ),
            search_aliases=["flexiact", "action transfer", "motion transfer", "animate image", "flexiact sampler"],
            inputs=[
                inputs.model("The base, with RefAdapter applied for action transfer.", lazy=True),
                io.Image.Input(
                    "image",
                    lazy=True,
                    tooltip=(
                        "One picture that is to perform the action. It is scaled to cover the size and cut at the "
                        "centre. Of a cut-out picture connect Load Image's MASK, too."
                    ),
                ),
                FAESocket.Input(
                    "fae",
                    optional=True,
                    lazy=True,
                    tooltip="The action. Left open: plain image-to-video, led by the prompt alone.",
                ),
                inputs.prompt(),
                inputs.negative_prompt(),
                inputs.side("width"),
                inputs.side("height"),
                inputs.num_frames(),
                inputs.sampling_steps(COGVIDEOX_1_0.steps),
                inputs.cfg(),
                *inputs.bias()[:3],
                inputs.seed(),
                inputs.scheduler(),
                inputs.bias()[3],
                inputs.acceleration(),
                io.Boolean.Input(
                    "draw_attention",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "On: draws how much the video attends to the action in every layer and step, for the output "
                        "'attention'. The frames stay the same. Off: nothing is drawn, and it takes no time."
                    ),
                ),
                inputs.mask(),
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="The frames, as many as asked for."),
                io.Video.Output(display_name="video", tooltip="The same frames as a video at 8 frames per second."),
                io.Image.Output(
                    display_name="attention",
                    tooltip=(
                        "Share of attention (0 to 1) that the action's tokens get from the video, by layer and step. "
                        "Needs draw_attention; what is connected here waits without it."
                    ),
                ),
            ],
        )

    @classmethod
    def check_lazy_status(
        cls, width, height, num_frames, cfg, bias_strength, hold_until, off_below, weighting, **lazy
    ):  # fmt: skip
        from ..flexiact_core.cogvideox.own_values import check_asked
        from ..flexiact_core.flexiact.bias import choose_bias

        # Here, and not in validate_inputs: one sentence instead of one per input, and linked numbers are known too.
        check_asked(COGVIDEOX_1_0, {"width": width, "height": height, "num_frames": num_frames, "cfg": cfg})
        choose_bias({}, bias_strength, hold_until, off_below, weighting)
        return not_computed(lazy)

    @classmethod
    def execute(
        cls, model: BaseModel, image, prompt, negative_prompt, width, height, bias_strength, hold_until, off_below,
        weighting, fae: WeightedFAEs = (), acceleration: RunAcceleration | None = None, draw_attention=False, mask=None,
        *, num_frames, steps, cfg, **run,
    ) -> io.NodeOutput:  # fmt: skip
        from ..flexiact_core.flexiact.bias import choose_bias

        bias = choose_bias(model.base.transformer.config, bias_strength, hold_until, off_below, weighting)
        own = complete_run(model, width=width, height=height, num_frames=num_frames, steps=steps, cfg=cfg)
        picture = fit_picture(model, image, "image", own.pop("width"), own.pop("height"), own["num_frames"], mask)
        attention = AttentionPicture(model, own["steps"]) if draw_attention else None
        run |= own
        frames = perform_action(model, picture, (prompt, negative_prompt), fae, bias, acceleration, attention, **run)
        return io.NodeOutput(
            frames, media.to_video(frames, model.base.family.fps), attention.draw() if attention else progress.nothing()
        )

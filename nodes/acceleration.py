"""What makes a base sample faster: a node that any sampler of ours takes."""

from __future__ import annotations

from comfy_api.latest import io

from .sockets import AccelerationSocket, RunAcceleration


class FlexiActAcceleration(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        from ..flexiact_core.cogvideox.acceleration import STEP_CACHES
        from ..flexiact_core.kernels import KERNEL_NAMES

        return io.Schema(
            node_id="FlexiActAcceleration",
            display_name="FlexiAct Acceleration",
            category="FlexiAct",
            description=(
                "Ways for Action Transfer to save time. The result differs from the exact one in rounding only, "
                "unless a step cache or attention 'sage' is chosen."
            ),
            search_aliases=["flexiact speed", "teacache", "first block cache", "taylorseer", "torch compile", "sage"],
            inputs=[
                io.Boolean.Input(
                    "merge_adapter",
                    default=True,
                    tooltip=(
                        "On: RefAdapter is added to the weights while sampling and costs no time; they come back bit "
                        "for bit. Off: it is computed beside them in every layer, as always with float8 weights."
                    ),
                ),
                io.Float.Input(
                    "threshold",
                    default=0.1,
                    min=0.0,
                    max=0.95,
                    step=0.01,
                    tooltip=(
                        "For step_cache first_block: a step is reused where the first layer's change differs by less "
                        "than this fraction from the last full step's. 0: no step is reused. High: fast, less like the "
                        "exact result."
                    ),
                ),
                io.Int.Input(
                    "interval",
                    default=3,
                    min=1,
                    max=10,
                    tooltip=(
                        "For step_cache taylor: one of so many steps is computed, after the first three. 1: every "
                        "step. High: fast, less like the exact result."
                    ),
                ),
                io.Boolean.Input(
                    "compiled",
                    default=False,
                    tooltip=(
                        "Compiles the repeated layer with torch.compile: a wait of up to minutes before the first step "
                        "of a new size, none after it. Needs a compiler that torch can use (Triton on a GPU)."
                    ),
                ),
                io.Combo.Input(
                    "step_cache",
                    options=list(STEP_CACHES),
                    default="off",
                    tooltip=(
                        "off: every step in full. first_block: reuses a step where the first layer hardly changed. "
                        "taylor: computes one step in 'interval' and extrapolates between. Both change the result. "
                        "On the small world, 50 steps of DPM, taylor at 3 was 2.2 times as fast, 49 dB from the exact "
                        "video, at 5 2.9 times, 43 dB; first_block at 0.2 1.9 times, 46 dB."
                    ),
                ),
                io.Combo.Input(
                    "attention",
                    options=list(KERNEL_NAMES),
                    default="auto",
                    tooltip=(
                        "The attention kernel. auto: torch's own choice, best in most cases. flash, cudnn, efficient: "
                        "torch's others, the same but for rounding. math: the reference, slow, and its memory grows "
                        "with the square of the number of tokens. sage: SageAttention 2, where it is installed: "
                        "faster, compares in 8 bits and changes the result a little."
                    ),
                ),
            ],
            outputs=[AccelerationSocket.Output(display_name="acceleration", tooltip="For Action Transfer.")],
        )

    @classmethod
    def execute(cls, merge_adapter, threshold, interval, compiled, step_cache, attention) -> io.NodeOutput:
        from ..flexiact_core.cogvideox.acceleration import Acceleration

        return io.NodeOutput(
            RunAcceleration(Acceleration(step_cache, threshold, interval, compiled, attention), merge_adapter)
        )

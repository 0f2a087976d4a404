"""Nodes that give CogVideoX's own noise, steps and schedule to ComfyUI's samplers."""

from __future__ import annotations

from comfy_api.latest import io

from ..flexiact_core.cogvideox.family import COGVIDEOX_1_0
from . import inputs


class CogVideoXNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CogVideoXNoise",
            display_name="CogVideoX Noise",
            category="FlexiAct/native",
            description=(
                "The noise that Action Transfer starts from at the same seed, for SamplerCustomAdvanced. With "
                "CogVideoX Sampler and Schedule the video is then the same. ComfyUI's own noise of a seed is another."
            ),
            search_aliases=["cogvideox random noise", "same seed as flexiact sampler", "noise seed"],
            inputs=[inputs.seed("The seed of Action Transfer, or any. Videos of a batch take the seeds that follow.")],
            outputs=[io.Noise.Output(display_name="noise", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, seed) -> io.NodeOutput:
        from .native_sampling import StartNoise

        return io.NodeOutput(StartNoise(seed))


class CogVideoXSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CogVideoXSampler",
            display_name="CogVideoX Sampler",
            category="FlexiAct/native",
            description="CogVideoX's own steps as a SAMPLER, for SamplerCustom with CogVideoX Schedule.",
            search_aliases=["cogvideox dpm", "cogvideox ddim", "sampler select cogvideox"],
            inputs=[inputs.scheduler()],
            outputs=[io.Sampler.Output(display_name="sampler", tooltip="For SamplerCustom.")],
        )

    @classmethod
    def execute(cls, scheduler) -> io.NodeOutput:
        from .native_sampling import sampler_class

        return io.NodeOutput(sampler_class()(scheduler))


class CogVideoXSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CogVideoXSchedule",
            display_name="CogVideoX Schedule",
            category="FlexiAct/native",
            description="CogVideoX's own timesteps, spaced from the noisy end, as SIGMAS at any number of steps.",
            search_aliases=["trailing sigmas", "cogvideox scheduler", "trailing timesteps"],
            inputs=[
                io.Model.Input("model", tooltip="From Load CogVideoX (native) or CogVideoX 1.0 Fixes."),
                inputs.sampling_steps(COGVIDEOX_1_0.steps),
            ],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="For SamplerCustom.")],
        )

    @classmethod
    def execute(cls, model, steps) -> io.NodeOutput:
        from ..flexiact_core.cogvideox.own_values import own_values
        from .host import native
        from .native_sampling import trailing_sigmas

        steps = own_values(native.own_config(model)).complete(steps=steps)["steps"]
        return io.NodeOutput(trailing_sigmas(model.get_model_object("model_sampling"), steps))

"""The pack's nodes. Their ids are saved in workflows and never change."""

from .acceleration import FlexiActAcceleration
from .cogvideox import LoadCogVideoXI2V
from .flexiact import ApplyRefAdapter, FlexiActSampler, LoadFAEEmbedding
from .flexiact_training import LoadReleasedAction, PrepareActionClips, TrainFAE, TrainRefAdapter
from .world import LoadExampleAction, MeasureAction

NODE_CLASS_MAPPINGS = {
    "LoadCogVideoXI2V": LoadCogVideoXI2V,
    "ApplyRefAdapter": ApplyRefAdapter,
    "LoadFAEEmbedding": LoadFAEEmbedding,
    "FlexiActSampler": FlexiActSampler,
    "FlexiActAcceleration": FlexiActAcceleration,
    "PrepareActionClips": PrepareActionClips,
    "LoadReleasedAction": LoadReleasedAction,
    "TrainFAE": TrainFAE,
    "TrainRefAdapter": TrainRefAdapter,
    "LoadExampleAction": LoadExampleAction,
    "MeasureAction": MeasureAction,
}

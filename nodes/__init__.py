"""The pack's nodes. Their ids are saved in workflows and never change."""

from .cogvideox import LoadCogVideoXI2V
from .flexiact import ApplyRefAdapter, FlexiActSampler, LoadFAEEmbedding
from .flexiact_training import PrepareActionClips, TrainFAE

NODE_CLASS_MAPPINGS = {
    "LoadCogVideoXI2V": LoadCogVideoXI2V,
    "ApplyRefAdapter": ApplyRefAdapter,
    "LoadFAEEmbedding": LoadFAEEmbedding,
    "FlexiActSampler": FlexiActSampler,
    "PrepareActionClips": PrepareActionClips,
    "TrainFAE": TrainFAE,
}
